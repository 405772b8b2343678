"""The page at `/`: the models, a form to ask one, and how many requests were answered how."""

import importlib.resources

from mmkeras.serving import json_text
from mmkeras.serving.errors import ServingError


def pages(models, metrics):
    """What lies beside the API, `{path: (content type, function to bytes)}`.

    Args:
        models: a Models.
        metrics: a Metrics.
    """
    html = importlib.resources.files("mmkeras.serving").joinpath("page.html").read_bytes()
    return {
        "/": (b"text/html; charset=utf-8", lambda: html),
        "/zoo/models": (b"application/json", lambda: json_text.dumps({n: _described(models, n) for n in models.names})),
        "/zoo/requests": (b"application/json", lambda: json_text.dumps(_counted(metrics))),
    }


def _described(models, name):
    versions, signatures = [], {}
    if models.knows(name):
        for number, one in models.status(name):
            error = one.error.message if one.error else None
            versions.append({"version": number, "state": one.state, "error": error})
    try:
        with models.using(name) as servable:
            usual_first = sorted(servable.signatures.items(), key=lambda one: one[0] != "serving_default")
            signatures = {key: {"inputs": one.dtypes, "outputs": list(one.outputs)} for key, one in usual_first}
    except ServingError:  # none of its versions is loaded
        pass
    return {"versions": versions, "signatures": signatures}


def _counted(metrics):
    return [
        {"model": model, "status": status, "requests": count}
        for (model, status), count in sorted(metrics.counts().items())
    ]
