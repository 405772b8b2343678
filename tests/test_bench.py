"""Benchmarks: what was measured is kept, and the tables say it."""

import asyncio
import json
import re

import models as examples
import numpy as np
import pytest
import tensorflow as tf
from running import running

import zoo
from zoo import bench
from zoo._cli import main
from zoo.bench import _load, _profile, answers, fusions, gpu, quality, scaling, search, serving, train
from zoo.bench import input as input_bench
from zoo.vqa import REASONING


def test_only_what_is_missing_is_measured(tmp_path):
    asked = []

    def measure(name):
        asked.append(name)
        if name == "c":
            raise KeyboardInterrupt
        return {"value": len(asked)}

    path = tmp_path / "some.json"
    with pytest.raises(KeyboardInterrupt):
        bench.measured(path, "abc", measure)
    assert bench.measured(path, "bad", measure) == {"a": {"value": 1}, "b": {"value": 2}, "d": {"value": 4}}
    assert asked == ["a", "b", "c", "d"]


def test_what_was_measured_with_another_seed_is_not_taken_for_this_one(tmp_path):
    path = tmp_path / "some.json"
    assert bench.measured(path, "a", lambda name: 1, seed=0) == {"a": 1}
    with pytest.raises(ValueError, match=r"some.json keeps what was measured with \{'seed': 0\}, not with \{'seed': 1"):
        bench.measured(path, "a", lambda name: 2, seed=1)
    assert bench.measured(path, "ab", lambda name: 3, seed=0) == {"a": 1, "b": 3}


def test_quality_measures_every_model():
    assert zoo.names() == quality.NAMES


def test_quality_names_the_best_single_modality_and_chance():
    report = {
        "image and remark": {"mae": 0.1}, "image": {"mae": 0.5}, "remark": {"mae": 0.4},
        "mean of training": {"mae": 0.6},
    }  # fmt: skip
    one = {"report": report, "parameters": 1234567, "epochs": 4, "seconds": 50.0, "bytes": 2_300_000}
    line = quality.table({"sentiment": one}).splitlines()[-1]
    expected = "| `sentiment` | image and remark: mae | 0.100 | 0.400 | 0.600 | 1,234,567 | 12 | 4 | 2.3 |"
    assert line == expected
    searched = {**one, "report": {"image -> text": {"recall@10": 0.9, "gallery": 500}}}
    line = quality.table({"dual_encoder": searched}).splitlines()[-1]
    assert line.startswith("| `dual_encoder` | image -> text: recall@10 | 0.900 | — | 0.020 |")


def test_answers_are_told_by_type():
    rows = ["image and question", "question", "image", "most frequent answer to the question"]
    rows += [f"type {kind}" for kind in answers.TYPES]
    report = {row: {"accuracy": i / 10} for i, row in enumerate(rows)}
    line = answers.table({"film": {"report": report, "parameters": 1000}}).splitlines()[-1]
    expected = "| `film` | 0.000 | 0.400 | 0.500 | 0.600 | 0.700 | 0.800 | 0.100 | 0.200 | 0.300 | 1,000 |"
    assert line == expected
    assert tuple(answers.NAMES) == REASONING  # each is a preset of that name


def test_the_best_fusion_comes_first():
    def one(accuracy):
        rows = {"image and remark": accuracy, "image": 0.5, "remark": 0.4, "majority label": 0.3}
        report = {row: {"accuracy": value} for row, value in rows.items()}
        return {"report": report, "parameters": 1000, "seconds": 7.4}

    lines = fusions.table({"sum": one(0.6), "tensor": one(0.9)}).splitlines()
    assert lines[2:] == [
        "| `tensor` | 0.900 | 0.500 | 0.400 | 0.300 | 1,000 | 7 |",
        "| `sum` | 0.600 | 0.500 | 0.400 | 0.300 | 1,000 | 7 |",
    ]


def test_a_benchmark_names_what_it_measures(capsys):
    assert main(["bench", "answers", "--only", "flim"]) == 2
    assert "does not measure `flim`. Did you mean `film`? It measures: stacked" in capsys.readouterr().err
    assert main(["bench", "answer"]) == 2
    assert (
        "Unknown benchmark `answer`. Did you mean `answers`? There is: answers, faults, fusions, gpu, input, pointing, "
        "quality, scaling, search, serving, start, train." in capsys.readouterr().err
    )


def test_search_is_measured_beside_faiss(tmp_path):
    pytest.importorskip("faiss", reason="needs the extra `bench`")
    lines = search.run(tmp_path, ["exact", "ivf"], items=3000).splitlines()
    assert lines[4].startswith("| exact | 1.0000 | ")
    assert lines[5].startswith("| ivf | ")
    found = json.loads((tmp_path / "search.json").read_text())
    assert found["exact"]["largest_difference"] < 1e-5
    assert 0 < found["ivf"]["recall"] <= 1
    assert not (tmp_path / "servables").exists()


