"""Sources packed into shards, and batches that other processes make."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import zoo
from mmkeras import data
from mmkeras.data import service
from zoo import _cli, _pack

KINDS = {"image": "image", "question": "text"}
ALL = {**KINDS, "audio": "audio", "video": "video", "vector": "vector"}
ROWS = 20


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Eighty scenes in shards of twenty; tests leave them as they are."""
    folder = tmp_path_factory.mktemp("packed") / "c#" / "scenes"  # a slice is told by what stands behind its last #
    assert _cli.main(["data", "pack", "scenes:64", str(folder), "--rows", str(ROWS)]) == 0
    return folder


def preprocessor(source, modalities=KINDS, **options):
    settings = {"modalities": modalities, "vector_dim": {"vector": 8}, "text_encoder": "bag", **options}
    result = zoo.preprocessor("fusion_classifier", "tiny", **settings)
    data.adapt(result, source.train)
    return result


def equal(a, b):
    """Whether two datasets give equal batches in one order."""
    pairs = list(zip(a, b, strict=True))
    for one, other in pairs:
        tf.nest.assert_same_structure(one, other)
        for x, y in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(x, y)
    return len(pairs) > 0


def test_a_packed_source_is_the_source(packed):
    source, again = data.open("scenes:64"), data.open(str(packed))
    assert list(again.splits) == ["test", "train", "validation"]
    for name, split in source.splits.items():
        kept = again.split(name)
        assert {column: kind for column, kind in split.kinds.items() if kind != "other"}.items() <= kept.kinds.items()
        for column, kind in split.kinds.items():
            cells = kept.cells(column)
            if kind in data.ENCODED:
                cells = [data.encoded(str(packed / cell)) for cell in cells]
            assert cells == split.cells(column)


@pytest.mark.parametrize(("modalities", "kept"), [(ALL, 0), (KINDS, 2**29)])
def test_batches_are_those_of_the_source(packed, modalities, kept, monkeypatch):
    monkeypatch.setattr("mmkeras.data.pipeline.CACHE_BYTES", kept)  # 0: read from the shards in every epoch
    source, again = data.open("scenes:64"), data.open(str(packed))
    pre = preprocessor(source, modalities)
    options = {"batch_size": 24, "epoch": 3, "seed": 1, "training": True}
    assert equal(again.train.batches(pre, **options), source.train.batches(pre, **options))


def test_a_record_is_an_example_with_every_column(packed):
    (shard,) = packed.glob("test-*.tfrecord")
    records = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    split = data.open("scenes:64").test
    assert len(records) == len(split)
    features = tf.train.Example.FromString(records[3]).features.feature
    assert set(features) == set(split.kinds)
    assert features["image"].bytes_list.value[0] == split.cells("image")[3]
    assert [tag.decode() for tag in features["tags"].bytes_list.value] == split.cells("tags")[3]
    np.testing.assert_allclose(features["vector"].float_list.value, split.cells("vector")[3], rtol=1e-6)
    assert features["text"].bytes_list.value[0].decode() == split.cells("text")[3]


def test_packing_goes_on_where_it_was_interrupted(tmp_path):
    source, told = data.open("scenes:64"), []

    def until_two(line):
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _pack.pack(source, tmp_path, ROWS, until_two)
    assert not (tmp_path / "train.jsonl").exists()  # half a source is none
    before = {path.name: path.stat().st_ino for path in tmp_path.glob("*.tfrecord")}
    assert len(before) == 2
    first = min(tmp_path / name for name in before)
    first.write_bytes(first.read_bytes()[:-1])  # torn
    (tmp_path / ".999999-train-00002-of-00004.tfrecord").write_bytes(b"of a process that was killed")
    told.clear()
    assert _pack.pack(source, tmp_path, ROWS, told.append) == 80
    assert len(told) == 5  # the torn shard, and those that were not there
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    after = {path.name: path.stat().st_ino for path in tmp_path.glob("*.tfrecord")}
    assert [name for name in before if before[name] == after[name]] == [max(before)]
    _pack.pack(source, tmp_path / "whole", ROWS, told.append)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


