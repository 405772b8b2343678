"""The embedded server: how it gathers requests, changes versions, and answers over HTTP."""

import contextlib
import gzip
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import grpc
import models as examples
import numpy as np
import pytest
from running import answer, ask, running, versions, wait_for
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from mmkeras.serving import Batching, Client, ModelConfig, Models, Server, ServingError
from mmkeras.serving.batching import Batcher
from mmkeras.serving.models import Version
from zoo._cli import main

# Batches


class Doubling:
    """Stands for a Servable: twice its input; a negative number is an error. Notes how many rows it was given."""

    may_batch = True

    def __init__(self):
        self.sizes, self.timeouts, self.lock = [], [], threading.Lock()

    def run(self, key, feeds, outputs=None, timeout_ms=None):
        with self.lock:
            self.sizes.append(len(feeds["x"]))
            self.timeouts.append(timeout_ms)
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


def test_a_request_larger_than_a_batch_runs_in_several():
    sizes = (4, 8)
    batcher = Batcher(Batching(20, 30_000, 4, 1, sizes, max_execution_batch_size=8))
    servable, random = Doubling(), np.random.default_rng(0)
    rows = [random.integers(0, 100, (n, 2)) for n in (19, 3, 20, 1)]
    for x, y in zip(rows, at_once(lambda x: batcher(servable, "s", {"x": x})["y"], rows), strict=True):
        np.testing.assert_array_equal(y, 2 * x)
    assert set(servable.sizes) == {4, 8}
    with pytest.raises(ServingError, match="Task size 21 is larger than maximum input batch size 20"):
        batcher(servable, "s", {"x": np.ones((21, 2))})
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


def test_a_batch_runs_as_long_as_the_most_patient_of_its_requests_waits():
    batcher, servable = Batcher(Batching(2, 10**7, num_batch_threads=1)), Doubling()
    for patience, longest in (((500.0, 2000.0), 2000.0), ((500.0, None), None)):
        at_once(lambda ms: batcher(servable, "s", {"x": np.ones((1, 1))}, timeout_ms=ms), patience)
        assert servable.timeouts[-1] == longest
    batcher.close()


def test_who_waits_too_long_is_told():
    batcher = Batcher(Batching(8, num_batch_threads=0))
    with pytest.raises(ServingError) as caught:
        batcher(Doubling(), "s", {"x": np.ones((1, 1))}, timeout_ms=20)
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_classify_and_regress_go_in_batches_as_predict_does(tmp_path):
    examples.half_plus_two(tmp_path / "half_plus_two" / "1")
    body = {"predict": {"instances": [[1.0]] * 5}, "classify": {"examples": [{"x": 1.0}] * 5}}
    body["regress"] = body["classify"]
    signatures = {"predict": "serving_default", "classify": "classify_x_to_y", "regress": "regress_x_to_y"}
    with running(tmp_path, grpc_port=0, batching=Batching(4)) as server:
        for verb, signature in signatures.items():
            given = json.dumps({**body[verb], "signature_name": signature})
            status, _, said = ask(server, f"/v1/models/half_plus_two:{verb}", given)
            assert (status, json.loads(said)) == (
                400, {"error": "Task size 5 is larger than maximum input batch size 4"}
            )  # fmt: skip
            few = {name: rows[:4] for name, rows in body[verb].items()}
            given = json.dumps({**few, "signature_name": signature})
            assert ask(server, f"/v1/models/half_plus_two:{verb}", given)[0] == 200


def test_a_batch_of_64_gathers_from_requests_of_one_row(tmp_path, monkeypatch):
    examples.versioned(tmp_path / "versioned" / "1", 1)
    with running(tmp_path, batching=Batching(64, batch_timeout_micros=20_000_000)) as server:
        servable, sizes = server.models.servable("versioned"), []
        run = servable.run
        monkeypatch.setattr(servable, "run", lambda *given: sizes.append(len(given[1]["x"])) or run(*given))
        answers = at_once(lambda _: ask(server, "/v1/models/versioned:predict", b'{"instances": [0.0]}')[0], [0] * 64)
        assert answers == [200] * 64
        assert sizes == [64]


# Versions


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


def cut(size):
    return lambda file: file.write_bytes(file.read_bytes()[:size])