def test_clients_notice_what_is_slow_wrong_or_refused(tmp_path):
    examples.half_plus_two(tmp_path / "half_plus_two" / "1")
    answers = [{"y": 2.5}, {"y": 3.0}, {"y": 99.0}]  # the third is not right
    bodies = [b'{"instances": [1.0]}', b'{"instances": [2.0]}', b'{"instances": [3.0]}', b'{"instances": []}']
    with running(tmp_path) as server:
        port = server.rest_port

        async def hung_up():
            protocol = await _load._connected(port)
            protocol.transport.close()
            found = _load.Load(1, [])
            again = await _load._asked(protocol, port, [b"GET / HTTP/1.1"], 0, bool, found, 0)
            assert not again.transport.is_closing()
            again.transport.close()
            await asyncio.sleep(0.05)  # or the loop would wait for its end
            return found.errors

        assert _load._run(hung_up()) == 1
        requests = [_load.request(port, "/v1/models/half_plus_two:predict", body) for body in bodies]
        is_right = serving._checker(answers)
        for load in (
            _load.closed_loop(port, requests, is_right, clients=4, seconds=0.3, warm_up=0.1),
            _load.open_loop(port, requests, is_right, rate=100, seconds=0.4),
        ):
            found = load.figures()
            asked = len(load.times) + load.errors
            assert asked >= 40
            assert found["errors"] == pytest.approx(asked / 4, abs=4)
            assert found["wrong"] == pytest.approx(asked / 4, abs=4)
            assert 0 < found["p50"] <= found["p99"] < 1000
        assert load.seconds >= 0.38  # at its rate, not faster


def test_answers_of_servers_are_compared_by_value():
    texts = serving._plain(np.array([b"a cat", b"a dog"], object))
    assert serving._same(texts, ["a cat", "a dog"])
    assert not serving._same(texts, ["a cat", "a cow"])
    assert serving._same(serving._plain(np.array([0.1, 0.2], "float32")), [0.1, 0.2])
    assert not serving._same([0.1, 0.2], [0.1, 0.3])
    assert not serving._same([0.1, 0.2], [0.1])


def test_the_table_of_servers_tells_each_load_and_what_was_tried():
    figures = {"requests_per_second": 1234.5, "p50": 0.5, "p99": 2.0, "errors": 0, "wrong": 1}
    one = {"tried": {"alone": figures}, "best": "alone", "closed": {"1": figures}, "open": figures, "megabytes": 300.0}
    lines = serving.table({"half_plus_two by zoo": one}, {"half_plus_two": 0.02}).splitlines()
    assert lines[2] == "| `half_plus_two` | zoo | 1 client(s) | 1,234 | 0.50 | 2.00 | 0 | 1 | 300 |"
    assert lines[3] == "|  |  | 200 a second | 1,234 | 0.50 | 2.00 | 0 | 1 |  |"
    assert "A call in this process, p50: `half_plus_two` 0.02 ms." in lines
    assert lines[-1] == "- half_plus_two by zoo: alone 1,234. Taken: alone."


def test_training_is_compared_round_by_round():
    seconds = {"keras": [0.1, 0.2, 0.1], "torch": [0.2, 0.2, 0.1], "torch.compile": [0.05, 0.1, 0.1]}
    memory = {"keras": 1234.0, "torch": 800.0, "torch.compile": 900.0}
    one = {"batch": 32, "apart": {"torch": 1e-6, "torch.compile": 2e-6}, "seconds": seconds, "megabytes": memory}
    one |= {"operations": 4e9, "peak": 1e11}  # 0.04 s
    one["profile"] = {"keras": dict.fromkeys(_profile.KINDS, 0.2), "torch": dict.fromkeys(_profile.KINDS, 0.1)}
    _, _, line, *_, profile = train.table({"captioner": one}).splitlines()
    assert profile == "| `captioner` " + "| 20%, 10% " * 5 + "|"
    ratios = "1.00 (1.00 to 2.00) | 0.50 (0.50 to 1.00)"
    assert (
        line
        == f"| `captioner` | 32 | 10.00 | 5.00 | 10.00 | {ratios} | 2e-06 | 1,234, 800, 900 | 4.00 | 40%, 20%, 40% |"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", train.NAMES)
def test_networks_of_pytorch_answer_as_ours(name, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason='needs PyTorch: pip install -e ".[bench]"')
    monkeypatch.setattr(train, "ROUNDS", 1)
    monkeypatch.setattr(train, "STEPS", 2)
    found = train.measure(name, tmp_path, preset="tiny")
    assert max(found["apart"].values()) < 1e-4
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in found["seconds"].values())
    assert 0 < found["operations"] < found["peak"] * 10
    for profile in found["profile"].values():
        assert sum(profile.values()) == pytest.approx(1)
        assert profile["convolutions"] > 0.05
    with np.load(tmp_path / "torch.npz") as file:
        answers = {key: value + (key != "loss") * 1e-3 for key, value in file.items()}
    np.savez(tmp_path / "torch.npz", **answers)
    with pytest.raises(AssertionError, match="another network"):
        train._apart(tmp_path, "torch")


