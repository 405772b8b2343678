"""What goes wrong at a server harms nobody else: strange requests, strange clients, faults of our own."""

import contextlib
import errno
import functools
import http.client
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import threading
import time
import types

import grpc
import models as examples
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import answer, ask, running, versions, wait_for
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from mmkeras.serving import ModelConfig, Models, ServingError, rest
from mmkeras.serving.errors import HTTP_STATUS, MOST_ECHOED

LONG = "Q" * 5000  # no message of ours has this letter


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in ("half_plus_two", "labels", "named", "versioned"):
        write = getattr(examples, name)
        write(folder / name / "1", *([1] if name == "versioned" else []))

    @examples.function(text=([None], tf.string))
    def to_number(text):
        return {"y": tf.strings.to_number(text)}

    examples.save(folder / "to_number" / "1", {"serving_default": to_number})
    with running(folder, grpc_port=0) as server:
        yield server


@contextlib.contextmanager
def stubs(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )


# Errors repeat little of what was asked

PREDICT = "/v1/models/half_plus_two:predict"
SLOW = b'{"inputs": {"n": 2000000000}}'
NAMED, NO_BASE64 = ("str_tensor", "int_tensor", "float_tensor", "dbl_tensor"), {"b64": LONG + "!"}
TOLD_BY_REST = {
    "a path": (f"/v1/{LONG}", {}),
    "no path of ours": (f"/{LONG}", {}),
    "a model": (f"/v1/models/{LONG}:predict", {"instances": [1.0]}),
    "a version": (f"/v1/models/{LONG}/versions/7:predict", {"instances": [1.0]}),
    "a label": (f"/v1/models/half_plus_two/labels/{LONG}:predict", {"instances": [1.0]}),
    "a signature": (PREDICT, {"signature_name": LONG, "instances": [1.0]}),
    "a value": (PREDICT, {"instances": [LONG]}),
    "a column": (PREDICT, {"inputs": [LONG]}),
    "a name": (PREDICT, {"instances": [{LONG: 1.0}]}),
    "a deep value": (PREDICT, {"instances": [[1.0], [LONG]]}),
    "a row that lacks a name": ("/v1/models/named:predict", {"instances": [{"str_tensor": LONG}]}),
    "what is no base64": ("/v1/models/named:predict", {"inputs": dict.fromkeys(NAMED, NO_BASE64)}),
    "a feature": ("/v1/models/labels:classify", {"examples": [{LONG: None}]}),
    "a feature of two kinds": ("/v1/models/labels:classify", {"examples": [{LONG: [1, "Q"]}]}),
    "a large feature": ("/v1/models/labels:classify", {"examples": [{LONG: 2**63}]}),
    "a signature to classify": ("/v1/models/labels:classify", {"signature_name": LONG, "examples": [{}]}),
    "a value that the graph refuses": ("/v1/models/to_number:predict", {"instances": [LONG]}),
}  # fmt: skip


@pytest.mark.parametrize("place", TOLD_BY_REST)
def test_an_error_repeats_little_of_a_request(server, place):
    path, body = TOLD_BY_REST[place]
    status, _, said = ask(server, path, json.dumps(body))
    assert status in (400, 404)
    assert "error" in json.loads(said)
    assert said.count(b"Q") <= MOST_ECHOED


def predict(**given):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = given.get("model", "half_plus_two")
    request.model_spec.signature_name = given.get("signature", "")
    request.model_spec.version_label = given.get("label", "")
    for name in given.get("inputs", ("x",)):
        request.inputs[name].CopyFrom(tf.make_tensor_proto(given.get("value", [[1.0]])))
    request.output_filter.extend(given.get("outputs", ()))
    return request


def bytes_of(array, kind, shape, content):
    message = tf.make_tensor_proto(array)
    message.dtype = kind
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    message.tensor_content = content
    return message


def inference(*methods):
    request = inference_pb2.MultiInferenceRequest()
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(1.0)
    for name, method, signature in methods:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name, signature
    return request


def reload(*models):
    request = model_management_pb2.ReloadConfigRequest()
    for name, path, platform, labels in models:
        config = request.config.model_config_list.config.add(name=name, base_path=path, model_platform=platform)
        config.version_labels.update(labels)
    return request


def classification():
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "labels"
    request.input.example_list.examples.add().features.feature[LONG].float_list.value.append(1.0)
    return request


