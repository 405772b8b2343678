"""TensorFlow Serving's published tests, as requests and expected answers, against any server.

By default against a server of our own in this process. `ZOO_CONFORMANCE_URL=http://host:8501` (and
`ZOO_CONFORMANCE_GRPC=host:8500`) asks another one, such as the real one, which serves what
`python tests/serving/models.py FOLDER` writes; cases that need a configuration of their own are left out then.
"""

import base64
import contextlib
import dataclasses
import http.client
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
import urllib.parse

import grpc
import models
import pytest
from google.protobuf import json_format
from running import wait_for
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from mmkeras.serving import Batching, ModelConfig, Server, read_models

HERE = pathlib.Path(__file__).parent / "serving"

CASES = {case["id"]: case for case in json.loads((HERE / "conformance.json").read_text())["cases"]}
# The original crashes on deep nesting where it is a value; we refuse it everywhere, which the case allows.
DEVIATIONS = {"err.deep_nesting_unused_key": 400}
OWN_SETUP = {
    "batch.too_large", "batch.queue_full", "metrics.disabled", "status.unloaded_version_stays_END",
    "metrics.default_path", "metrics.request_count", *(id for id in CASES if id.startswith("reload.")),
}  # fmt: skip
REST = [id for id, case in CASES.items() if case["request"]["transport"] == "rest"]
GRPC = [id for id, case in CASES.items() if case["request"]["transport"] == "grpc"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models.build(folder)
    return folder


def configs(folder, **changes):
    file = folder.parent / f"{folder.name}.config"
    file.write_text(models.config(folder))
    return [dataclasses.replace(one, **changes.get(one.name, {})) for one in read_models(file)]


def test_the_configuration_is_what_the_cases_want(folder):
    found = {one.name: one for one in configs(folder)}
    assert list(found) == sorted(path.name for path in folder.iterdir())
    assert found["half_plus_two"] == ModelConfig(
        "half_plus_two", str(folder / "half_plus_two"), ("specific", (123, 124)), {"stable": 123, "canary": 124}
    )
    assert found["versioned"].policy == ("specific", (1, 2, 3))
    assert found["bad"] == ModelConfig("bad", str(folder / "bad"))


@contextlib.contextmanager
def serving(folder, **options):
    server = Server(configs(folder), 0, 0, poll_seconds=None, retries=0, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(folder):
    if os.environ.get("ZOO_CONFORMANCE_URL"):
        yield None
        return
    with serving(folder, metrics_path="/monitoring/prometheus/metrics", reload=True) as server:
        yield server


def addresses(server):
    """(host:port of REST, host:port of gRPC)."""
    if server is None:
        url = urllib.parse.urlsplit(os.environ["ZOO_CONFORMANCE_URL"])
        return url.netloc, os.environ.get("ZOO_CONFORMANCE_GRPC", f"{url.hostname}:8500")
    return f"127.0.0.1:{server.rest_port}", f"127.0.0.1:{server.grpc_port}"


def expanded(text):
    return re.sub(r'<(\d+) x "(.*?)">', lambda found: found[2] * int(found[1]), text)


def ask(server, request):
    """(status, headers, body) of a REST request."""
    body = request.get("body_raw", "")
    if "body_json" in request:
        body = json.dumps(request["body_json"])
    elif "body_template" in request:
        body = expanded(request["body_template"])
    with contextlib.closing(http.client.HTTPConnection(addresses(server)[0], timeout=60)) as connection:
        connection.request(request["method"], request["path"], body.encode(), request.get("headers", {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def same(expected, found):
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return False
        found = {name: value for name, value in found.items() if name != "defaults"}
        return expected.keys() == found.keys() and all(same(expected[name], found[name]) for name in expected)
    if isinstance(expected, list):
        return isinstance(found, list) and len(expected) == len(found) and all(map(same, expected, found))
    if isinstance(expected, float) or isinstance(found, float):
        return math.isclose(expected, found, rel_tol=1e-6)
    return type(expected) is type(found) and expected == found


def holds(expected, found):
    """Whether an answer has all that is expected, and maybe more."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(n in found and holds(v, found[n]) for n, v in expected.items())
    if isinstance(expected, list):
        return isinstance(found, list) and len(expected) == len(found) and all(map(holds, expected, found))
    return same(expected, found)


@pytest.mark.parametrize(
    ("expected", "found", "equal", "held"),
    [
        ({"a": [1, 2.5]}, {"a": [1, 2.5]}, True, True),
        ({"a": [1, 2.5]}, {"a": [1, 2.5000001], "defaults": {}}, True, True),
        ({"a": [1, 2.5]}, {"a": [1, 2.50001]}, False, False),
        ({"a": 1}, {"a": 1, "b": 2}, False, True),
        ({"a": 1, "b": 2}, {"a": 1}, False, False),
        ({"a": 1}, {"a": True}, False, False),
        ({"a": "1"}, {"a": 1}, False, False),
        ([1, 2], [2, 1], False, False),
        ([1], [1, 2], False, False),
        ([], None, False, False),
    ],
)
def test_answers_are_told_apart(expected, found, equal, held):
    assert same(expected, found) == equal
    assert holds(expected, found) == held


def test_a_wrong_answer_fails_its_case(monkeypatch):
    ids = [id for id in REST if set(CASES[id]["expect"]) == {"http_status", "json"}]
    assert len(ids) > 10
    for id in ids:
        right, body = CASES[id]["expect"]["http_status"], json.dumps(CASES[id]["expect"]["json"]).encode()
        for status, said, passes in ((right, body, True), (right + 1, body, False), (right, b"{}", False)):
            monkeypatch.setattr(sys.modules[__name__], "ask", lambda *_, a=(status, {}, said): a)
            with contextlib.nullcontext() if passes else pytest.raises(AssertionError):
                check(None, id)


def check(server, id):
    case = CASES[id]
    status, headers, body = ask(server, case["request"])
    expect = case["expect"]
    # Ours does otherwise; a server that is asked by its address may be ours or another.
    if id in DEVIATIONS and (server is not None or status != expect["http_status"]):
        assert status == DEVIATIONS[id]
        return
    assert status == expect["http_status"], body[:500]
    for name, value in expect.get("headers", {}).items():
        assert headers[name].split(";")[0] == value
    assert headers.get("content-type", "").startswith(expect.get("content_type_prefix", ""))
    text = body.decode()
    for part in expect.get("body_contains", ()):
        assert part in text
    if "body" in expect:
        assert text == expect["body"]
    if "body_json_tokens" in expect:
        ((key, tokens),) = expect["body_json_tokens"].items()
        assert re.sub(r"\s", "", text) == f'{{"{key}":[{",".join(tokens)}]}}'
    if "json" in expect:
        assert same(expect["json"], json.loads(text)), text[:500]
    if "json_subset" in expect:
        assert holds(expect["json_subset"], json.loads(text)), text[:500]
    if "status_error_code_not" in expect:
        error_code = json.loads(text)["model_version_status"][0]["status"]["error_code"]
        assert error_code != expect["status_error_code_not"]
    if "error_equals" in expect:
        assert json.loads(text)["error"] == expect["error_equals"]
    for part in expect.get("error_contains", ()):
        assert part in json.loads(text)["error"]


@pytest.mark.parametrize("id", [id for id in REST if id not in OWN_SETUP])
def test_rest(server, id):
    check(server, id)


def own_setup(id):
    reason = "the other server's configuration is not ours to change"
    return pytest.param(id, marks=pytest.mark.skipif("ZOO_CONFORMANCE_URL" in os.environ, reason=reason))


@pytest.mark.parametrize("id", [own_setup("metrics.default_path"), own_setup("metrics.request_count")])
def test_metrics(server, id):
    check(server, "predict.row.2d")
    check(server, id)


@pytest.mark.parametrize("id", [own_setup("metrics.disabled")])
def test_without_metrics(folder, id):
    with serving(folder) as server:
        check(server, id)


@pytest.mark.parametrize("id", [own_setup("batch.too_large"), own_setup("batch.queue_full")])
def test_batching(folder, id):
    batching = Batching(max_batch_size=64)
    if id == "batch.queue_full":  # no thread takes what is queued, and one request fills the queue
        batching = Batching(max_batch_size=1, max_enqueued_batches=1, num_batch_threads=0)
    with serving(folder, batching=batching, timeout=1.0) as server:
        if id == "batch.queue_full":
            one = {"method": "POST", "path": "/v1/models/half_plus_two:predict", "body_json": {"instances": [1.0]}}
            first = threading.Thread(target=ask, args=(server, one), daemon=True)
            first.start()
            wait_for(lambda: server.batcher._queues)
        check(server, id)


@pytest.mark.parametrize("id", [own_setup("status.unloaded_version_stays_END")])
def test_unloaded(folder, id):
    with serving(folder) as server:
        server.models.configure(configs(folder, versioned={"policy": ("specific", (2, 3))}))
        check(server, id)


# gRPC


def tensor(spec):
    message = json_format.ParseDict({"dtype": spec["dtype"]}, tensor_pb2.TensorProto())
    for size in spec["shape"]:
        message.tensor_shape.dim.add(size=size)
    for field, values in spec.items():
        if field == "tensor_content_base64":
            message.tensor_content = base64.b64decode(values)
        elif field.endswith("_val"):
            getattr(message, field).extend([v.encode() if isinstance(v, str) else v for v in values])
    return message


def fill_spec(spec, given):
    for field in ("signature_name", "version_label"):
        setattr(spec, field, given.get(field, ""))
    spec.name = expanded(given.get("name", ""))
    if "version" in given:
        spec.version.value = given["version"]


def fill_examples(target, given):
    target.example_list.SetInParent()
    for features in given:
        example = target.example_list.examples.add()
        for name, lists in features.items():
            for kind, values in lists.items():
                getattr(example.features.feature[name], kind).value.extend(values)


def message_of(case, folder):
    given, rpc = case["request"]["request"], case["request"]["rpc"]
    kinds = {
        "Predict": predict_pb2.PredictRequest, "Classify": classification_pb2.ClassificationRequest,
        "Regress": regression_pb2.RegressionRequest, "MultiInference": inference_pb2.MultiInferenceRequest,
        "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
        "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
        "HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
    }  # fmt: skip
    message = kinds[rpc]()
    if "model_spec" in given:
        message.model_spec.SetInParent()
        fill_spec(message.model_spec, given["model_spec"])
    for name, spec in given.get("inputs", {}).items():
        message.inputs[name].CopyFrom(tensor(spec))
    for field in ("output_filter", "metadata_field"):
        if field in given:
            getattr(message, field).extend(given[field])
    if "examples" in given:
        fill_examples(message.input, given["examples"])
    for task in given.get("tasks", ()):
        one = message.tasks.add(method_name=task["method_name"])
        fill_spec(one.model_spec, {"name": task["model"], "signature_name": task["signature"]})
    for one in given.get("config", {}).get("model_config_list", ()):
        add_config(message.config, one, folder)
    return message


def add_config(config, one, folder):
    path = one["base_path"].replace("<abs>", str(folder))
    added = config.model_config_list.config.add(name=one["name"], base_path=path, model_platform=one["model_platform"])
    if "versions" in one:
        added.model_version_policy.specific.versions.extend(one["versions"])
    for label, version in one.get("version_labels", {}).items():
        added.version_labels[label] = version


def call(server, case, folder):
    """(code, message, answer) of a gRPC request."""
    services = {
        "tensorflow.serving.PredictionService": prediction_service_pb2_grpc.PredictionServiceStub,
        "tensorflow.serving.ModelService": model_service_pb2_grpc.ModelServiceStub,
    }
    request = case["request"]
    deadline = request["request"].get("deadline_ms")
    with grpc.insecure_channel(addresses(server)[1]) as channel:
        method = getattr(services[request["service"]](channel), request["rpc"])
        try:
            return "OK", "", method(message_of(case, folder), timeout=deadline / 1000 if deadline else 60)
        except grpc.RpcError as error:
            return error.code().name, error.details(), None


def plain(case, answer):
    """An answer in the form in which the cases say what they expect."""
    found = json_format.MessageToDict(answer, preserving_proto_field_name=True)
    if hasattr(answer, "outputs"):
        found["outputs"] = {}
        for name, value in answer.outputs.items():
            fields = {field.name: list(v) for field, v in value.ListFields() if field.name.endswith("_val")}
            fields = {n: [v.decode() if isinstance(v, bytes) else v for v in values] for n, values in fields.items()}
            shape = [dim.size for dim in value.tensor_shape.dim]
            dtype = json_format.MessageToDict(value)["dtype"]
            found["outputs"][name] = {"dtype": dtype, "shape": shape, **fields}
    if hasattr(answer, "model_spec"):
        found["model_spec"] = {"name": answer.model_spec.name, "version": answer.model_spec.version.value}
    if case["request"]["rpc"] == "Regress":
        found = values_of(answer.result)
    if case["request"]["rpc"] == "MultiInference":
        found = {"results": [values_of(getattr(r, r.WhichOneof("result"))) for r in answer.results]}
    if case["request"]["rpc"] == "GetModelMetadata":
        found["metadata_keys"] = list(answer.metadata)
        found["any_type"] = answer.metadata["signature_def"].type_url.rpartition("/")[2]
    if case["request"]["rpc"] == "GetModelStatus":
        states = get_model_status_pb2.ModelVersionStatus.State
        found["model_version_status"] = [
            {"version": one.version, "state": states.Name(one.state), "error_code": one.status.error_code}
            for one in answer.model_version_status
        ]
    if case["request"]["rpc"] == "HandleReloadConfigRequest":
        found["status"] = {"error_code": answer.status.error_code}
    return found


def values_of(result):
    if hasattr(result, "regressions"):
        return {"regressions": [one.value for one in result.regressions]}
    rows = [[{"label": c.label, "score": c.score} for c in row.classes] for row in result.classifications]
    return {"classifications": rows}


def check_grpc(server, id, folder):
    case = CASES[id]
    code, message, answer = call(server, case, folder)
    expect = case["expect"]
    assert code == expect["grpc_code"], message
    for part in expect.get("message_contains", ()):
        assert part in message
    assert len(message) <= expect.get("message_max_len", 10**9)
    if "response" in expect:
        found = plain(case, answer)
        assert holds(expect["response"], found), found
    if "outputs_exact_keys" in expect:
        assert sorted(answer.outputs) == sorted(expect["outputs_exact_keys"])


@pytest.mark.parametrize("id", [id for id in GRPC if id not in OWN_SETUP])
def test_grpc(server, folder, id):
    check_grpc_anew(server, folder, id)


def check_grpc_anew(server, folder, id):
    """As `check_grpc`; what counts begins at nothing."""
    if id == "grpc.predict.no_inputs_signature":
        reset = {"request": {**CASES[id]["request"], "request": {"model_spec": {
            "name": "counter", "signature_name": "reset_counter"}}}}  # fmt: skip
        assert call(server, reset, folder)[0] == "OK"
    check_grpc(server, id, folder)


@pytest.mark.parametrize("id", [own_setup(id) for id in GRPC if id.startswith("reload.")])
def test_reload(server, folder, id):
    check_grpc(server, id, folder)
    if id == "reload.move_label":
        assert server.models.servable("half_plus_two", label="stable").version == 124
    else:
        assert server.models.names == sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif("ZOO_CONFORMANCE_URL" in os.environ, reason="another server is asked")
def test_the_command_passes_by_its_address(folder, monkeypatch):
    configs(folder)
    command = [sys.executable, "-m", "zoo._cli", "serve", "--config", str(folder) + ".config", "--load-retries", "0",
               "--rest-port", "0", "--grpc-port", "0"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = [process.stdout.readline()]
            while not said[-1].startswith("gRPC: "):
                said.append(process.stdout.readline())
            rest, by_grpc = (re.search(r"127\.0\.0\.1:\d+", said[at])[0] for at in (0, -1))
            monkeypatch.setenv("ZOO_CONFORMANCE_URL", f"http://{rest}")
            monkeypatch.setenv("ZOO_CONFORMANCE_GRPC", by_grpc)
            for id in set(REST) - OWN_SETUP:
                check(None, id)
            for id in set(GRPC) - OWN_SETUP:
                check_grpc_anew(None, folder, id)
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert process.returncode == 0


def test_every_case_is_asked():
    assert len(CASES) == 146
    assert len(REST) + len(GRPC) == 146