def test_operations_are_told_apart_by_their_names():
    assert _profile.shares({
        "autoencoder_1/conv2d_7_1/BiasAdd:_MklNativeFusedConv2D": 1.0, "autoencoder_1/conv2d_7_1/Sigmoid:Sigmoid": 2.0,
        "gradient_tape/lstm_1/while/body/lstm_cell_1/MatMul:_MklMatMul": 4.0, "dense/MatMul:_MklMatMul": 8.0,
        "image_encoder_1/batch_normalization_1/Sum_3:Sum": 16.0, "aten::convolution_backward": 32.0,
        "aten::mkldnn_rnn_layer": 64.0, "aten::addmm": 128.0, "aten::native_batch_norm": 256.0, "aten::sum": 512.0,
    }) == {
        "convolutions": 33 / 1023, "matrix products": 136 / 1023, "LSTM": 68 / 1023, "batch norm": 272 / 1023,
        "the rest": 514 / 1023,
    }  # fmt: skip


def test_what_tensorflow_does_is_profiled():
    a = tf.random.uniform((300, 300))
    step = tf.function(lambda: tf.linalg.matmul(tf.linalg.matmul(a, a), a))
    step()
    with _profile.of_tensorflow() as found:
        step()
    assert found["matrix products"] > 0.5
    assert sum(found.values()) == pytest.approx(1)


def test_answers_that_are_no_numbers_are_not_the_same(tmp_path):
    for name, label in (("keras", 1.0), ("torch", np.nan)):
        np.savez(tmp_path / f"{name}.npz", label=label, image=1.0)
    with pytest.raises(AssertionError, match="`label` of torch .* is nan from Keras'"):
        train._apart(tmp_path, "torch")


@pytest.mark.slow
def test_the_dataloader_makes_the_same_batches(tmp_path):
    pytest.importorskip("torch", reason='needs PyTorch: pip install -e ".[bench]"')
    for name in input_bench.NAMES:
        found = input_bench.measure(tmp_path / name, name, rows=150, rounds=1)
        assert [len(speeds) for speeds in found] == [1, 1, 1]
        assert all(speed > 0 for (speed,) in found)


@pytest.mark.long
def test_steps_on_one_device_are_measured():
    # 8 x 8 places, kernels of 3 x 3 from 3 to 4 and from 4 to 4 channels, a shortcut from 3 to 4; then an LSTM over 32
    # words and two dense layers.
    by_hand = 2 * 64 * (9 * 3 * 4 + 9 * 4 * 4 + 3 * 4) + 32 * 2 * 8 * 256 * 256 + 2 * 256 * 4 + 2 * 256 * 256
    assert gpu.flops(8, ((4, 1),)) == by_hand
    table = gpu.run(names=["lstm_without_cudnn"], side=16, batch=4, steps=1, channels=4)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["lstm_without_cudnn"]
    for _, backend, speed, share, memory, loss in rows:
        assert backend.startswith("Keras ")
        assert backend.endswith("tensorflow on the CPU")
        assert float(speed.replace(",", "")) > 0
        assert re.fullmatch(r"\d+% of \d+\.\d TFLOP/s", share)
        assert memory == "—"  # of a GPU
        assert 0 < float(loss) < 10
    assert "failed: " in gpu.run(names=["float32"], side="wide")


def test_an_error_is_told_by_its_own_line():
    said = "Traceback (most recent call last):\njax._src.errors.TracerError: no\n----\nFor simplicity, JAX has removed"
    assert gpu._cause(said) == "jax._src.errors.TracerError: no"
    assert gpu._cause("killed\n") == "killed"
    assert gpu._cause("") == "it ended without a word"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_steps_are_measured_on_other_backends(backend, monkeypatch):
    pytest.importorskip(backend, reason=f"needs {backend}")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    table = gpu.run(names=["float32", "bfloat16"], side=16, batch=4, steps=1, channels=4)
    assert table.count(f", {backend} on the CPU") == 2


def test_the_exponent_is_that_of_the_upper_half():
    assert scaling.exponent((1, 2, 4, 8), (5.0, 5.0, 12.0, 24.0)) == pytest.approx(1.0)
    assert scaling.exponent((1, 2, 4), (1.0, 3.0, 12.0)) == pytest.approx(np.log2(12) / 2)


@pytest.mark.slow
def test_steps_of_several_sizes_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "AXES", {"batch": (4, 8), "replicas": (1, 2)})
    monkeypatch.setattr(scaling, "USUAL", {"batch": 8, "length": 4, "width": 4, "replicas": 1})
    table = scaling.run(tmp_path, ["batch", "replicas"])
    assert len(table.splitlines()) == 4
    assert len(json.loads((tmp_path / "scaling.json").read_text())) == 4
    assert (tmp_path / "scaling.png").stat().st_size > 5000