@pytest.mark.parametrize("fault", ["byte", "cut", "gone"])
def test_a_damaged_shard_is_told(fault, tmp_path, capsys):
    _pack.pack(data.open("scenes:16"), tmp_path, ROWS, lambda line: None)
    assert _pack.damaged(tmp_path) == []
    (shard,) = tmp_path.glob("train-*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.unlink() if fault == "gone" else shard.write_bytes(content if fault == "byte" else content[:-9])
    assert _cli.main(["data", "check", str(tmp_path)]) in (1, 2)  # 2: no row is left
    why = "it is gone" if fault == "gone" else "its bytes are not those that were packed"
    assert capsys.readouterr().out.startswith(f"{shard}: {why}")
    if fault != "byte":
        pre = preprocessor(data.open("scenes:16"))
        with pytest.raises(data.DataError, match=r"train.jsonl, row 1: .*(there is no file|pack it again)"):
            data.open(str(tmp_path)).train.batches(pre)


def test_a_row_that_cannot_be_packed_is_told(tmp_path):
    (tmp_path / "a.csv").write_text("image,label\nnone.png,x\n" * 1)
    with pytest.raises(data.DataError, match=r"a.csv, row 2: There is no file .*none.png"):
        _pack.pack(data.open(str(tmp_path / "a.csv")), tmp_path / "out", tell=lambda line: None)
    assert not (tmp_path / "out" / "train.jsonl").exists()


# Input workers


@pytest.fixture(scope="module")
def workers():
    """The address of a dispatcher and two workers, in processes of their own."""
    command = [sys.executable, "-m", "zoo._cli", "data", "serve", "--port", "0", "--workers", "1"]
    with contextlib.ExitStack() as stack:

        def start(*options):
            process = stack.enter_context(subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            return process.stdout.readline().split(" at ")[1].split(". ")[0]

        address = start()
        assert start("--join", address) == address
        yield address


@pytest.mark.long
def test_batches_of_workers_are_those_of_this_process(packed, workers):
    source = data.open(str(packed))
    pre = preprocessor(source, augment_shift=0.2)
    for options in ({"epoch": 2}, {"epoch": 0, "first_step": 3}, {"training": False}):
        options = {"batch_size": 4, "seed": 5, **options}
        near = source.train.batches(pre, **options)
        far = source.train.batches(pre, service=workers, **options)
        assert int(far.cardinality()) == int(near.cardinality())
        assert equal(far, near)


@pytest.mark.parametrize("address", ["localhost:9", "nowhere", "localhost:123456789"])
def test_workers_that_cannot_be_reached_are_told_at_once(packed, address, tmp_path):
    options = {"preset": "tiny", "modalities": {"image": "image"}, "image_encoder": "flat", "verbose": 0}
    with pytest.raises(data.DataError, match=f"No input workers can be reached at '{address}'.*Expected HOST:PORT"):
        zoo.train("fusion_classifier", str(packed), out=tmp_path / "run", data_service=address, **options)
    assert not (tmp_path / "run").exists()
    with pytest.raises(data.DataError, match="can be reached"), data.input_workers(join=address):
        pass


def test_a_batch_that_the_workers_have_lost_is_told(monkeypatch):
    split, pre = data.scenes(24).train, zoo.preprocessor("dual_encoder", "tiny")
    data.adapt(pre, split)
    monkeypatch.setattr(service, "check_reached", lambda address: None)
    monkeypatch.setattr(service.service, "distribute", lambda policy, address: lambda dataset: dataset.skip(1))
    lost = pytest.raises(data.DataError, match="A batch was lost by the input workers at here:1: .* --resume")
    with lost, data.naming_rows(split, pre):
        list(data.batches(split, pre, 8, training=False, service="here:1"))


@pytest.mark.slow
def test_a_training_with_input_workers_is_the_same(packed, workers, tmp_path):
    options = {"preset": "tiny", "modalities": {"image": "image"}, "epochs": 1, "verbose": 0, "deterministic": True}
    options["image_encoder"] = "flat"
    with_workers, alone = (
        zoo.train("fusion_classifier", str(packed), out=tmp_path / name, data_service=address, **options)
        for name, address in (("far", workers), ("near", None))
    )
    for one, other in zip(with_workers.model.weights, alone.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)
