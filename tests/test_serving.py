"""The embedded server: what it reads and writes, how it gathers requests, and how it changes versions."""

import base64
import contextlib
import gzip
import http.client
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkeras import export
from mmkeras.serving import Batching, Client, ModelConfig, Models, Server, ServingError, config, json_text, tensors
from mmkeras.serving.batching import Batcher
from mmkeras.serving.metrics import Metrics
from mmkeras.serving.warm_up import warm_up
from zoo._cli import main

sys.path.insert(0, str(pathlib.Path(__file__).parent / "serving"))
import models as examples  # the models of the conformance cases

# JSON

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_json_is_read_as_the_standard_library_reads_it(value, indent, ascii):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    expected = json.loads(text)
    assert json_text.loads(text.encode()) == expected
    slowly = json_text._Reader(text).read()
    assert slowly == expected
    assert json.dumps(slowly) == json.dumps(expected)  # 1 is not 1.0 and not true


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=30) | st.text('[]{}",:0123456789.eE-+ntruefalsINy\\ \n', max_size=30).map(str.encode))
def test_whatever_comes_is_read_or_refused(body):
    with contextlib.suppress(ServingError):
        json_text.loads(body)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1 2]", "Missing a comma or ']' after an array element. at offset: 3"),
        ('{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        ('{"a": 1 "b"', "Missing a comma or '}' after an object member. at offset: 8"),
        ("{1: 2}", "Missing a name for object member. at offset: 1"),
        ("[1.]", "Miss fraction part in number. at offset: 2"),
        ("[1e]", "Miss exponent in number. at offset: 2"),
        ('["a', "Missing a closing quotation mark in string. at offset: 1"),
        ('["\\x"]', "Invalid escape character in string. at offset: 1"),
        ('["\\u12g4"]', "Incorrect hex digit after \\u escape in string. at offset: 1"),
        ('["\\ud800"]', "The surrogate pair in string is invalid. at offset: 1"),
        ('["ä", 1e999]', "Number too big to be stored in double. at offset: 7"),
        ("[" * 65 + "]" * 65, "Nested more deeply than 64 levels. at offset: 64"),
        ("  ", "Invalid value. at offset: 2"),
    ],
)
def test_faults_are_told_with_their_offset(text, message):
    with pytest.raises(ServingError) as caught:
        json_text.loads(text.encode())
    assert caught.value.message == f"JSON Parse error: {message}"
    assert caught.value.http_status == 400


def test_more_than_json_is_read():
    assert json_text.loads(b'\xef\xbb\xbf {"a": [Inf, -Infinity], "a": 2} trailing') == {"a": [math.inf, -math.inf]}
    assert json_text.loads(b'[{"x":1,"x" :2}]') == [{"x": 1}]
    assert json_text.loads(b'["[[[", ' + b'"]",' * 80 + b"1]")[0] == "[[["
    assert math.isnan(json_text.loads(b"[NaN]")[0])
    with pytest.raises(ServingError, match="Invalid encoding"):
        json_text.loads(b'["\xff"]')


def test_what_is_not_finite_is_written_bare():
    value = {"outputs": {"a": np.array([1, np.inf], "float32"), "b": np.array([[2]]), "c": ["ä"]}}
    assert json_text.dumps(value).decode() == '{"outputs": {"a": [1.0, Infinity], "b": [[2]], "c": ["ä"]}}'
    assert json_text.dumps({"x": np.array([0.1, 5], "float32")}) == b'{"x":[0.1,5.0]}'


# Tensors