def metadata():
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[LONG])
    request.model_spec.name = "labels"
    return request


TOLD_BY_GRPC = {
    "a model": lambda: predict(model=LONG),
    "a label": lambda: predict(label=LONG),
    "a signature": lambda: predict(signature=LONG),
    "an input": lambda: predict(inputs=[LONG]),
    "inputs": lambda: predict(inputs=[LONG, LONG + "Q"]),
    "an output": lambda: predict(outputs=[LONG]),
    "a value that the graph refuses": lambda: predict(model="to_number", inputs=["text"], value=[LONG]),
    "a field": metadata,
    "a feature": classification,
    "two models": lambda: inference((LONG, "", ""), (LONG + "Q", "", "")),
    "a method": lambda: inference(("half_plus_two", LONG, "")),
    "a signature twice": lambda: inference(("half_plus_two", "", LONG), ("half_plus_two", "", LONG)),
    "a new model": lambda: reload((LONG, f"/{LONG}", "tensorflow", {})),
    "a model twice": lambda: reload(*[(LONG, f"/{LONG}", "tensorflow", {})] * 2),
    "a folder": lambda: reload((LONG, LONG, "tensorflow", {})),
    "a platform": lambda: reload((LONG, "/m", LONG, {})),
    "a label of a new model": lambda: reload(("half_plus_two", "/m", "tensorflow", {LONG: 7})),
}


@pytest.mark.parametrize("place", TOLD_BY_GRPC)
def test_an_error_of_grpc_repeats_little_of_a_request(server, place, monkeypatch):
    request = TOLD_BY_GRPC[place]()
    monkeypatch.setattr(server.model_service, "reload", True)
    kept = server.models.names
    with stubs(server) as (prediction, service):
        method = {
            "PredictRequest": prediction.Predict, "MultiInferenceRequest": prediction.MultiInference,
            "ReloadConfigRequest": service.HandleReloadConfigRequest, "ClassificationRequest": prediction.Classify,
            "GetModelMetadataRequest": prediction.GetModelMetadata,
        }[type(request).__name__]  # fmt: skip
        with pytest.raises(grpc.RpcError) as caught:
            method(request, timeout=20)
    assert caught.value.details().count("Q") <= MOST_ECHOED
    assert caught.value.code().name not in ("INTERNAL", "DEADLINE_EXCEEDED")
    assert server.models.names == kept


def test_a_few_bytes_that_declare_a_huge_tensor_are_refused(server):
    request = predict()
    for sizes in ([2**33], [2**20, 2**20], [2**62, 2**62], [-1], [-1, -(2**40)]):
        request.inputs["x"].CopyFrom(bytes_of([1.0], 1, sizes, b""))
        del request.inputs["x"].tensor_shape.dim[0]
        with stubs(server) as (prediction, _), pytest.raises(grpc.RpcError) as caught:
            prediction.Predict(request, timeout=20)
        assert caught.value.code().name == "INVALID_ARGUMENT"
        assert "tensor parsing error: x. Expected a shape of at most 67,108,864 bytes" in caught.value.details()


def test_requests_over_grpc_may_be_as_large_as_over_http(server):
    request = predict(model="to_number", inputs=["text"], value=["1" + " " * 5_000_000])
    with stubs(server) as (prediction, _):
        assert prediction.Predict(request, timeout=20).outputs["y"].float_val == [1.0]


def test_models_are_changed_over_grpc_only_where_that_was_allowed(server):
    with stubs(server) as (_, service), pytest.raises(grpc.RpcError) as caught:
        service.HandleReloadConfigRequest(reload(), timeout=20)
    assert caught.value.code().name == "PERMISSION_DENIED"
    assert "versioned" in server.models.names


# Faults of our own


def test_an_unforeseen_fault_is_answered_counted_and_logged(server, monkeypatch, caplog):
    def run(*args, **kwargs):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(server.models.servable("half_plus_two"), "run", run)
    status, _, said = ask(server, PREDICT, b'{"instances": [1.0]}')
    assert status == 500
    assert json.loads(said)["error"] == "The server failed: ZeroDivisionError. Its log says where."
    with stubs(server) as (prediction, _), pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(predict(), timeout=20)
    assert caught.value.code().name == "INTERNAL"
    assert "secret" not in caught.value.details()
    assert caplog.text.count("ZeroDivisionError: secret") == 2
    assert server.metrics.counts()["half_plus_two", "INTERNAL"] == 2
    monkeypatch.undo()
    assert ask(server, PREDICT, b'{"instances": [1.0]}')[0] == 200


