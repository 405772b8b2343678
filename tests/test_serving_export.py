"""What an exported model brings along for a server, and the client that asks one."""

import concurrent.futures
import functools
import importlib
import json
import multiprocessing
import pathlib
import resource
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
import yaml
from running import running, wait_for

from mmkeras import export
from mmkeras.serving import ModelConfig, Models, config
from mmkeras.serving.warm_up import warm_up
from zoo._cli import main

# What an exported model brings along


def exported(folder, function=None, specs=None, tables=(), **options):
    """A SavedModel `doubling` below a folder, twice its input."""
    specs = specs or {"x": tf.TensorSpec((None, 2), tf.float32, name="x")}
    signature = export.Signature(function or (lambda raw: {"y": 2 * raw["x"]}), specs, **options)
    return export.export(folder / "doubling", {"serving_default": signature}, tables, export.samples({}, {}))


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


def test_the_version_that_is_named_is_the_one_that_is_verified(tmp_path, capsys):
    exported(tmp_path)
    with running(tmp_path, grpc_port=0) as server:
        for url in (f"http://127.0.0.1:{server.rest_port}", f"grpc://127.0.0.1:{server.grpc_port}"):
            assert main(["verify", url, "--servables", str(tmp_path)]) == 0
            assert capsys.readouterr().out.startswith("doubling, version 1, serving_default: largest difference ")
        exported(tmp_path)  # which the server does not know yet
        assert main(["verify", url, "--servables", str(tmp_path)]) == 2
        assert "Specific(doubling, 2)" in capsys.readouterr().err
        server.models.poll()
        assert main(["verify", url, "--servables", str(tmp_path)]) == 0
        assert "doubling, version 2" in capsys.readouterr().out


def test_classify_is_verified_in_the_version_that_is_named(tmp_path, capsys):
    specs = {"x": tf.TensorSpec((None, 2), tf.float32, name="x")}

    def export_scores(factor):
        def classify(raw):
            names = tf.repeat(tf.constant([["a", "b"]]), tf.shape(raw["x"])[0], axis=0)
            return {"classes": names, "scores": factor * raw["x"]}

        signatures = {
            "serving_default": export.Signature(lambda raw: {"y": factor * raw["x"]}, specs),
            "classify": export.Signature(classify, specs, method="classify"),
        }
        export.export(tmp_path / "scores", signatures, (), export.samples({}, {}))

    export_scores(1.0)
    export_scores(2.0)
    configs = [ModelConfig("scores", str(tmp_path / "scores"), ("all",))]
    with running(tmp_path, grpc_port=0) as server:
        server.models.configure(configs)
        export_scores(3.0)
        server.models.poll()
        (tmp_path / "scores" / "3").rename(tmp_path / "put aside")  # what is named is no longer the server's latest
        for url in (f"http://127.0.0.1:{server.rest_port}", f"grpc://127.0.0.1:{server.grpc_port}"):
            assert main(["verify", url, "--servables", str(tmp_path)]) == 0
            assert "scores, version 2, classify: largest difference" in capsys.readouterr().out