DTYPES = ["float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "uint64", "bool", "string"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 2, 2), (2, 0)])
def test_rows_and_columns_are_read_back(dtype, shape):
    random = np.random.default_rng(0)
    array = random.integers(0, 100, shape)
    array = (array / 3).astype(dtype) if dtype[0] == "f" else array % 2 > 0 if dtype == "bool" else array
    values = np.vectorize(str, otypes=[object])(array).tolist() if dtype == "string" else array.tolist()
    expected = np.vectorize(lambda v: str(v).encode(), otypes=[object])(array) if dtype == "string" else array
    by_rows, is_rows = tensors.read_predict({"instances": values}, {"x": dtype})
    by_columns, is_columns = tensors.read_predict({"inputs": {"x": values}}, {"x": dtype})
    assert (is_rows, is_columns) == (True, False)
    for found in (by_rows["x"], by_columns["x"]):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == (object if dtype == "string" else dtype)
    written = json.loads(json_text.dumps(tensors.write_predict({"x": expected}, True)))["predictions"]
    assert (np.array(written, dtype).tolist() if dtype == "float32" else written) == values


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([1.0, True], "float32", "JSON Value: true Type: True is not of expected type: float"),
        ([[1, 2], [3, 2**31]], "int32", "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ([1, 2.0], "int64", "JSON Value: 2.0 Type: Number is not of expected type: int64"),
        ([[1, 2], [3]], "float32", "Expecting shape [2] but got: [1]"),
        ([["a"], [1]], "string", "JSON Value: 1 Type: Number is not of expected type: string"),
        ([None], "float32", "JSON Value: null Type: Null is not of expected type: float"),
    ],
)
def test_a_value_of_another_type_is_named_whatever_stands_beside_it(values, dtype, message):
    with pytest.raises(ServingError) as caught:
        tensors.read_predict({"instances": values}, {"x": dtype})
    assert caught.value.message.endswith(message)


def test_errors_repeat_little_of_a_request():
    with pytest.raises(ServingError) as caught:
        tensors.read_predict({"instances": ["secret" * 1000]}, {"x": "float32"})
    assert len(caught.value.message) < 400


def test_text_that_is_none_is_not_written():
    with pytest.raises(ServingError, match="holds bytes that are no text"):
        tensors.write_predict({"y": np.array([b"\xff"], object)}, True)
    written = tensors.write_predict({"y_bytes": np.array([b"\xff"], object)}, True)
    assert written == {"predictions": [{"b64": base64.b64encode(b"\xff").decode()}]}


# Batches


class Doubling:
    """Stands for a Servable: twice its input; a negative number is an error. Notes how many rows it was given."""

    def __init__(self):
        self.sizes, self.lock = [], threading.Lock()

    def run(self, key, feeds, outputs=None, timeout_ms=None):
        with self.lock:
            self.sizes.append(len(feeds["x"]))
        if (feeds["x"] < 0).any():
            raise ServingError("INVALID_ARGUMENT", "negative")
        time.sleep(0.01)
        return {"y": 2 * feeds["x"]}


def at_once(function, arguments):
    """The answers, or errors, of a function called in as many threads."""
    answers = [None] * len(arguments)

    def call(i):
        try:
            answers[i] = function(arguments[i])
        except ServingError as error:
            answers[i] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(arguments))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_requests_go_together_and_get_their_own_answers():
    sizes = (4, 8, 16)
    batcher = Batcher(Batching(16, 30_000, num_batch_threads=1, allowed_batch_sizes=sizes))
    servable, random = Doubling(), np.random.default_rng(0)
    rows = [random.integers(0, 100, (n, 2)) for n in random.integers(1, 4, 40)]
    answers = at_once(lambda x: batcher(servable, "s", {"x": x})["y"], rows)
    for x, y in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(y, 2 * x)
    assert set(servable.sizes) <= set(sizes)
    assert len(servable.sizes) < 20
    batcher.close()


def test_a_request_fails_for_itself_alone():
    batcher, servable = Batcher(Batching(8, 30_000, num_batch_threads=1)), Doubling()
    rows = [np.array([[i]]) for i in (1, 2, -1, 3)]
    answers = at_once(lambda x: batcher(servable, "s", {"x": x})["y"], rows)
    assert [a.message if isinstance(a, ServingError) else a.item() for a in answers] == [2, 4, "negative", 6]
    batcher.close()


def test_rows_of_other_shapes_do_not_go_together():
    batcher, servable = Batcher(Batching(8, 20_000, num_batch_threads=2)), Doubling()
    rows = [np.ones((1, n)) for n in (1, 2, 1, 2)] + [np.float64(3)]
    answers = at_once(lambda x: batcher(servable, "s", {"x": np.asarray(x)})["y"] if np.ndim(x) else None, rows)
    assert [a.shape for a in answers[:4]] == [(1, 1), (1, 2), (1, 1), (1, 2)]
    batcher.close()