def test_quick_answers_are_given_by_the_event_loop_until_one_is_slow(server, monkeypatch):
    servable, threads, clock = server.models.servable("half_plus_two"), [], [0.0]

    def run(key, feeds, outputs=None, timeout_ms=None, seconds=0.0):
        threads.append(threading.current_thread().name)
        clock[0] += seconds
        return {"y": np.ones(1, "float32")}

    def asked(times, body=b'{"instances": [1.0]}'):
        threads.clear()
        for _ in range(times):
            assert ask(server, PREDICT, body)[0] == 200

    # A clock of our own: on a busy machine any answer may be slow.
    monkeypatch.setattr(rest, "time", types.SimpleNamespace(monotonic=time.monotonic, perf_counter=lambda: clock[0]))
    monkeypatch.setattr(servable, "run", run)
    asked(16)
    asked(2)
    assert threads == ["rest", "rest"]  # the event loop's own; those of the pool are numbered
    asked(1, b'{"instances": [1.0' + b" " * 20_000 + b"]}")
    assert threads != ["rest"]  # a large body
    asked(1, b'{"instances": [1.0, 1.0]}')
    assert threads != ["rest"]  # more rows
    monkeypatch.setattr(servable, "run", functools.partial(run, seconds=0.02))
    asked(3)
    assert threads[0] == "rest"
    assert "rest" not in threads[1:]
    monkeypatch.undo()


def test_little_is_kept_of_requests_of_ever_other_shapes(server):
    servable = server.models.servable("half_plus_two")
    for i in range(1100):
        body = json.dumps({"instances": [[1.0]], f"{i}": {LONG[:1000] + str(i): [1.0] * (i % 5)}})
        assert ask(server, PREDICT, body)[0] == 200
    kinds = server._app._took[servable]
    assert len(kinds) <= 1000
    assert all(type(kind) is int for kind in kinds)


STEADY = {
    "arithmetic": lambda x: x * 2 + tf.reduce_sum(x),
    "a layer": lambda x: tf.nn.softmax(tf.matmul(tf.reshape(x, [-1, 1]), [[1.0, 2.0]])),
    "a function": tf.function(lambda x: tf.function(tf.nn.relu)(x)),
}
UNSTEADY = {
    "a loop": lambda x: tf.while_loop(lambda i: i < x[0], lambda i: (i + 1.0,), (0.0,))[0],
    "a branch": lambda x: tf.cond(x[0] > 0, lambda: x, lambda: tf.linalg.inv(tf.eye(3))[0]),
    "a range": lambda x: tf.reduce_sum(tf.range(x[0])),
    "a fill": lambda x: tf.reduce_sum(tf.fill([tf.cast(x[0], tf.int32)], 1.0)),
    "a repetition": lambda x: tf.reduce_sum(tf.tile(x, [tf.cast(x[0], tf.int32)])),
    "chance": lambda x: tf.reduce_sum(tf.random.uniform([tf.cast(x[0], tf.int32)])),
    "a loop in a function": tf.function(lambda x: tf.function(UNSTEADY["a loop"])(x)),
    "a text": lambda x: tf.strings.length(tf.strings.as_string(x)),
    "Python": lambda x: tf.numpy_function(np.abs, [x], tf.float32),
}  # fmt: skip


@pytest.mark.parametrize("title", [*STEADY, *UNSTEADY])
def test_only_a_graph_whose_time_is_told_by_shapes_is_steady(title, tmp_path):
    answer = {**STEADY, **UNSTEADY}[title]
    signatures = {
        "serving_default": examples.function(x=([None], tf.float32))(lambda x: {"y": answer(x)}),
        "other": examples.function(x=([None], tf.float32))(lambda x: {"y": x}),
    }
    examples.save(tmp_path / "m" / "1", signatures)
    servable = Models([ModelConfig("m", str(tmp_path / "m"))]).servable("m")
    assert servable.is_steady("serving_default") == (title in STEADY)
    assert servable.is_steady("other")
    assert not servable.is_steady("nobody's")