DAMAGE = {
    "no saved_model.pb": ("saved_model.pb", pathlib.Path.unlink, "SavedModel file does not exist at"),
    "half a saved_model.pb": ("saved_model.pb", cut(500), "Cannot parse file"),
    "an empty saved_model.pb": ("saved_model.pb", cut(0), "MetaGraphDef associated with tags 'serve' could not be fou"),
    "half the values": ("variables/variables.data-00000-of-00001", cut(5), "Read less bytes than requested"),
    "no values": ("variables/variables.data-00000-of-00001", pathlib.Path.unlink, "No such file or directory"),
    "half an index": ("variables/variables.index", cut(50), "not an sstable"),
    "no variables": ("variables", shutil.rmtree, "is not a valid checkpoint"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_version_leaves_the_old_one_and_says_once_what_is_wrong(damage, tmp_path, caplog):
    folder = tmp_path / "half_plus_two"
    examples.half_plus_two(folder / "1")
    models = Models([ModelConfig("half_plus_two", str(folder))], retries=1, retry_seconds=0.0)
    name, harm, message = DAMAGE[damage]
    shutil.copytree(folder / "1", tmp_path / "new")
    harm(tmp_path / "new" / name)
    (tmp_path / "new").rename(folder / "2")
    for state in ("LOADING", "END", "END"):
        models.poll()
        (number, broken), (_, old) = models.status("half_plus_two")
        assert (number, broken.state, old.state) == (2, state, "AVAILABLE")
    assert broken.error.message.startswith(f"Could not load {folder / '2'}: ")
    assert message in broken.error.message
    assert "\n" not in broken.error.message
    assert caplog.messages == [f"half_plus_two, version 2: {broken.error.message}"]
    with models.using("half_plus_two") as servable:
        assert servable.run("serving_default", {"x": np.ones((1, 1), "float32")})["y"].item() == 2.5


def test_a_broken_version_ends_with_its_folder_and_may_come_again(folder):
    models = Models([ModelConfig("versioned", str(folder))], retries=5, retry_seconds=60.0)
    (folder / "2").mkdir()
    models.poll()
    assert [one.state for _, one in models.status("versioned")] == ["LOADING", "AVAILABLE"]
    (folder / "2").rmdir()
    models.poll()
    assert [one.state for _, one in models.status("versioned")] == ["END", "AVAILABLE"]
    versions(folder, 2)
    models.poll()
    assert answer(models) == 2


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
    examples.versioned(folder.parent / "new" / "1", 1)
    new = ModelConfig("new", str(folder.parent / "new"))  # could be loaded, and is not
    for other in (
        ModelConfig("absent", str(folder / "nothing")),
        ModelConfig("versioned", str(folder), labels={"stable": 7}),
    ):
        with pytest.raises(ServingError, match=r"1 servable\(s\)|assign label stable to version 7"):
            models.configure([new, other] if other.name == kept.name else [kept, new, other])
        assert models.names == ["versioned"]
        assert not models.knows("new")
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
        for number in range(2, 52):
            versions(folder, number)
            wait_for(lambda number=number: f'{{"predictions":[{number}.0]}}'.encode() in seen)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(seen) == 51


# Over HTTP


def status_request(name="versioned"):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    return request


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


def test_a_token_is_asked_for_over_grpc(folder):
    with (
        running(folder.parent, token="open sesame", grpc_port=0) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        service, request = model_service_pb2_grpc.ModelServiceStub(channel), status_request()
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        for said in ((), (("authorization", "Bearer wrong"),), (("authorization", "open sesame"),)):
            for method, given in ((service.GetModelStatus, request), (predict, predict_pb2.PredictRequest())):
                with pytest.raises(grpc.RpcError) as caught:
                    method(given, timeout=20, metadata=said)
                assert caught.value.code().name == "UNAUTHENTICATED"
        said = (("authorization", "Bearer open sesame"),)
        assert len(service.GetModelStatus(request, timeout=20, metadata=said).model_version_status) == 1


def test_the_page_asks_for_the_token_and_shows_nothing_without_it(folder):
    with running(folder.parent, token="open sesame") as server:
        status, _, page = ask(server, "/", method="GET")
        assert status == 200
        assert b'id="token"' in page
        assert b"versioned" not in page
        assert b"sesame" not in page
        for path in ("/zoo/models", "/zoo/requests", "/v1/models/versioned", "/?", "/x"):
            assert ask(server, path, method="GET")[0] == (401 if path != "/?" else 200)
        assert ask(server, "/", b"")[0] == 404
        allowed = {"Authorization": "Bearer open sesame"}
        assert b"versioned" in ask(server, "/zoo/models", method="GET", **allowed)[2]
        assert ask(server, "/zoo/requests", method="GET", **allowed)[0] == 200
        body = b'{"signature_name": "serving_default", "inputs": {"x": [0.0]}}'
        assert ask(server, "/v1/models/versioned:predict", body, **allowed)[0] == 200


@pytest.mark.parametrize("token", ["", " \n", "ä", "two\nlines"])
def test_a_file_that_holds_no_token_is_refused(token, folder, capsys):
    (folder.parent / "token").write_text(token)
    assert main(["serve", str(folder.parent), "--token-file", str(folder.parent / "token")]) == 2
    assert "Expected a token of printable ASCII characters" in capsys.readouterr().err


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


@pytest.mark.parametrize("batching", [None, Batching(64)], ids=["alone", "in batches"])
def test_the_times_of_tensorflow_are_counted(batching, tmp_path):
    examples.half_plus_two(tmp_path / "half_plus_two" / "1")
    with running(tmp_path, grpc_port=0, batching=batching, metrics_path="/metrics") as server:
        for verb, body in (
            ("predict", {"instances": [[1.0]]}),
            ("classify", {"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}]}),
            ("regress", {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}]}),
        ):
            for _ in range(20):  # by a thread, and by the event loop
                assert ask(server, f"/v1/models/half_plus_two:{verb}", json.dumps(body))[0] == 200
        with Client(f"grpc://127.0.0.1:{server.grpc_port}") as client:
            client.predict("half_plus_two", x=[[1.0]])
            client.classify("half_plus_two", [{"x": 1.0}], "classify_x_to_y")
            client.regress("half_plus_two", [{"x": 1.0}], "regress_x_to_y")
        lines = ask(server, "/metrics", method="GET")[2].decode().splitlines()
        figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        for entrypoint, count in {"predict": 20, "classify": 20, "regress": 20, "Predict": 1, "Classify": 1}.items():
            labels = f'{{model_name="half_plus_two",API="{entrypoint}"}}'
            assert int(figures[f":tensorflow:serving:runtime_latency_count{labels}"]) == count
            run, whole = (
                float(figures[f":tensorflow:serving:{n}_latency_sum{labels}"]) for n in ("runtime", "request")
            )
            assert 0 < run < whole


def test_both_ports_speak_tls(folder):
    pem = str(pathlib.Path(__file__).parent / "serving" / "localhost.pem")  # a certificate for this test alone, its key
    trusted = ssl.create_default_context(cafile=pem)
    with running(folder.parent, grpc_port=0, certificate=pem, key=pem) as server:
        with contextlib.closing(
            http.client.HTTPSConnection("127.0.0.1", server.rest_port, context=trusted)
        ) as connection:
            connection.request("POST", "/v1/models/versioned:predict", b'{"instances": [0.0]}')
            assert connection.getresponse().read() == b'{"predictions":[1.0]}'
        with pytest.raises(OSError, match="closed|reset"):
            ask(server, "/v1/models/versioned", method="GET")
        credentials = grpc.ssl_channel_credentials(pathlib.Path(pem).read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{server.grpc_port}", credentials) as channel:
            answer = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status_request(), timeout=20)
            assert [one.version for one in answer.model_version_status] == [1]
    with pytest.raises(ValueError, match="Cannot read the certificate"):
        Server([], 0, 0, certificate="nowhere.pem", key=pem)


def test_answers_on_a_kept_connection_are_not_held_back(folder):
    with (
        running(folder.parent) as server,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.rest_port)) as connection,
    ):
        times = []
        for _ in range(20):
            began = time.monotonic()
            connection.request("POST", "/v1/models/versioned:predict", b'{"instances": [0.0]}')
            connection.getresponse().read()
            times.append(time.monotonic() - began)
        assert min(times[5:]) < 0.03  # a socket that gathers packets waits 40 ms


def test_a_port_that_is_taken_is_told(folder):
    with running(folder.parent, grpc_port=0) as server:
        with pytest.raises(ValueError, match="Take another --rest-port"):
            Server([], server.rest_port, None)
        with pytest.raises(ValueError, match="Take another --grpc-port"):
            Server([], None, server.grpc_port)


def test_a_version_may_arrive_while_another_is_asked_for():
    class Asked:
        @property
        def servable(self):
            versions[len(versions) + 1] = Version()
            return self

    models, versions = Models([]), {}
    versions[1], models._versions["m"] = Asked(), versions
    assert models.servable("m") is versions[1]


def serve(*arguments):
    """What `zoo serve` prints until it listens, and the process."""
    command = [sys.executable, "-m", "zoo._cli", "serve", *map(str, arguments), "--rest-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    while not lines or not lines[-1].startswith("gRPC: "):
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate()
    return lines, process


def test_a_request_in_flight_is_answered_at_sigterm_and_one_that_has_not_come_is_not_waited_for(tmp_path):
    examples.slow(tmp_path / "slow" / "1")
    lines, process = serve(tmp_path)
    port, found = int(lines[0].split(":")[-1].split("/")[0]), []
    with (
        contextlib.closing(socket.create_connection(("127.0.0.1", port))) as upload,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection,
        Client(f"grpc://{lines[-1].split()[1][:-1]}") as client,
    ):
        upload.sendall(b"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        asking = threading.Thread(target=lambda: found.append(client.predict("slow", n=500_000)["y"].item()))
        asking.start()
        connection.request("POST", "/v1/models/slow:predict", b'{"inputs": {"n": 500000}}')
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert connection.getresponse().read() == b'{"outputs":500000}'
        asking.join()
        assert found == [500_000]
        assert upload.recv(1000).startswith(b"HTTP/1.1 503")
    said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert time.monotonic() - began < 15
    assert said[1] == ""


def test_a_request_that_takes_too_long_does_not_keep_the_server_from_stopping(tmp_path):
    examples.slow(tmp_path / "slow" / "1")
    lines, process = serve(tmp_path, "--drain-seconds", 1)
    port = int(lines[0].split(":")[-1].split("/")[0])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("POST", "/v1/models/slow:predict", b'{"inputs": {"n": 2000000000}}')
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert time.monotonic() - began < 8


def test_the_command_says_which_models_have_nothing_to_serve_and_what_is_broken(folder, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "broken" / "3").mkdir(parents=True)
    none, of_nobody = tmp_path / "none", "model_version_policy { specific { versions: 4 versions: 7 } }"
    given = (("absent", "/models/absent", ""), ("none", none, ""), ("broken", tmp_path / "broken", ""),
             ("other", folder, of_nobody), ("versioned", folder, ""))  # fmt: skip
    listed = (
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {more} }}'
        for name, path, more in given
    )
    (tmp_path / "models.config").write_text(f"model_config_list {{ {' '.join(listed)} }}")
    lines, process = serve("--config", tmp_path / "models.config")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert lines[0].startswith("versioned, version 1: http://127.0.0.1:")
    assert lines[1:-1] == [
        "absent: no version to serve. There is no folder /models/absent.\n",
        f"none: no version to serve. There is no folder of a version, such as 1, in {none}.\n",
        f"other: no version to serve. None of the versions 4, 7 is in {folder}.\n",
    ]
    assert said[1].startswith(
        f"broken, version 3: Could not load {tmp_path / 'broken' / '3'}: SavedModel file does not"
    )
    assert said[1].count("\n") == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('base_path: "relative"', "Expected model m to have an absolute path or URI; got base_path()=relative"),
        ('base_path: "/m" model_platform: "x"', "Model m requests unsupported platform x"),
        ('base_path: "FOLDER" version_labels { key: "stable" value: 99 }', "label stable to version 99 of model m"),
        ('base_path: "/m" } config { name: "m" base_path: "/m"', "Illegal to list model m multiple times"),
        ('base_path: 7', "cannot be read"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_told_in_a_line(config, message, folder, tmp_path, capsys):
    text = config.replace("FOLDER", str(folder))
    (tmp_path / "models.config").write_text(f'model_config_list {{ config {{ name: "m" {text} }} }}')
    command = ["serve", "--config", str(tmp_path / "models.config"), "--rest-port", "0", "--grpc-port", "0"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"zoo: error: {tmp_path / 'models.config'} cannot be ")
    assert message in said
    assert said.count("\n") == 1


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