def test_who_waits_too_long_is_told():
    batcher = Batcher(Batching(8, num_batch_threads=0))
    with pytest.raises(ServingError) as caught:
        batcher(Doubling(), "s", {"x": np.ones((1, 1))}, timeout_ms=20)
    assert caught.value.code == "DEADLINE_EXCEEDED"


# Configuration


def test_configuration_files_are_read(tmp_path):
    (tmp_path / "models.config").write_text(
        'model_config_list { config { name: "a" base_path: "/m/a" model_platform: "tensorflow"\n'
        "  model_version_policy { specific { versions: 2 versions: 5 } }\n"
        '  version_labels { key: "stable" value: 2 } } config { name: "b" base_path: "/m/b" } }'
    )
    a, b = config.read_models(tmp_path / "models.config")
    assert a == ModelConfig("a", "/m/a", ("specific", (2, 5)), {"stable": 2})
    assert b == ModelConfig("b", "/m/b", ("latest", 1))
    (tmp_path / "batching.txt").write_text(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 500 } thread_pool_name { value: 'x' }\n"
        "allowed_batch_sizes: 8 allowed_batch_sizes: 32"
    )
    found = config.read_batching(tmp_path / "batching.txt")
    assert found == Batching(32, 500, allowed_batch_sizes=(8, 32))
    (tmp_path / "monitoring.config").write_text("prometheus_config { enable: true }")
    assert config.read_monitoring(tmp_path / "monitoring.config") == "/monitoring/prometheus/metrics"
    for text in ("max_batch_size: 3", "allowed_batch_sizes: 8 allowed_batch_sizes: 4"):
        (tmp_path / "batching.txt").write_text(text)
        with pytest.raises(ValueError, match="cannot be read|Expected allowed_batch_sizes to increase"):
            config.read_batching(tmp_path / "batching.txt")


def test_figures_are_counted_in_buckets():
    metrics = Metrics()
    for micros in (5.0, 15.0, 1e12):
        metrics.request('a"b', "predict", "OK", micros)
    lines = metrics.text().splitlines()
    assert ':tensorflow:serving:request_count{model_name="a\\"b",status="OK"} 3' in lines
    buckets = [line for line in lines if "request_latency_bucket" in line]
    assert [int(line.rpartition(" ")[2]) for line in (buckets[0], buckets[1], buckets[-2], buckets[-1])] == [1, 2, 2, 3]
    assert 'le="18"' in buckets[1]


# Versions


def versions(folder, *numbers):
    for number in numbers:
        examples.versioned(folder / "new", number)
        (folder / "new").rename(folder / str(number))


def answer(models, name="versioned", version=None):
    with models.using(name, version) as servable:
        return servable.run("serving_default", {"x": np.zeros(1, "float32")})["y"].item()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "versioned").mkdir()
    versions(tmp_path / "versioned", 1)
    return tmp_path / "versioned"


def test_a_new_version_takes_the_place_of_the_old_and_a_broken_one_does_not(folder):
    models = Models([ModelConfig("versioned", str(folder))], retries=0)
    assert answer(models) == 1
    versions(folder, 2)
    assert answer(models) == 1
    models.poll()
    assert answer(models) == 2
    assert [(n, one.state) for n, one in models.status("versioned")] == [(2, "AVAILABLE"), (1, "END")]
    shutil.copytree(folder / "2", folder / "3")
    for variables in (folder / "3" / "variables").iterdir():
        variables.write_bytes(variables.read_bytes()[:-20])
    (folder / "3" / "saved_model.pb").write_bytes(b"half of it")
    models.poll()
    assert answer(models) == 2
    (number, one), *_ = models.status("versioned")
    assert (number, one.state) == (3, "END")
    assert "Could not load" in one.error.message
    versions(folder, 4)
    models.poll()
    assert answer(models) == 4
    with pytest.raises(ServingError, match=r"Specific\(versioned, 2\)"):
        answer(models, version=2)


