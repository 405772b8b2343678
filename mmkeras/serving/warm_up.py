"""Requests that a model brings along, answered before anybody else's: the first run of a graph is a slow one."""

import pathlib

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from mmkeras.serving import examples
from mmkeras.serving.errors import ServingError
from mmkeras.serving.servable import run_alone

MOST_REQUESTS = 1000


def warm_up(servable):
    """Runs the requests in a version's `assets.extra/tf_serving_warmup_requests`; without such a file nothing.

    Raises:
        ServingError: if one of them fails, or the file is broken: the version is not served then.
    """
    file = pathlib.Path(servable.path, "assets.extra", "tf_serving_warmup_requests")
    if not file.exists():
        return
    try:
        for record in tf.data.TFRecordDataset(str(file)).take(MOST_REQUESTS).as_numpy_iterator():
            _run(servable, prediction_log_pb2.PredictionLog.FromString(record))
    except (tf.errors.DataLossError, ValueError) as error:
        raise ServingError("DATA_LOSS", f"The warm-up requests in {file} are broken: {error}") from None


def _run(servable, log):
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        request = log.predict_log.request
        feeds = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        servable.run(request.model_spec.signature_name or "serving_default", feeds)
    elif kind in ("classify_log", "regress_log"):
        request = getattr(log, kind).request
        given = [one.SerializeToString() for one in request.input.example_list.examples]
        ask = examples.classify if kind == "classify_log" else examples.regress
        ask(run_alone, servable, request.model_spec.signature_name or "serving_default", given)