def test_classify_and_regress_are_steady(server):
    servable = server.models.servable("half_plus_two")
    assert all(map(servable.is_steady, servable.signatures))


def test_a_slow_version_in_the_place_of_a_quick_one_keeps_its_deadline_and_nobody_waits_for_it(tmp_path):
    quick = examples.function(n=([], tf.int32))(lambda n: {"y": n + 0})
    examples.save(tmp_path / "m" / "1", {"serving_default": quick})
    with running(tmp_path, timeout=1.0) as server:
        for _ in range(20):
            assert ask(server, "/v1/models/m:predict", b'{"inputs": {"n": 1}}')[0] == 200
        examples.slow(tmp_path / "m" / "2")
        server.models.poll()
        found = []
        asking = threading.Thread(target=lambda: found.append(ask(server, "/v1/models/m:predict", SLOW)[0]))
        began = time.monotonic()
        asking.start()
        time.sleep(0.1)
        assert ask(server, "/v1/models/m", method="GET")[0] == 200
        assert time.monotonic() - began < 0.9
        asking.join()
        assert found == [504]


def test_the_watch_outlives_a_folder_that_cannot_be_read(tmp_path, monkeypatch, caplog):
    versions(tmp_path, 1)
    models = Models([ModelConfig("versioned", str(tmp_path))])
    wanted, calls = models._wanted, []

    def fails_once(config):
        calls.append(config)
        if len(calls) == 1:
            raise PermissionError(errno.EACCES, "not now")
        return wanted(config)

    monkeypatch.setattr(models, "_wanted", fails_once)
    versions(tmp_path, 2)
    models.watch(0.01)
    wait_for(lambda: models.servable("versioned").version == 2)
    models.close()
    assert "not now" in caplog.text


def test_a_model_that_cannot_be_warmed_up_for_any_reason_leaves_the_others(tmp_path, caplog):
    for name in ("a", "b"):
        examples.versioned(tmp_path / name / "1", 1)

    def warm_up(servable):
        if servable.name == "a":
            raise KeyError("x")

    models = Models([ModelConfig(n, str(tmp_path / n)) for n in "ab"], retries=0, warm_up=warm_up)
    assert answer(models, "b") == 1
    ((_, one),) = models.status("a")
    assert (one.state, one.error.code) == ("END", "INTERNAL")


# Requests of any kind

NAMES = st.sampled_from(["half_plus_two", "labels", "named", "versioned", "to_number", "nobody", "%00", "..", "%C3%A9"])
PATHS = st.builds(
    "/v1/models/{}{}{}".format,
    NAMES,
    st.sampled_from(["", "/versions/1", "/versions/0", "/versions/" + "9" * 30, "/labels/x", "/versions/-1", "//"]),
    st.sampled_from(["", "/metadata", ":predict", ":classify", ":regress", ":Predict", ":", ":drop", "?a=b"]),
) | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map("/".__add__)
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
    | st.sampled_from([{"b64": "AAAA"}, {"b64": "!"}, {"b64": 1}, {}])
)  # fmt: skip
KEYS = st.sampled_from(["x", "y", "inputs", "instances", "examples", "context", "b64", "str_tensor", "text", ""])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=10
)
BODIES = st.one_of(
    st.dictionaries(st.sampled_from(["instances", "inputs", "examples", "context", "signature_name"]), VALUES).map(
        lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
    ),
    st.binary(max_size=60),
)


def broken(body, seed):
    """A body with a few of its bytes changed, taken away or doubled."""
    made, rng = bytearray(body), random.Random(seed)
    for _ in range(rng.randrange(4) if made else 0):
        at = rng.randrange(len(made))
        made[at : at + rng.randrange(3)] = bytes(rng.choices(b'[]{}",:0\\\xff', k=rng.randrange(3)))
        if not made:
            break
    return bytes(made)


# The suite asks a few hundred; ZOO_FUZZED_REQUESTS says otherwise.
MANY = int(os.environ.get("ZOO_FUZZED_REQUESTS", 400))
FUZZED = settings(
    max_examples=MANY, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True
)
FORESEEN = {200, 413, *HTTP_STATUS.values()} - {500}


