"""TensorFlow Datasets: small sets written in their format, TFDS's own mock, and real ones where they are prepared."""

import io
import json
import logging
import os
import pathlib
import time
import wave

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from mmkeras import data
from mmkeras.data import DataError
from mmkeras.data.tfds import _plain, _wav

NUM_ROWS = 12
SPLITS = {
    "mnist": ("train", "test"),
    "fashion_mnist": ("train", "test"),
    "cifar10": ("train", "test"),
    "imdb_reviews": ("train", "test", "unsupervised"),
    "coco_captions": ("train", "val", "test", "restval"),
    "spoken_digit": ("train",),
}
FOLDERS = {
    "mnist": "mnist/3.0.1",
    "fashion_mnist": "fashion_mnist/3.0.1",
    "cifar10": "cifar10/3.0.2",
    "imdb_reviews": "imdb_reviews/plain_text/1.0.0",
    "coco_captions": "coco_captions/2014/1.1.0",
    "spoken_digit": "spoken_digit/1.0.9",
    "coco": "coco/2017/1.1.0",
}
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def prepared():
    """The folder of sets that are really prepared, or None."""
    beside = pathlib.Path(__file__).parents[2] / "shared" / "data" / "tfds"
    return os.environ.get("TFDS_DATA_DIR") or (str(beside) if beside.is_dir() else None)