def test_a_version_in_use_is_freed_when_it_is_done(folder):
    models = Models([ModelConfig("versioned", str(folder))])
    with models.using("versioned") as old:
        versions(folder, 2)
        models.poll()
        assert old.run("serving_default", {"x": np.zeros(1, "float32")})["y"].item() == 1
    assert not old.hold()
    with pytest.raises(ServingError, match="closed"):
        old.run("serving_default", {"x": np.zeros(1, "float32")})


def test_a_reload_that_fails_changes_nothing(folder):
    kept = ModelConfig("versioned", str(folder))
    models = Models([kept])
    for other in (
        ModelConfig("absent", str(folder / "nothing")),
        ModelConfig("versioned", str(folder), labels={"stable": 7}),
    ):
        with pytest.raises(ServingError):
            models.configure([kept, other] if other.name != kept.name else [other])
        assert models.names == ["versioned"]
        assert answer(models) == 1
    models.configure([ModelConfig("versioned", str(folder), labels={"stable": 1})])
    assert models.servable("versioned", label="stable").version == 1
    models.configure([])
    with pytest.raises(ServingError, match=r"Latest\(versioned\)"):
        answer(models)


def test_versions_change_under_load_without_a_failed_request(folder):
    with running(folder.parent, poll_seconds=0.02) as server:
        failed, seen, stop = [], set(), threading.Event()

        def load():
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.rest_port)) as connection:
                while not stop.is_set():
                    connection.request("POST", "/v1/models/versioned:predict", b'{"instances": [0.0]}')
                    response = connection.getresponse()
                    body = response.read()
                    (seen.add if response.status == 200 else failed.append)(body)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(2, 7):
            versions(folder, number)
            wait_for(lambda number=number: server.models.servable("versioned").version == number)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(seen) > 3


# What an exported model brings along


def exported(folder, function=None, specs=None, **options):
    """A SavedModel `doubling` below a folder, twice its input."""
    specs = specs or {"x": tf.TensorSpec((None, 2), tf.float32, name="x")}
    signature = export.Signature(function or (lambda raw: {"y": 2 * raw["x"]}), specs, **options)
    return export.export(folder / "doubling", {"serving_default": signature}, sample=export.samples({}, {}))