def fuzz(port, kept):
    """Asks over HTTP, on one connection or on one each; every answer must be one that is foreseen."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    @FUZZED
    @given(st.sampled_from(["POST", "GET", "PUT", "OPTIONS", "DELETE"]), PATHS, BODIES, st.integers(), st.booleans())
    def asked(method, path, body, seed, packed):
        headers = {"Content-Encoding": "gzip"} if packed and seed % 5 == 0 else {}
        connection.request(method, path, broken(body, seed), headers)
        response = connection.getresponse()
        said = response.read()
        assert response.status in FORESEEN, (method, path, body, said)
        if said and response.getheader("content-type") == "application/json" and response.status != 200:
            assert set(json.loads(said)) == {"error"}
        if not kept:
            connection.close()

    with contextlib.closing(connection):
        asked()


TENSORS = st.builds(
    bytes_of,
    st.sampled_from([[1.0], [[1.0]], 1.0, ["a"], [[b"\xff"]], [True], np.zeros((0, 3), "float32"), [1j]]),
    st.integers(0, 26),
    st.lists(st.integers(-2, 2**40), max_size=2),
    st.binary(max_size=9),
) | st.sampled_from([tf.make_tensor_proto(v) for v in ([[1.0]], [1.0], ["1"], [[]], np.zeros((3, 1, 1), "float32"))])


SIGNATURES = st.sampled_from(["", "serving_default", "no", "classify_x_to_y", "regress_x_to_y", "regress_x2_to_y3",
                              "rank1", "int_scores", "wrong_batch", "mismatch", "__saved_model_init_op"])  # fmt: skip
USUAL = st.sampled_from([
    ("half_plus_two", ""), ("half_plus_two", "classify_x_to_y"), ("half_plus_two", "regress_x_to_y"),
    ("labels", ""), ("labels", "mismatch"), ("labels", "wrong_batch"),
]).map(lambda of: model_pb2.ModelSpec(name=of[0], signature_name=of[1]))  # fmt: skip
SPECS = USUAL | st.builds(
    lambda name, signature, version, label: model_pb2.ModelSpec(
        name=name, signature_name=signature, **({} if version is None else {"version": {"value": version}}),
        **({} if label is None else {"version_label": label}),
    ),
    st.sampled_from(["half_plus_two", "labels"]) | NAMES | st.just(""), SIGNATURES,
    st.none() | st.sampled_from([0, 1, -1, 2**63 - 1]), st.none() | st.sampled_from(["stable", "x"]),
)  # fmt: skip
FEATURES = st.one_of(
    st.lists(st.floats(width=32), max_size=4).map(lambda v: {"float_list": {"value": v}}),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2).map(lambda v: {"int64_list": {"value": v}}),
    st.lists(st.binary(max_size=4), max_size=2).map(lambda v: {"bytes_list": {"value": v}}),
    st.just({}),
)
EXAMPLES = st.dictionaries(KEYS, FEATURES, max_size=2).map(lambda v: example_pb2.Example(features={"feature": v}))
FEW = st.sampled_from([1, 3]).map(
    lambda n: example_pb2.Example(features={"feature": {"x": {"float_list": {"value": [0.5] * n}}}})
)
INPUTS = st.one_of(
    st.lists(FEW, min_size=1, max_size=3).map(lambda v: {"example_list": {"examples": v}}),
    st.lists(EXAMPLES, max_size=3).map(lambda v: {"example_list": {"examples": v}}),
    st.tuples(EXAMPLES, st.lists(EXAMPLES, max_size=2)).map(
        lambda v: {"example_list_with_context": {"context": v[0], "examples": v[1]}}
    ),
    st.just({}),
).map(lambda v: input_pb2.Input(**v))
METHODS = st.sampled_from(["", "x", "tensorflow/serving/classify", "tensorflow/serving/regress"])
TASKS = st.builds(lambda spec, method: inference_pb2.InferenceTask(model_spec=spec, method_name=method), SPECS, METHODS)
REQUESTS = st.one_of(
    st.builds(
        lambda spec, inputs, outputs: predict_pb2.PredictRequest(
            model_spec=spec, inputs=inputs, output_filter=outputs
        ),
        SPECS, st.dictionaries(KEYS, TENSORS, max_size=2), st.lists(KEYS, max_size=1),
    ),
    st.builds(lambda s, i: classification_pb2.ClassificationRequest(model_spec=s, input=i), SPECS, INPUTS),
    st.builds(lambda s, i: regression_pb2.RegressionRequest(model_spec=s, input=i), SPECS, INPUTS),
    st.builds(lambda t, i: inference_pb2.MultiInferenceRequest(tasks=t, input=i), st.lists(TASKS, max_size=3), INPUTS),
    st.builds(
        lambda s, f: get_model_metadata_pb2.GetModelMetadataRequest(model_spec=s, metadata_field=f),
        SPECS, st.lists(st.sampled_from(["signature_def", "x", ""]), max_size=2),
    ),
    SPECS.map(lambda s: get_model_status_pb2.GetModelStatusRequest(model_spec=s)),
)  # fmt: skip


def fuzz_by_grpc(port):
    """Asks what can be asked over gRPC; every answer must be one that is foreseen."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        methods = {
            "PredictRequest": prediction.Predict, "ClassificationRequest": prediction.Classify,
            "RegressionRequest": prediction.Regress, "MultiInferenceRequest": prediction.MultiInference,
            "GetModelMetadataRequest": prediction.GetModelMetadata,
            "GetModelStatusRequest": model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus,
        }  # fmt: skip

        @FUZZED
        @given(REQUESTS)
        def asked(request):
            answer = methods[type(request).__name__].future(request, timeout=20)
            assert answer.code().name not in ("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED"), (request, answer.details())

        asked()