needs_prepared = pytest.mark.skipif(prepared() is None, reason="neither TFDS_DATA_DIR nor ../shared/data/tfds is there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of prepared sets, as `download_and_prepare` leaves it: what TFDS knows of each, and records."""
    root = tmp_path_factory.mktemp("tfds")
    for name, place in FOLDERS.items():
        names = SPLITS.get(name, ("train",))
        splits = [
            {"name": split, "numBytes": "1", "shardLengths": [str(NUM_ROWS)],
             "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}
            for split in names
        ]  # fmt: skip
        info = {"name": name, "version": place.split("/")[-1], "fileFormat": "tfrecord", "splits": splits}
        (root / place).mkdir(parents=True)
        features = tfds.builder(place.removesuffix("/" + info["version"]), data_dir=str(root)).info.features
        (root / place / "dataset_info.json").write_text(json.dumps(info))
        for split in names:
            file = root / place / f"{name}-{split}.tfrecord-00000-of-00001"
            with tf.io.TFRecordWriter(str(file)) as writer:
                for i in range(NUM_ROWS):
                    writer.write(features.serialize_example(features.encode_example(example(name, split, i))))
    (root / FOLDERS["cifar10"] / "label.labels.txt").write_text("\n".join(CIFAR) + "\n")
    return root


def example(name, split, i):
    """The values of a row, before TFDS encodes them."""
    random = np.random.default_rng([i, len(split)])
    if name in ("mnist", "fashion_mnist"):
        return {"image": random.integers(0, 255, (28, 28, 1), dtype="uint8"), "label": (i * 7) % 10}
    if name == "cifar10":
        pixels = random.integers(0, 255, (32, 32, 3), dtype="uint8")
        return {"image": pixels, "label": (i * 7) % 10, "id": f"{split}_{i}"}
    if name == "imdb_reviews":
        return {"text": f"Süß, {split} {i} <br />", "label": i % 2}
    if name == "spoken_digit":
        samples = random.integers(-32768, 32767, 50 + i)
        return {"audio": samples, "label": i % 10, "audio/filename": f"{i % 10}_{i}.wav"}
    box = tfds.features.BBox(0.0, 0.0, 0.5, 0.5)
    objects = [{"area": 4, "bbox": box, "id": k, "is_crowd": False, "label": k} for k in range(i % 3)]
    row = {
        "image": random.integers(0, 255, (8, 9, 3), dtype="uint8"),
        "image/filename": f"{i}.jpg",
        "image/id": i,
        "objects": objects,
    }
    if name == "coco_captions":
        row["captions"] = [{"id": k, "text": f"caption {k} of {split} {i}"} for k in range(5 + i % 2)]
    return row


@pytest.fixture
def written(folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    return lambda name, split="train": [example(name, split, i) for i in range(NUM_ROWS)]


ADAPTERS = {
    "mnist": {"image": "image", "label": "label"},
    "fashion_mnist": {"image": "image", "label": "label"},
    "cifar10": {"image": "image", "label": "label"},
    "imdb_reviews": {"text": "text", "label": "label"},
    "coco_captions": {"image": "image", "text": "text"},
    "spoken_digit": {"audio": "audio", "label": "label"},
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter(written, name):
    source = data.open(f"tfds:{name}")
    assert {"train", "validation", "test"} <= set(source.splits)
    assert "unsupervised" not in source.splits
    assert sum(len(split) for split in source.splits.values()) == NUM_ROWS * len(set(SPLITS[name]) - {"unsupervised"})
    for split in source.splits.values():
        assert split.kinds == ADAPTERS[name]
        assert [len(split.cells(column)) for column in split.kinds] == [len(split)] * len(split.kinds)
    modalities = {column: kind for column, kind in ADAPTERS[name].items() if kind != "label"}
    assert len(data.checked(source.train, modalities)) == len(source.train)
    missing = {"coco_captions": None, "spoken_digit": "validation and test"}.get(name, "validation")
    assert (source.rule or "None").startswith(str(missing))
    first = int(source.train.where(0).removeprefix(f"tfds:{name}, train, row ")) - 1
    value = written(name)[first]
    if "label" in source.train.kinds and name not in ("cifar10", "imdb_reviews", "fashion_mnist"):
        assert source.train.cells("label")[0] == str(value["label"])
    if name == "imdb_reviews":
        assert source.train.cells("text")[0] == value["text"]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_images_stay_encoded(written, name):
    cells = data.open(f"tfds:{name}").test.cells("image")
    assert all(cell.startswith(b"\x89PNG") for cell in cells)
    for cell, value in zip(cells, written(name, "test"), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(cell))), value["image"].squeeze())


def test_jpeg_is_not_encoded_again(written, folder):
    (name,) = folder.glob("coco_captions/*/*/*-test.tfrecord*")
    features = tfds.builder("coco_captions").info.features
    records = [tf.train.Example.FromString(r) for r in tf.data.TFRecordDataset(str(name)).as_numpy_iterator()]
    assert features["image"].shape == (None, None, 3)
    stored = [record.features.feature["image"].bytes_list.value[0] for record in records]
    assert data.open("tfds:coco_captions").test.cells("image") == stored
    assert stored[0].startswith(b"\xff\xd8")


def test_labels_are_names(written):
    assert data.open("tfds:cifar10").test.cells("label") == [CIFAR[row["label"]] for row in written("cifar10")]
    assert data.open("tfds:mnist").test.cells("label") == [str(row["label"]) for row in written("mnist")]
    assert data.open("tfds:imdb_reviews").test.cells("label") == ["neg", "pos"] * (NUM_ROWS // 2)


def test_texts_are_texts(written):
    expected = [row["text"] for row in written("imdb_reviews", "test")]
    assert data.open("tfds:imdb_reviews").test.cells("text") == expected
    assert "ß" in expected[0]


def test_captions_are_lists(written):
    source = data.open("tfds:coco_captions")
    for ours, theirs in (("validation", "val"), ("restval", "restval")):
        expected = [[caption["text"] for caption in row["captions"]] for row in written("coco_captions", theirs)]
        assert source.split(ours).cells("text") == expected


def test_sounds_become_wav(written):
    source = data.open("tfds:spoken_digit")
    found = {}
    for split in source.splits.values():
        found.update(zip(map(rate_and_samples, split.cells("audio")), split.cells("label"), strict=True))
    assert found == {(8000, tuple(row["audio"])): str(row["label"]) for row in written("spoken_digit")}


def rate_and_samples(content):
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), tuple(np.frombuffer(file.readframes(10**6), "<i2").tolist())


def test_float_and_stereo_sounds_become_16_bits():
    samples = np.array([[0.5, -0.5], [1.0, -1.0], [2.0, 0.0]], "float32")
    with wave.open(io.BytesIO(_wav(samples, 16_000))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (2, 2, 16_000, 3)
        values = np.frombuffer(file.readframes(3), "<i2").reshape(3, 2)
    np.testing.assert_array_equal(values, [[16384, -16384], [32767, -32767], [32767, 0]])


def test_label_that_is_not_told_is_empty():
    names = ["cat", "dog"]
    assert _plain([1, -1, 0], names) == ["dog", "", "cat"]


def test_another_set_has_its_own_columns(written):
    source = data.open("tfds:coco/2017", columns={"objects/label": "tags", "text": "image/filename"})
    split = source.train
    kinds = {"image": "image", "text": "text", "objects/label": "tags", "tags": "tags"}  # a target by both names
    assert {column: kind for column, kind in split.kinds.items() if kind != "other"} == kinds
    assert "objects/bbox" not in split.kinds
    rows = [int(split.where(i).split("row ")[1]) - 1 for i in range(len(split))]
    expected = [written("coco")[row] for row in rows]
    names = tfds.builder("coco/2017").info.features["objects"]["label"].int2str
    assert split.cells("text") == [row["image/filename"] for row in expected]
    assert split.cells("image/id") == rows
    assert split.cells("tags") == [[names(thing["label"]) for thing in row["objects"]] for row in expected]
    good = data.checked(split, {"image": "image", "text": "text"})
    assert len(good) == len(split)


def mocked(folder):
    """TFDS's mock with what the folder says of splits and labels, of which the mock itself knows nothing.

    With decoders it encodes the invented values as the real builder would, so that `SkipDecoding` works. It cannot
    invent lists of texts for these (coco_captions).
    """
    return tfds.testing.mock_data(NUM_ROWS, policy=tfds.testing.MockPolicy.USE_FILES, data_dir=str(folder))


@pytest.mark.parametrize("name", sorted(set(ADAPTERS) - {"coco_captions"}))
def test_every_adapter_under_the_mock(folder, name):
    with mocked(folder):
        source = data.open(f"tfds:{name}")
        cells = {column: source.train.cells(column) for column in ADAPTERS[name]}
    begin = {"image": b"\x89PNG", "audio": b"RIFF", "text": ""}
    for column, kind in ADAPTERS[name].items():
        assert len(cells[column]) == len(source.train)
        assert all(cell.startswith(begin.get(kind, "")) for cell in cells[column])
        assert len(set(cells[column])) > 1


def test_pair_of_two_sets_under_the_mock(folder):
    with mocked(folder):
        joined = data.pair(data.open("tfds:cifar10"), data.open("tfds:imdb_reviews"))
        train, pictures = joined.train, data.open("tfds:cifar10").train
        assert train.kinds == {"image": "image", "label": "label", "text": "text"}
        by_picture = dict(zip(pictures.cells("image"), pictures.cells("label"), strict=True))
        assert len(train) == len(pictures) == NUM_ROWS - NUM_ROWS // 10
        assert [by_picture[cell] for cell in train.cells("image")] == train.cells("label")
        assert sorted(train.cells("text")) == sorted(data.open("tfds:imdb_reviews").train.cells("text"))
    assert "seeded order" in joined.rule


def test_columns_are_read_late_and_once(written, monkeypatch):
    calls = []
    as_dataset = tfds.core.DatasetBuilder.as_dataset

    def counting(self, **options):
        calls.append(options["split"])
        return as_dataset(self, **options)

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_dataset", counting)
    source = data.open("tfds:mnist")
    assert calls == []
    source.train.cells("label")
    source.train.cells("image")
    source.validation.cells("image")
    assert calls == ["train"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnits", ("no data set `mnits`", "Did you mean `mnist`?", "imdb_reviews")),
        ("../mnist", ("cannot be opened",)),
        ("cifar10", ("tfds:cifar10 is not prepared in", "TFDS_DATA_DIR", "connect", "no name resolved")),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(tmp_path, monkeypatch, name, words):
    def no_network(*_):
        raise OSError("no name resolved")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        data.open(f"tfds:{name}")
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    if name == "cifar10":
        assert str(tmp_path) in message
    assert not list(tmp_path.iterdir())


def test_failed_download_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    def download(self):
        print("noise")
        raise AssertionError("Manual steps are needed.\nMany lines of them.")

    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"cannot be downloaded \(Manual steps are needed\)\. Set TFDS_") as caught:
        data.open("tfds:cifar10")
    assert "\n" not in str(caught.value)
    assert "noise" not in capsys.readouterr().out


def test_log_levels_are_put_back(written):
    levels = [logging.getLogger(name).level for name in ("absl", "tensorflow", "urllib3")]
    data.open("tfds:mnist").train.cells("label")
    assert [logging.getLogger(name).level for name in ("absl", "tensorflow", "urllib3")] == levels


@needs_prepared
def test_mnist_for_real(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", prepared())
    source = data.open("tfds:mnist")
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 54_000, "validation": 6_000, "test": 10_000,
    }  # fmt: skip
    images, labels = source.test.cells("image"), source.test.cells("label")
    counts = [labels.count(str(digit)) for digit in range(10)]
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # as published
    builder = tfds.builder("mnist", data_dir=prepared())
    for i, example in enumerate(builder.as_dataset(split="test[:50]").as_numpy_iterator()):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(images[i]))), example["image"][..., 0])
        assert labels[i] == str(example["label"])
    again = data.open("tfds:mnist").test
    assert again.cells("image")[:100] == images[:100]
    assert len(data.checked(source.test, {"image": "image"}, ("label",))) == 10_000


@needs_prepared
def test_spoken_digit_for_real(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", prepared())
    source = data.open("tfds:spoken_digit")
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 2400, "validation": 300, "test": 300,
    }  # fmt: skip
    labels = [label for split in source.splits.values() for label in split.cells("label")]
    assert [labels.count(str(digit)) for digit in range(10)] == [300] * 10
    sounds = {}
    for split in source.splits.values():
        sounds.update(zip(split.cells("audio"), split.cells("label"), strict=True))
    by_samples = {rate_and_samples(cell): label for cell, label in sounds.items()}
    builder = tfds.builder("spoken_digit", data_dir=prepared())
    for example in builder.as_dataset(split="train[:20]").as_numpy_iterator():
        label = by_samples[(8000, tuple(example["audio"].tolist()))]
        assert label == str(example["label"]) == example["audio/filename"].decode()[0]