def test_a_server_with_tls_and_a_token_is_verified(tmp_path, capsys):
    pem = str(pathlib.Path(__file__).parent / "serving" / "localhost.pem")
    exported(tmp_path)
    (tmp_path / "token").write_text("open sesame\n")
    with running(tmp_path, grpc_port=0, certificate=pem, key=pem, token="open sesame") as server:
        for url in (f"https://127.0.0.1:{server.rest_port}", f"grpcs://127.0.0.1:{server.grpc_port}"):
            command = ["verify", url, "--servables", str(tmp_path)]
            assert main([*command, "--ca", pem, "--token-file", str(tmp_path / "token")]) == 0
            assert main([*command, "--ca", pem]) == 2
            assert f"The server at {url} said: Expected the" in capsys.readouterr().err
            assert main(command) == 2
            assert f"Nobody known here vouches for {url}" in capsys.readouterr().err


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
        (lambda raw: {"y": tf.fill([tf.shape(raw["x"])[0]], b"\xff")}, None, "holds bytes: expected y_bytes"),
    ],
)
def test_what_a_server_would_not_run_is_not_exported(function, specs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        exported(tmp_path, function, specs)
    assert not list((tmp_path / "doubling").iterdir())


def test_what_answers_otherwise_than_the_model_is_not_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(export.Signature, "__call__", lambda signature, raw: {"y": 3 * np.array(raw["x"])})
    with pytest.raises(ValueError, match="signature serving_default answers otherwise than the model"):
        exported(tmp_path)
    assert not list((tmp_path / "doubling").iterdir())


def test_a_full_disk_leaves_what_was_there(tmp_path):
    exported(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    weight = tf.Variable(np.random.default_rng(0).normal(size=(2, 50_000)).astype("float32"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as a disk that takes no more
    try:
        with pytest.raises(OSError, match="Could not write a version of .*doubling, and left none: .*arge"):
            exported(tmp_path, lambda raw: {"y": raw["x"] @ weight}, tables=[weight])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "doubling").iterdir()] == ["1"]


def waiting_export(folder):
    """An export that ends never: it waits when its SavedModel has been written."""

    def wait(specs, rows):
        (folder / "waits").touch()
        time.sleep(600)

    signature = export.Signature(lambda raw: {"y": 2 * raw["x"]}, {"x": tf.TensorSpec((None, 2), tf.float32, name="x")})
    export.export(folder / "doubling", {"serving_default": signature}, sample=wait)


def test_a_killed_export_leaves_nothing_to_load_and_the_next_one_clears_it_away(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=waiting_export, args=(tmp_path,), daemon=True)
    process.start()
    wait_for((tmp_path / "waits").exists, 120)
    assert exported(tmp_path).name == "1"
    (left,) = (tmp_path / "doubling").glob(".*")  # of an export that goes on: it is left alone
    assert (left / "version" / "saved_model.pb").exists()
    shutil.rmtree(tmp_path / "doubling" / "1")
    process.kill()
    process.join()
    assert left.exists()
    with pytest.raises(ValueError, match="There is no model in"):
        config.models_in(tmp_path)
    exported(tmp_path)
    assert [path.name for path in (tmp_path / "doubling").iterdir()] == ["1"]


def test_a_warm_up_request_is_checked_as_it_was_written(tmp_path, monkeypatch):
    samples = importlib.import_module("mmkeras.export.samples")  # a function has the same name
    request = samples._request

    def other(name, key, signature, raw):
        return request(name, key, signature, {**raw, "x": [2 * value for value in raw["x"]]})

    monkeypatch.setattr(samples, "_request", other)
    with pytest.raises(ValueError, match="serving_default answers otherwise than the model"):
        exported(tmp_path)


@pytest.mark.parametrize("independent", [True, False])
def test_only_rows_that_are_independent_run_together(independent, tmp_path):
    """Requests at once to a model that takes the mean over its rows, or one that does not."""

    def function(raw):
        return {"y": raw["x"] - (0 if independent else tf.reduce_mean(raw["x"], axis=0))}

    path = exported(tmp_path, function, independent=independent)
    assert (path / "batching_params.pbtxt").exists() == independent
    sizes, values = [], np.arange(16, dtype="float32").reshape(8, 1, 2)
    batching = config.Batching(16, 100_000, num_batch_threads=1)
    with running(tmp_path, batching=batching) as server, server.models.using("doubling") as servable:
        run = servable.run
        servable.run = lambda key, feeds, *rest: sizes.append(len(feeds["x"])) or run(key, feeds, *rest)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            ask = functools.partial(server.batcher, servable, "serving_default")
            found = list(pool.map(lambda value: ask({"x": value})["y"], values))
    np.testing.assert_array_equal(found, values if independent else np.zeros_like(values))
    assert (max(sizes) > 1) == independent


def test_exports_at_once_take_different_numbers(tmp_path, monkeypatch):
    exported(tmp_path)
    rename, others = pathlib.Path.rename, iter([True, False])

    def late(beside, path):
        if next(others):  # another export was a moment earlier
            (path / "variables").mkdir(parents=True)
        return rename(beside, path)

    monkeypatch.setattr(pathlib.Path, "rename", late)
    assert exported(tmp_path).name == "3"
    assert (tmp_path / "doubling" / "2" / "variables").is_dir()


def test_files_for_the_original_server_are_written(tmp_path):
    exported(tmp_path)
    export.write_server_files(tmp_path)
    (one,) = config.read_models(tmp_path / "models.config")
    assert one == ModelConfig("doubling", "/models/doubling")
    batching = config.read_batching(tmp_path / "batching_parameters.txt")
    assert batching.allowed_batch_sizes == export.BATCH_SIZES
    assert config.read_monitoring(tmp_path / "monitoring.config") == "/monitoring/prometheus/metrics"
    own = config.read_batching(tmp_path / "doubling" / "1" / "batching_params.pbtxt")
    assert own == batching  # the same but for the threads, of which a server has one number
    (compose,) = yaml.safe_load_all((tmp_path / "docker-compose.yml").read_text())
    deployment, _ = yaml.safe_load_all((tmp_path / "kubernetes.yml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for arguments in (*(service["command"] for service in compose["services"].values()), container["args"]):
        assert {"--model_config_file=/models/models.config", "--enable_batching=true"} <= set(arguments)
        assert "--enable_per_model_batching_parameters=true" in arguments