def test_a_server_is_verified_by_what_the_model_answered_when_it_was_exported(tmp_path, capsys):
    exported(tmp_path)
    with running(tmp_path) as server:
        url = f"http://127.0.0.1:{server.rest_port}"
        assert main(["verify", url, "--servables", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert said.startswith("doubling, version 1, serving_default: largest difference ")
        assert float(said.split()[-1]) < 1e-6
        golden = tmp_path / "doubling" / "1" / "assets.extra" / "golden.json"
        kept = json.loads(golden.read_text())
        kept["signatures"]["serving_default"]["outputs"]["y"][1][0] += 0.5
        golden.write_text(json.dumps(kept))
        assert main(["verify", url, "--servables", str(tmp_path)]) == 1
        assert "largest difference 0.5" in capsys.readouterr().out
        golden.unlink()
        assert main(["verify", url, "--servables", str(tmp_path)]) == 2
        assert "export the model again" in capsys.readouterr().err
    assert main(["verify", url, "--servables", str(tmp_path)]) == 2


def test_warm_up_requests_are_run_and_a_broken_file_keeps_the_version_out(tmp_path):
    file = exported(tmp_path) / "assets.extra" / "tf_serving_warmup_requests"
    models = Models(config.models_in(tmp_path), retries=0, warm_up=warm_up)
    servable = models.servable("doubling")
    assert len(servable._callables) == 1  # it has been asked
    exported(tmp_path)
    second = tmp_path / "doubling" / "2" / "assets.extra" / file.name
    second.write_bytes(second.read_bytes()[:-3])
    models.poll()
    assert models.servable("doubling").version == 1
    (_, broken), *_ = models.status("doubling")
    assert "warm-up requests" in broken.error.message


@pytest.mark.parametrize(
    ("function", "specs", "message"),
    [
        (lambda raw: {"y": tf.cast(raw["x"], tf.half)}, None, "`y` of serving_default is float16"),
        (lambda raw: {"y": tf.numpy_function(np.abs, [raw["x"]], tf.float32)}, None, "a PyFunc, which only this proc"),
        (tf.function(lambda raw: {"y": raw["x"] + 1}, jit_compile=True), None, "has to be compiled by XLA"),
        (lambda raw: {"y": raw["x"]}, {"x": tf.TensorSpec((3,), tf.float32, name="x")}, "takes no open number of rows"),
        (lambda raw: {"y": raw["x"] + tf.random.uniform(())}, None, "answers otherwise than the model"),
        (lambda raw: {"y": tf.fill([tf.shape(raw["x"])[0]], b"\xff")}, None, "holds bytes: expected y_bytes"),
    ],
)
def test_what_a_server_would_not_run_is_not_exported(function, specs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        exported(tmp_path, function, specs)
    assert not list((tmp_path / "doubling").iterdir())


def test_files_for_the_original_server_are_written(tmp_path):
    exported(tmp_path)
    export.write_server_files(tmp_path)
    (one,) = config.read_models(tmp_path / "models.config")
    assert one == ModelConfig("doubling", "/models/doubling")
    batching = config.read_batching(tmp_path / "batching_parameters.txt")
    assert batching.allowed_batch_sizes == export.BATCH_SIZES
    assert config.read_monitoring(tmp_path / "monitoring.config") == "/monitoring/prometheus/metrics"
    for name in ("docker-compose.yml", "kubernetes.yml"):
        assert "--model_config_file=/models/models.config" in (tmp_path / name).read_text()


# The client


def test_the_client_takes_lists_arrays_and_files_by_either_way(tmp_path):
    examples.named(tmp_path / "named" / "1")
    examples.labels(tmp_path / "labels" / "1")
    (tmp_path / "picture").write_bytes(b"\x00 a picture")
    given = {"int_tensor": np.array([[1, 2]], "int32"), "str_tensor": [tmp_path / "picture", "ä"]}
    with running(tmp_path, grpc_port=0) as server:
        for url in (f"http://127.0.0.1:{server.rest_port}", f"grpc://127.0.0.1:{server.grpc_port}"):
            with Client(url) as client:
                answer = client.predict("named", int_tensor=given["int_tensor"], str_tensor=given["str_tensor"][1:],
                                        float_tensor=[0.5], dbl_tensor=np.array([0.25]))  # fmt: skip
                assert answer["int_tensor"].tolist() == [[1, 2]]
                assert answer["float_tensor"].tolist() == [0.5]
                assert [s if isinstance(s, str) else s.decode() for s in answer["str_tensor"]] == ["ä"]
                with pytest.raises(ServingError) as caught:
                    client.predict("nobody", x=[1.0])
                assert caught.value.code == "NOT_FOUND"
        with Client(f"http://127.0.0.1:{server.rest_port}") as client:
            echoed = client.predict("named", str_tensor=[tmp_path / "picture"], int_tensor=[1], float_tensor=[1.0],
                                    dbl_tensor=[1.0])  # fmt: skip
            assert echoed["str_tensor_bytes"].tolist() == [b"\x00 a picture"]
            found = client.classify("labels", [{"x": [0.5, 0.25, 0.125]}], "serving_default")
            assert found == [[("car", 0.5), ("bike", 0.25), ("bus", 0.125)]]
            assert client.status("named")[0]["state"] == "AVAILABLE"
    with pytest.raises(ValueError, match="Expected a URL such as"):
        Client("127.0.0.1:8501")


# Over HTTP


@contextlib.contextmanager
def running(folder, **options):
    server = Server(config.models_in(folder), 0, **{"grpc_port": None, "poll_seconds": None, **options})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def wait_for(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def ask(server, path, body=b"", method="POST", **headers):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.rest_port)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def test_bodies_may_be_packed_but_not_huge(folder):
    body = json.dumps({"instances": [0.0] * 100}).encode()
    with running(folder.parent, largest_body=5000) as server:
        path, packed = "/v1/models/versioned:predict", {"Content-Encoding": "gzip"}
        assert ask(server, path, gzip.compress(body), **packed)[0] == 200
        assert ask(server, path, b"no gzip", **packed)[0] == 400
        for given, headers in ((b" " * 6000, {}), (gzip.compress(b" " * 6000), packed)):
            status, _, said = ask(server, path, given, **headers)
            assert status == 413
            assert b"at most 5,000 bytes" in said


def test_a_token_and_other_origins_are_asked_for(folder):
    with running(folder.parent, token="open sesame", cors=True) as server:
        path = "/v1/models/versioned"
        assert ask(server, path, method="GET")[0] == 401
        assert ask(server, path, method="GET", Authorization="Bearer wrong")[0] == 401
        status, headers, _ = ask(server, path, method="GET", Authorization="Bearer open sesame")
        assert (status, headers["access-control-allow-origin"]) == (200, "*")
        assert ask(server, path, method="OPTIONS", Origin="https://example.org")[0] == 200


def test_a_request_has_a_deadline(tmp_path):
    examples.slow(tmp_path / "slow" / "1")
    with running(tmp_path, timeout=0.2) as server:
        began = time.monotonic()
        status, _, said = ask(server, "/v1/models/slow:predict", b'{"inputs": {"n": 2000000000}}')
        assert status == 504
        assert b"error" in said
        assert time.monotonic() - began < 5


def test_clients_that_hang_up_or_say_nothing_do_no_harm(folder):
    import socket

    with running(folder.parent) as server:
        idle = [socket.create_connection(("127.0.0.1", server.rest_port)) for _ in range(200)]
        for connection in idle[:100]:
            connection.sendall(b"POST /v1/models/versioned:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        for connection in idle[:50]:
            connection.close()
        assert ask(server, "/v1/models/versioned:predict", b'{"instances": [0.0]}')[0] == 200
        for connection in idle[50:]:
            connection.close()


def test_the_page_lists_models_and_counts_requests(folder):
    (folder.parent / "broken" / "1").mkdir(parents=True)
    with running(folder.parent, retries=0) as server:
        status, headers, body = ask(server, "/", method="GET")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"http" not in body.replace(b"http-equiv", b"")  # nothing from elsewhere
        found = json.loads(ask(server, "/zoo/models", method="GET")[2])
        assert found["versioned"]["versions"] == [{"version": 1, "state": "AVAILABLE", "error": None}]
        assert found["versioned"]["signatures"]["serving_default"] == {"inputs": {"x": "float32"}, "outputs": ["y"]}
        assert found["broken"]["versions"][0]["state"] == "END"
        assert found["broken"]["signatures"] == {}
        assert ask(server, "/v1/models/versioned:predict", b'{"instances": [0.0]}')[0] == 200
        assert ask(server, "/v1/models/nobody:predict", b'{"instances": [0.0]}')[0] == 404
        counted = json.loads(ask(server, "/zoo/requests", method="GET")[2])
        assert {"model": "versioned", "status": "OK", "requests": 1} in counted
        assert {"model": "", "status": "NOT_FOUND", "requests": 1} in counted


def test_a_port_that_is_taken_is_told(folder):
    with running(folder.parent) as server, pytest.raises(ValueError, match="Take another --rest-port"):
        Server([], server.rest_port, None)


def test_the_command_serves_until_it_is_asked_to_stop(folder):
    command = [sys.executable, "-m", "zoo._cli", "serve", str(folder.parent), "--rest-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        line = process.stdout.readline()
        url = line.rpartition(": ")[2]
        port = int(url.split(":")[-1].split("/")[0])
        assert line.startswith("versioned, version 1: http://127.0.0.1:")
        process.stdout.readline()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("POST", "/v1/models/versioned:predict", b'{"instances": [0.0]}')
            assert json.loads(connection.getresponse().read()) == {"predictions": [1.0]}
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        assert said[1] == ""
    finally:
        process.kill()
        process.communicate()
