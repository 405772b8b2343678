"""Servers side by side: `zoo serve`, LitServe and BentoML over the same SavedModels, asked by the same clients.

A server of each kind is tuned first, by requests a second at eight clients over the options of `GRID`, and measured at
its best: clients that ask again as soon as they are answered, and requests at a fixed rate. Each answer is compared
with the model's own. The clients run on the same cores. LitServe and BentoML: the extra `bench`.
"""

import base64
import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import orjson

import zoo
from zoo import bench
from zoo.bench import _load

NAMES = ["zoo", "litserve", "bentoml"]
CLIENTS, TUNED_AT, SECONDS, TUNING_SECONDS = (1, 4, 8, 16, 64), 8, 5.0, 3.0
# What each server is tuned over: what it is called in the table, and options of `_command`.
WORKERS = {
    f"{workers} worker(s), {title}": {"workers": workers, "batch": batch}
    for workers in (1, 2)
    for title, batch in (("each alone", 1), ("batches of 16", 16))
}
GRID = {
    "zoo": {"each alone": {}, "batches of 16": {"batch": 16}, "batches of 64": {"batch": 64}},
    "litserve": WORKERS,
    "bentoml": WORKERS,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model that is asked: its signature, that one's input, and the requests a second of the open loop."""

    signature: str
    input: str
    rate: float


CASES = {
    "half_plus_two": Case("serving_default", "x", 200.0),
    "dual_encoder": Case("encode_image", "image", 30.0),
    "captioner": Case("generate", "image", 5.0),
}


def run(out="bench/serving", names=None, seed=0):
    """Exports the models, measures the servers, and returns the tables.

    Args:
        out: folder of the runs, the models and `serving.json`.
        names: of the servers; all if None.
        seed: of the trainings.
    """
    out, names = pathlib.Path(out), names or NAMES
    for name in names:
        if name != "zoo" and importlib.util.find_spec(name) is None:
            raise ValueError(f"There is no {name} here: pip install {name}, or measure others with --only.")
    folder = out / "servables"
    _export(out, folder, seed)
    asked = {model: _asked(folder, model) for model in CASES}
    pairs = [f"{model} by {name}" for model in CASES for name in names]

    def measure(pair):
        model, name = pair.split(" by ")
        return _measure(folder, model, name, *asked[model][:2])

    found = bench.measured(out / "serving.json", pairs, measure, seed=seed)
    return table(found, {model: in_process for model, (_, _, in_process) in asked.items()})


def _export(out, folder, seed):
    """`half_plus_two`, and two models of the zoo after an epoch: what they say matters less than how fast."""
    import tensorflow as tf

    from mmkeras import export

    if not (folder / "half_plus_two").exists():
        specs = {"x": tf.TensorSpec((None,), tf.float32, name="x")}
        signature = export.Signature(lambda raw: {"y": 0.5 * raw["x"] + 2.0}, specs)
        export.export(folder / "half_plus_two", {"serving_default": signature})
    for name in ("dual_encoder", "captioner"):
        if not (folder / name).exists():
            trained = zoo.train(name, "scenes", out=out / name, epochs=1, seed=seed, overwrite=True, verbose=2)
            trained.export(folder)


def _asked(folder, model, rows=16):
    """(bodies of requests, the right answer to each, milliseconds of a call in this process)."""
    from mmkeras import data
    from mmkeras.serving.servable import Servable

    case = CASES[model]
    values = [float(i) for i in range(rows)]
    if case.input == "image":
        values = list(data.open("scenes").test.cells("image")[:rows])
    version = max((folder / model).iterdir(), key=lambda path: int(path.name))
    servable = Servable(model, int(version.name), version)
    answers, times = [], []
    for i in range(200 if model == "half_plus_two" else 2 * rows):
        fed = np.array([values[i % rows]], object if case.input == "image" else "float32")
        began = time.perf_counter()
        answer = servable.run(case.signature, {case.input: fed}, timeout_ms=30_000.0)
        times.append(time.perf_counter() - began)
        answers.append({name: _plain(value[0]) for name, value in answer.items()})
    servable.close()
    written = [{"b64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for v in values]
    bodies = [orjson.dumps({"signature_name": case.signature, "instances": [value]}) for value in written]
    return bodies, answers[:rows], float(np.median(times[rows:])) * 1000


def _plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return _plain(value.tolist()) if isinstance(value, (np.ndarray, np.generic)) else value


def _checker(answers):
    """A function of the number of a request and the body of its answer: whether that is right.

    An answer that has been found right once is known by its bytes.
    """
    known = {}

    def is_right(number, body):
        if known.get(number) == body:
            return True
        found = orjson.loads(body)
        (row,) = found["predictions"] if isinstance(found, dict) else found
        expected = answers[number]
        row = row if isinstance(row, dict) else {next(iter(expected)): row}
        right = row.keys() == expected.keys() and all(_same(expected[name], row[name]) for name in expected)
        if right:
            known[number] = body
        return right

    return is_right


def _same(expected, found):
    if np.asarray(expected).dtype.kind == "U":
        return expected == found
    return np.shape(expected) == np.shape(found) and np.allclose(expected, found, rtol=1e-4, atol=1e-5)


def _measure(folder, model, name, bodies, answers):
    """Tunes a server and measures the best of it."""
    case, is_right, tried = CASES[model], _checker(answers), {}
    for title, options in GRID[name].items():
        with _serving(folder, model, name, bodies[0], **options) as (port, path, _):
            requests = [_load.request(port, path, body) for body in bodies]
            tried[title] = _load.closed_loop(port, requests, is_right, TUNED_AT, TUNING_SECONDS).figures()
    right = [title for title in tried if not tried[title]["errors"] + tried[title]["wrong"]] or list(tried)
    best = max(right, key=lambda title: tried[title]["requests_per_second"])
    with _serving(folder, model, name, bodies[0], **GRID[name][best]) as (port, path, process):
        requests = [_load.request(port, path, body) for body in bodies]
        closed = {n: _load.closed_loop(port, requests, is_right, n, SECONDS).figures() for n in CLIENTS}
        open_loop = _load.open_loop(port, requests, is_right, case.rate, SECONDS).figures()
        return {"tried": tried, "best": best, "closed": closed, "open": open_loop, "megabytes": _memory(process.pid)}


@contextlib.contextmanager
def _serving(folder, model, name, body, **options):
    """(port, path, process) of a server that has given its first answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, path, variables = _command(folder, model, name, port, **options)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait(process, port, _load.request(port, path, body), name)
        yield port, path, process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):  # a worker that outlives its server
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _command(folder, model, name, port, workers=1, batch=1):
    """(command, path of a request, environment variables)."""
    case = CASES[model]
    version = max((folder / model).iterdir(), key=lambda path: int(path.name))
    if name == "zoo":
        command = [sys.executable, "-m", "zoo._cli", "serve", str(folder), "--rest-port", str(port), "--grpc-port", "0"]
        if batch > 1:
            file = folder.parent / f"batches_of_{batch}.txt"
            file.write_text(f"max_batch_size {{ value: {batch} }} batch_timeout_micros {{ value: 0 }}")
            command += ["--batching", str(file)]
        return command, f"/v1/models/{model}:predict", {}
    if name == "litserve":
        asked = [str(version), case.signature, case.input, str(port), str(workers), str(batch)]
        return [sys.executable, "-m", "zoo.bench._litserve", *asked], "/predict", {}
    settings = json.dumps([str(version), case.signature, case.input, workers, batch])
    command = [sys.executable, "-m", "bentoml", "serve", "zoo.bench._bentoml:Model", "--port", str(port)]
    return command, "/predict", {"ZOO_BENCH": settings, "BENTOML_DO_NOT_TRACK": "true"}


def _wait(process, port, request, name, seconds=120):
    ends = time.monotonic() + seconds
    while True:
        try:
            if _load.closed_loop(port, [request], lambda *_: True, 1, 0.01, warm_up=0).times:
                return
        except OSError:
            pass  # nobody listens yet
        if process.poll() is not None or time.monotonic() > ends:
            raise RuntimeError(f"The server {name} did not answer within {seconds} seconds.")
        time.sleep(0.5)


def _memory(pid):
    """Megabytes of a process and those it has begun; what they share is counted once."""
    parents = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    family, size = {pid}, 0
    while size < len(family):
        size = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    total = 0
    for one in family:
        with contextlib.suppress(OSError):
            lines = pathlib.Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def table(found, in_process):
    """Two Markdown tables: the servers at their best, and what they were tuned over.

    Args:
        found: what `_measure` gave, by `"MODEL by SERVER"`.
        in_process: `{model: milliseconds of a call in this process}`.
    """
    titles = ["model", "server", "load", "requests a second", "p50, ms", "p99, ms", "errors", "wrong", "memory, MB"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for pair, one in found.items():
        model, name = pair.split(" by ")
        loads = [(f"{n} client(s)", figures) for n, figures in one["closed"].items()]
        loads.append((f"{CASES[model].rate:g} a second", one["open"]))
        for i, (title, figures) in enumerate(loads):
            first = [f"`{model}`", name] if i == 0 else ["", ""]
            said = [f"{figures['requests_per_second']:,.0f}", f"{figures['p50']:.2f}", f"{figures['p99']:.2f}"]
            memory = f"{one['megabytes']:,.0f}" if i == 0 else ""
            lines.append(
                f"| {' | '.join([*first, title, *said, str(figures['errors']), str(figures['wrong']), memory])} |"
            )
    lines += [
        "",
        "A call in this process, p50: " + ", ".join(f"`{m}` {ms:.2f} ms" for m, ms in in_process.items()) + ".",
    ]
    lines += ["", f"Tuned at {TUNED_AT} clients, requests a second:", ""]
    for pair, one in found.items():
        tried = (f"{title} {figures['requests_per_second']:,.0f}" for title, figures in one["tried"].items())
        lines.append(f"- {pair}: {'; '.join(tried)}. Taken: {one['best']}.")
    return "\n".join(lines)