@pytest.mark.parametrize("kept", [True, False], ids=["one connection", "a connection each"])
def test_whatever_is_asked_is_answered_as_foreseen(server, kept):
    fuzz(server.rest_port, kept)
    assert ask(server, PREDICT, b'{"instances": [1.0]}')[2] == b'{"predictions":[2.5]}'


def test_whatever_is_asked_over_grpc_is_answered_as_foreseen(server):
    fuzz_by_grpc(server.grpc_port)
    with stubs(server) as (prediction, _):
        assert prediction.Predict(predict(), timeout=20).outputs["y"].float_val == [2.5]


@pytest.mark.skipif(MANY < 10_000, reason="memory says little after few requests: ZOO_FUZZED_REQUESTS=10000")
@pytest.mark.slow
def test_memory_stays_flat_over_many_requests(server, tmp_path):
    folder = server.models.servable("labels").path.parents[1]
    command = [sys.executable, "-m", "zoo._cli", "serve", str(folder), "--rest-port", "0", "--grpc-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline() for _ in range(6)]
            rest, by_grpc = (int(re.search(r"127\.0\.0\.1:(\d+)", lines[at])[1]) for at in (0, -1))
            sizes = []
            for _ in range(3):
                fuzz(rest, kept=True)
                fuzz_by_grpc(by_grpc)
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                sizes.append(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024)
            print("megabytes after each round:", *map(round, sizes))
            assert sizes[-1] - sizes[0] < 20
        finally:
            process.terminate()
            assert process.wait(30) == 0


# Clients of any kind


def test_a_request_has_a_deadline(tmp_path):
    examples.slow(tmp_path / "slow" / "1")
    with running(tmp_path, timeout=0.2) as server:
        began = time.monotonic()
        status, _, said = ask(server, "/v1/models/slow:predict", SLOW)
        assert status == 504
        assert b"error" in said
        assert time.monotonic() - began < 5


def test_clients_that_hang_up_say_nothing_or_little_do_no_harm(server):
    idle = [socket.create_connection(("127.0.0.1", server.rest_port)) for _ in range(1000)]
    for connection in idle[:100]:
        connection.sendall(b"POST /v1/models/versioned:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
    for connection in idle[:50]:
        connection.close()
    slow = idle[60]
    for byte in b'"instances":[0.0]}':
        slow.sendall(bytes([byte]))
        assert ask(server, PREDICT, b'{"instances": [0.0]}')[0] == 200
    slow.sendall(b" ")
    assert slow.recv(1000).startswith(b"HTTP/1.1 200")
    for connection in idle[50:]:
        connection.close()


def test_versions_have_any_number_of_digits(server):
    for version, expected in (("9" * 19, 400), ("9" * 5000, 400), ("0" * 5000 + "1", 200), (str(2**63 - 1), 404)):
        status, _, said = ask(server, f"/v1/models/versioned/versions/{version}:predict", b'{"instances": [0.0]}')
        assert status == expected
        assert (said == b"") == (expected == 400)
    with pytest.raises(ServingError, match="Could not find version 5"):
        server.models.status("versioned", 5)
