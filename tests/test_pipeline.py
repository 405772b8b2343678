"""From a split to batches: order, cache, fitting, augmentation; and every kind of bad row with its message."""

import io
import json
import pathlib
import struct
import subprocess
import sys
import time
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mmkeras import data
from mmkeras.data import Augment, DataError, Preprocessor, Source, Split, adapt, batches, checked
from mmkeras.data import pipeline as pipeline_module
from mmkeras.data.adapt import count_words
from mmkeras.data.manifest import read_split
from mmkeras.layers import DecodeImage, EncodeLabel, StandardizeVector, TokenizeText

SIZE = 6


def raw(name, shape=(), dtype="string"):
    return keras.Input(shape, dtype=dtype, name=name)


def preprocessor(image=True, text=True, vector=0, label=True, length=8, augment=None):
    """Of pictures `(6, 6, 3)`, texts of eight tokens, vectors and labels, whichever are wanted."""
    inputs, outputs = {}, {}
    if image:
        inputs["image"] = raw("image")
        outputs["image"] = DecodeImage((SIZE, SIZE))(inputs["image"])
    if text:
        inputs["text"] = raw("text")
        outputs["text"] = TokenizeText(length)(inputs["text"])
    if vector:
        inputs["vector"] = raw("vector", (vector,), "float32")
        outputs["vector"] = StandardizeVector()(inputs["vector"])
    targets = None
    if label:
        answer = {"label": raw("label")}
        targets = keras.Model(answer, {"label": EncodeLabel()(answer["label"])})
    return Preprocessor(keras.Model(inputs, outputs), targets, augment)


def layer(model, kind):
    return next(layer for layer in model.layers if isinstance(layer, kind))


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype="uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def split_of(name="train", folder=None, **columns):
    size = len(next(iter(columns.values())))
    kinds = {column: column for column in columns}
    return Split(name, columns, kinds, size, lambda i: f"rows.jsonl, row {i + 1}", folder)


def numbered(num_rows=20, several=False):
    """Rows that can be told apart in every column: the picture's red, the text's word, the label."""
    images = [png(np.full((SIZE, SIZE, 3), (i, 100, 200))) for i in range(num_rows)]
    texts = [[f"w{i} first", f"w{i} second", f"w{i} third"] if several else f"w{i} alone" for i in range(num_rows)]
    return split_of(image=images, text=texts, label=[str(i) for i in range(num_rows)])


def fitted(split, **options):
    result = preprocessor(**options)
    adapt(result, split)
    return result


def rows_of(dataset):
    """All rows of a dataset: label, red and tokens of each, in their order."""
    rows = []
    for x, y in dataset:
        for red, tokens, label in zip(x["image"][:, 0, 0, 0], x["text"], y["label"], strict=True):
            rows.append((int(label), round(float(red) * 255), tuple(tokens.numpy().tolist())))
    return rows


def same(a, b):
    tf.nest.map_structure(lambda x, y: np.testing.assert_array_equal(x, y), list(a), list(b))


def fault(call, *arguments, **options):
    """The one line of the DataError that a call raises."""
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Batches --------------------------------------------------------------------------------------------------------------


def test_every_row_once_with_its_own_picture_text_and_label():
    split = numbered()
    prepared = fitted(split)
    words = layer(prepared.inputs, TokenizeText).vocabulary
    for training, epoch in ((False, None), (True, None), (True, 3)):
        rows = rows_of(batches(split, prepared, 6, training=training, epoch=epoch))
        assert sorted(label for label, _, _ in rows) == list(range(20))
        for label, red, tokens in rows:
            assert red == label
            assert words[tokens[0]] == f"w{label}"
        assert (rows == sorted(rows)) is not training


def test_batches_are_a_function_of_seed_and_epoch():
    split = numbered()
    augment = Augment({"image": "image", "text": "text"}, flip=True, shift=0.2, color=0.5, token_dropout=0.3)
    prepared = fitted(split, augment=augment)

    def read(**options):
        return list(batches(split, prepared, 6, **options))

    first = read(seed=3, epoch=2)
    same(first, read(seed=3, epoch=2))
    same(first[2:], read(seed=3, epoch=2, first_step=2))
    for other in ({"seed": 3, "epoch": 1}, {"seed": 4, "epoch": 2}):
        changed = read(**other)
        assert [y["label"].numpy().tolist() for _, y in first] != [y["label"].numpy().tolist() for _, y in changed]
        order = np.argsort(np.concatenate([y["label"] for _, y in first]))
        other_order = np.argsort(np.concatenate([y["label"] for _, y in changed]))
        pixels = np.concatenate([x["image"] for x, _ in first])[order]
        assert abs(pixels - np.concatenate([x["image"] for x, _ in changed])[other_order]).max() > 0.05


def test_a_large_seed_is_a_seed():
    split = numbered(4)
    prepared = fitted(split, augment=Augment({"image": "image"}, flip=True))
    assert len(list(batches(split, prepared, 2, seed=2**31 - 1, epoch=9))) == 2


def test_a_preprocessor_that_was_not_fitted_is_told():
    with pytest.raises(DataError, match="knows no value of `label`. Fit it on training rows first"):
        numbered(4).batches(preprocessor())


def test_epochs_without_a_number_differ_from_pass_to_pass():
    split = numbered()
    dataset = batches(split, fitted(split, augment=Augment({"image": "image"}, shift=0.3)), 20)
    first, second = rows_of(dataset), rows_of(dataset)
    assert first != second
    assert sorted(row[0] for row in first) == sorted(row[0] for row in second)


def test_only_the_training_split_is_shuffled_and_augmented():
    train = numbered()
    prepared = fitted(train, augment=Augment({"image": "image"}, erase=1.0))
    test = train.take(range(20), name="test")
    (x, y), *_ = batches(test, prepared, 20)
    assert y["label"].numpy().tolist() == list(range(20))
    assert float(tf.reduce_max(x["image"])) < 0.9  # nothing was painted white
    (x, _), *_ = test.batches(prepared, 20, training=True)
    assert float(tf.reduce_max(x["image"])) == 1.0


def test_uneven_last_batch():
    split = numbered(10)
    prepared = fitted(split)
    assert [len(y["label"]) for _, y in batches(split, prepared, 4)] == [4, 4, 2]
    assert [len(y["label"]) for _, y in batches(split, prepared, 4, drop_remainder=True)] == [4, 4]


@pytest.mark.parametrize(("drop_remainder", "first_step"), [(False, 0), (True, 1)])
def test_a_large_batch_is_prepared_in_pieces(monkeypatch, drop_remainder, first_step):
    split = numbered(29)
    pre = fitted(split)
    options = {"batch_size": 8, "epoch": 1, "drop_remainder": drop_remainder, "first_step": first_step}
    whole = batches(split, pre, **options)
    assert [pipeline_module._piece(size) for size in (512, 8192, 521)] == [512, 512, 521]  # a prime stays whole
    monkeypatch.setattr(pipeline_module, "MOST_ROWS", 5)  # four divides eight
    pieces = batches(split, pre, **options)
    assert int(pieces.cardinality()) == int(whole.cardinality()) == (2 if drop_remainder else 4)
    same(pieces, whole)


def test_without_targets_a_batch_is_inputs_alone():
    split = numbered(4)
    (batch,) = batches(split, fitted(split, label=False), 4)
    assert len(batch) == 1
    assert set(batch[0]) == {"image", "text"}
    x, y = fitted(split)({"image": tf.constant([b""]), "text": tf.constant(["w1"])})
    assert y is None
    assert set(x) == {"image", "text"}


@pytest.mark.parametrize("epoch", [None, 1])
def test_cached_and_uncached_batches_are_equal(monkeypatch, tmp_path, epoch):
    split = numbered()
    for i, cell in enumerate(split.cells("image")):
        (tmp_path / f"{i}.png").write_bytes(cell)
    paths = split.replace({"image": [str(tmp_path / f"{i}.png") for i in range(20)]}, {})
    augment = Augment({"image": "image", "text": "text"}, flip=True, zoom=0.2, gray=0.5, token_dropout=0.3)
    prepared = fitted(split, augment=augment)
    options = {"training": epoch is not None, "seed": 1, "epoch": epoch}
    cached = list(batches(split, prepared, 6, **options))
    assert len(split.arrays) == 1
    monkeypatch.setattr(pipeline_module, "CACHE_BYTES", 0)
    for source in (split.take(range(20)), paths):
        same(cached, batches(source, prepared, 6, **options))
        assert not source.arrays


def test_cache_belongs_to_its_preprocessor():
    split = numbered(6)
    for length in (3, 5):
        prepared = fitted(split, length=length)
        (x, _), *_ = batches(split, prepared, 6)
        assert x["text"].shape == (6, length)


def test_a_preprocessor_fitted_again_reads_the_rows_again():
    split = numbered(6)
    prepared = fitted(split)
    (before, _), *_ = split.batches(prepared, 6, training=False)
    other = split.replace({"text": ["quite other words"] * 6}, {})
    adapt(prepared, other)
    (after, _), *_ = split.batches(prepared, 6, training=False)
    assert set(after["text"].numpy().ravel()) == {0, 1, 3}  # none of its words is known any more
    assert not (before["text"].numpy() == 1).any()


def test_one_of_several_captions_is_drawn_in_training_and_the_first_otherwise():
    split = numbered(60, several=True)
    prepared = fitted(split)
    words = layer(prepared.inputs, TokenizeText).vocabulary

    def seconds(**options):
        return {label: words[tokens[1]] for label, _, tokens in rows_of(batches(split, prepared, 32, **options))}

    assert set(seconds(training=False).values()) == {"first"}
    epochs = [seconds(epoch=epoch) for epoch in range(6)]
    assert seconds(epoch=4) == epochs[4]
    drawn = [word for epoch in epochs for word in epoch.values()]
    for word in ("first", "second", "third"):
        assert 80 < drawn.count(word) < 160  # of 360: 120 expected, 9 the deviation
    assert sum(len({epoch[label] for epoch in epochs}) > 1 for label in range(60)) > 50


def test_captions_that_are_targets_are_drawn_too():
    split = numbered(several=True)
    caption = {"text": raw("text")}
    targets = keras.Model(caption, {"text": TokenizeText(4)(caption["text"])})
    model = Preprocessor(preprocessor(text=False).inputs, targets)
    adapt(model, split)
    words = layer(model.targets, TokenizeText).vocabulary
    drawn = {words[i] for epoch in range(3) for _, y in batches(split, model, 20, epoch=epoch) for i in y["text"][:, 1]}
    assert drawn == {"first", "second", "third"}


def test_raw_batches_are_the_cells(tmp_path):
    contents = [png(np.full((2, 2, 3), i)) for i in range(3)]
    (tmp_path / "0.png").write_bytes(contents[0])
    split = split_of(
        image=[str(tmp_path / "0.png"), "", str(tmp_path / "0.png")],
        text=[["a", "b"], "c", ""],
        tags=[["x", "y"], [], ["z"]],
        vector=[[1.0, 2.0], [], [3.0, 4.0]],
    )
    (first, second) = data.raw_batches(split, ["image", "text", "tags", "vector"], 2)
    assert first["image"].numpy().tolist() == [contents[0], b""]
    assert first["text"].numpy().tolist() == [b"a", b"c"]
    assert first["tags"].numpy().tolist() == [b"x\ty", b""]
    np.testing.assert_array_equal(first["vector"], [[1, 2], [np.nan, np.nan]])
    assert second["text"].numpy().tolist() == [b""]
    mixed = split_of(image=[contents[1], "", b""])
    (batch,) = data.raw_batches(mixed, ["image"], 3)
    assert batch["image"].numpy().tolist() == [contents[1], b"", b""]


# Fitting --------------------------------------------------------------------------------------------------------------


def test_words_are_in_order_of_frequency_then_of_the_alphabet():
    split = split_of(text=["b a b c", ["b a", "d"], "", "C"])
    prepared = preprocessor(image=False, label=False)
    adapt(prepared, split)
    tokenizer = layer(prepared.inputs, TokenizeText)
    assert tokenizer.words == ("b", "a", "c", "d")
    assert tokenizer(np.array(["b a zebra"])).numpy().tolist() == [[4, 5, 1, 3, 0, 0, 0, 0]]
    adapt(prepared, split, vocabulary_size=6)
    assert tokenizer.vocabulary == ("", "[UNK]", "[START]", "[END]", "b", "a")


def test_counting_in_chunks_is_counting(monkeypatch):
    texts = [f"w{i % 7} w{i % 3}" for i in range(50)]
    tokenizer = TokenizeText(4)
    whole = count_words(tokenizer, texts)
    monkeypatch.setitem(count_words.__globals__, "_CHUNK", 8)  # `mmkeras.data.adapt` is the function of that name
    assert count_words(tokenizer, texts) == whole
    assert whole[:3] == ["w0", "w1", "w2"]


def test_a_text_may_hold_the_names_of_special_tokens():
    tokenizer = TokenizeText(4, lower=False, punctuation="keep")
    words = count_words(tokenizer, ["a [UNK] b", "[END] a"])
    assert words[0] == "a"
    tokenizer.set_vocabulary(words)
    assert tokenizer(tf.constant(["a [UNK]"])).numpy().tolist()[0][:2] == [4, 1]


def test_all_texts_share_one_vocabulary():
    inputs = {"text": raw("text"), "question": raw("question")}
    model = keras.Model(inputs, {name: TokenizeText(4)(x) for name, x in inputs.items()})
    adapt(Preprocessor(model), split_of(text=["one two"], question=["two three"]))
    assert [layer.words for layer in model.layers if isinstance(layer, TokenizeText)] == [("two", "one", "three")] * 2


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["b", "a", "", "b"], ["a", "b"]),
        (["10", "9", "-1", "2.5"], ["-1", "2.5", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        ([["b", "c"], [], ["a"]], ["a", "b", "c"]),
    ],
)
def test_labels_are_numbers_by_value_or_words_by_alphabet(cells, labels):
    assert data.labels_of(split_of(label=cells), "label") == labels


def test_fitting_needs_something_to_fit():
    assert "no text at all" in fault(adapt, preprocessor(image=False, label=False), split_of(text=["", ""]))
    assert "`label`" in fault(adapt, preprocessor(text=False), split_of(image=[b"", b""], label=["", ""]))
    assert "no column `text`" in fault(adapt, preprocessor(image=False), split_of(label=["a"]))


def test_vectors_are_standardised_without_absent_rows_and_nan():
    split = split_of(vector=[[1.0, 10.0], [], [3.0, 10.0], [float("nan"), 5.0], [5.0, 10.0]])
    prepared = fitted(split, image=False, text=False, label=False, vector=2)
    ((x,),) = batches(split, prepared, 5, training=False)
    np.testing.assert_allclose(
        x["vector"], [[-np.sqrt(1.5), 0], [0, 0], [0, 0], [0, -5], [np.sqrt(1.5), 0]], rtol=1e-5, atol=1e-6
    )


# Augmentation ---------------------------------------------------------------------------------------------------------

EVERYTHING = {
    "flip": True, "shift": 0.2, "zoom": 0.2, "rotate": 20.0, "color": 0.4, "gray": 0.3, "erase": 0.5,
    "token_dropout": 0.3,
}  # fmt: skip
KINDS = {"image": "image", "text": "text", "vector": "vector"}


def inputs_to_change(num_rows=32, height=12, width=12):
    random = np.random.default_rng(0)
    return {
        "image": tf.constant(random.random((num_rows, height, width, 3)), tf.float32),
        "text": tf.constant([[5, 6, 7, 1, 3, 0, 0]] * num_rows, tf.int32),
        "vector": tf.constant(random.random((num_rows, 2)), tf.float32),
    }


def test_augmentation_is_a_function_of_the_seed():
    inputs = inputs_to_change()
    augment = Augment(KINDS, **EVERYTHING)
    changed, again = augment(inputs, (3, 4)), augment(inputs, (3, 4))
    same([changed], [again])
    for seed in ((3, 5), (4, 4)):
        other = augment(inputs, seed)
        assert abs(changed["image"] - other["image"]).numpy().max() > 0.1
        assert (changed["text"] != other["text"]).numpy().any()


def test_augmentation_of_no_strength_changes_nothing():
    inputs = inputs_to_change()
    changed = Augment(KINDS)(inputs, (0, 0))
    assert all(np.array_equal(changed[name], inputs[name]) for name in inputs)


@pytest.mark.parametrize("only", EVERYTHING)
def test_each_strength_changes_what_it_should_and_no_more(only):
    inputs = inputs_to_change()
    changed = Augment(KINDS, **{only: EVERYTHING[only]})(inputs, (1, 2))
    np.testing.assert_array_equal(changed["vector"], inputs["vector"])
    what, other = ("text", "image") if only == "token_dropout" else ("image", "text")
    np.testing.assert_array_equal(changed[other], inputs[other])
    assert (changed[what] != inputs[what]).numpy().any()
    assert changed["image"].numpy().min() >= 0
    assert changed["image"].numpy().max() <= 1
    assert changed["image"].dtype == tf.float32


def test_flip_mirrors_half_of_the_pictures_exactly():
    x = inputs_to_change(200, 5, 8)["image"]
    changed = Augment({"image": "image"}, flip=True)({"image": x}, (0, 7))["image"].numpy()
    mirrored = [np.allclose(c, o[:, ::-1], atol=1e-5) for c, o in zip(changed, x.numpy(), strict=True)]
    kept = [np.allclose(c, o, atol=1e-5) for c, o in zip(changed, x.numpy(), strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


def test_shift_moves_a_pixel_by_a_share_of_the_side():
    height, width, num_rows = 32, 64, 300
    x = np.ones((num_rows, height, width, 1), "float32")
    x[:, 15, 30] = 0
    changed = Augment({"image": "image"}, shift=0.25)({"image": tf.constant(x)}, (0, 1))["image"].numpy()
    dark = 1 - changed[..., 0]
    np.testing.assert_allclose(dark.sum((1, 2)), 1, atol=1e-3)  # between four pixels, but all of it
    down = (dark.sum(2) * np.arange(height)).sum(1) - 15
    across = (dark.sum(1) * np.arange(width)).sum(1) - 30
    for moved, most in ((down, 0.25 * height), (across, 0.25 * width)):
        assert 0.95 * most < moved.max() <= most + 1e-3
        assert -most - 1e-3 <= moved.min() < -0.95 * most
        assert abs(moved.mean()) < 0.1 * most
    assert abs(np.corrcoef(down, across)[0, 1]) < 0.2


def test_zoom_and_rotation_keep_the_middle():
    x = np.ones((100, 33, 33, 1), "float32")
    x[:, 16, 16] = x[:, 16, 26] = 0
    for options, low, high in (({"rotate": 30.0}, 9.5, 10.5), ({"zoom": 0.3}, 6.4, 14.5)):
        dark = 1 - Augment({"image": "image"}, **options)({"image": tf.constant(x)}, (0, 1))["image"].numpy()[..., 0]
        assert dark[:, 16, 16].min() > 0.99
        dark[:, 12:21, 12:21] = 0
        rows, columns = np.mgrid[:33, :33] - 16
        mass = dark.sum((1, 2))
        down, across = (dark * rows).sum((1, 2)) / mass, (dark * columns).sum((1, 2)) / mass
        radius = np.hypot(down, across)
        assert low < radius.min() < radius.max() < high
        assert "rotate" in options or (radius.min() < 8 and radius.max() > 12.5)
        angles = np.degrees(np.arctan2(down, across))
        most = options.get("rotate", 0)
        assert abs(angles).max() < most + 3
        assert most == 0 or (angles.max() > 0.8 * most and angles.min() < -0.8 * most)


def test_gray_and_erase_change_the_share_they_say():
    x = tf.constant(np.random.default_rng(0).random((400, 16, 16, 3)) * 0.9, tf.float32)
    gray = Augment({"image": "image"}, gray=0.25)({"image": x}, (0, 1))["image"].numpy()
    lost = gray.std(axis=-1).max((1, 2)) < 1e-6
    assert 70 < lost.sum() < 130
    np.testing.assert_array_equal(gray[~lost], x.numpy()[~lost])
    np.testing.assert_allclose(gray[lost][..., 0], x.numpy()[lost].mean(-1), atol=1e-6)
    erased = Augment({"image": "image"}, erase=0.25)({"image": x}, (0, 1))["image"].numpy()
    white = (erased == 1).all(-1)
    assert 70 < white.any((1, 2)).sum() < 130
    for hole in white[white.any((1, 2))]:
        down, across = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(down) * len(across)  # one rectangle
    np.testing.assert_array_equal(erased[~white], x.numpy()[~white])


def test_token_dropout_keeps_end_and_padding():
    text = inputs_to_change(2000)["text"]
    changed = Augment({"text": "text"}, token_dropout=0.25)({"text": text}, (0, 1))["text"].numpy()
    np.testing.assert_array_equal(changed[:, 3:], text.numpy()[:, 3:])
    words = changed[:, :3]
    assert set(words[words != text.numpy()[:, :3]]) == {1}
    np.testing.assert_allclose((words == 1).mean(0), 0.25, atol=0.04)


# Bad rows -------------------------------------------------------------------------------------------------------------


def crafted_png(width, height):
    """A PNG that claims a size and holds nothing of it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e" + b"\x00\x00\x00\x00IEND\xaeB`\x82"


GOOD = [
    {"image": "good.png", "text": "a circle", "label": "x"},
    {"image": "good.png", "text": "a square", "label": "y"},
    {"image": "good.png", "text": "a ring", "label": "x"},
]
MODALITIES = {"image": "image", "text": "text"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "good.png").write_bytes(png(np.random.default_rng(0).integers(0, 255, (40, 40, 3))))
    return tmp_path


def opened(folder, rows, name="rows.jsonl", **options):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_split(folder / name, "train", **options)


BAD_ROWS = {
    "missing image": ({"image": "no.png", "text": "a", "label": "x"}, "there is no file"),
    "no picture": ({"image": "text.png", "text": "a", "label": "x"}, "is no picture"),
    "huge picture": ({"image": "huge.png", "text": "a", "label": "x"}, "pixels, more than the 33,554,432"),
    "other format": ({"image": "good.tiff", "text": "a", "label": "x"}, "TIFF file; expected PNG, JPEG, GIF or BMP"),
    "no path": ({"image": 3, "text": "a", "label": "x"}, "expected a path to a file, got 3"),
    "number for a text": ({"image": "good.png", "text": 7, "label": "x"}, "expected a text or a list of texts, got 7"),
    "all absent": ({"image": "", "text": "", "label": "x"}, "every modality is absent"),
    "columns missing": ({"label": "x"}, "every modality is absent"),
    "empty target": ({"image": "good.png", "text": "a", "label": ""}, "the target `label` is empty"),
    "no target": ({"image": "good.png", "text": "a"}, "the target `label` is empty"),
    "unseen label": ({"image": "good.png", "text": "a", "label": "z"}, "'z' does not occur in the training split"),
    "list for a label": ({"image": "good.png", "text": "a", "label": ["x"]}, "expected a label, got ['x']"),
}


def spoil(folder):
    (folder / "text.png").write_text("this is no picture")
    (folder / "huge.png").write_bytes(crafted_png(50_000, 50_000))
    Image.new("RGB", (3, 3)).save(folder / "good.tiff")


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_row_is_told_with_file_row_and_what_to_do(folder, capsys, case):
    row, reason = BAD_ROWS[case]
    spoil(folder)
    split = opened(folder, [*GOOD[:2], row, GOOD[2]])
    known = {"label": ["x", "y"]}
    message = fault(checked, split, MODALITIES, ("label",), known=known)
    assert message.startswith("rows.jsonl, row 3: ")
    assert reason in message
    assert "Correct the file" in message
    assert "--skip-bad" in message
    good = checked(split, MODALITIES, ("label",), known=known, skip_bad=True)
    assert good.cells("text") == ["a circle", "a square", "a ring"]
    assert good.where(2) == "rows.jsonl, row 4"
    printed = capsys.readouterr().out
    assert "1 bad rows left out, 3 kept" in printed
    assert reason in printed


def test_every_bad_row_at_once(folder, capsys):
    spoil(folder)
    rows = [row for row, _ in BAD_ROWS.values()]
    split = opened(folder, [*rows, *GOOD])
    message = fault(checked, split, MODALITIES, ("label",), known={"label": ["x", "y"]})
    assert f"({len(rows) - 1} more rows are bad.)" in message
    good = checked(split, MODALITIES, ("label",), known={"label": ["x", "y"]}, skip_bad=True)
    assert len(good) == 3
    assert f"{len(rows)} bad rows left out, 3 kept" in capsys.readouterr().out
    only_bad = opened(folder, rows[:2])
    assert "no usable row" in fault(checked, only_bad, MODALITIES, ("label",), skip_bad=True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"', "expected a JSON object"),
        ("no json", "expected a JSON object, got 'no json'"),
        ("[1, 2]", "expected a JSON object, got '[1, 2]'"),
        ('"text"', "expected a JSON object"),
        ("x" * 5000, "…"),
    ],
)
def test_row_that_is_no_json_object(folder, capsys, line, reason):
    message = fault(opened, folder, [GOOD[0], line, GOOD[1], "[]"])
    assert message.startswith("rows.jsonl, row 2: ")
    assert reason in message
    assert "(1 more rows are bad.)" in message
    assert "--skip-bad" in message
    assert len(message) < 400
    split = opened(folder, [GOOD[0], line, GOOD[1]], skip_bad=True)
    assert split.cells("text") == ["a circle", "a square"]
    assert split.where(1) == "rows.jsonl, row 3"
    assert "skipped: rows.jsonl, row 2" in capsys.readouterr().out


def test_bytes_that_are_no_utf8(folder):
    (folder / "rows.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff\xfe"}\n')
    assert "rows.jsonl, row 2" in fault(data.open, folder / "rows.jsonl")


def test_csv_row_with_another_number_of_fields(folder, capsys):
    rows = ["text,label", "one,x", 'two,"x",more', '"three, with comma",x', "four"]
    message = fault(opened, folder, rows, "rows.csv")
    assert message.startswith("rows.csv, row 3: expected 2 fields, got 3.")
    assert "(1 more rows are bad.)" in message
    split = opened(folder, rows, "rows.csv", skip_bad=True)
    assert split.cells("text") == ["one", "three, with comma"]
    assert capsys.readouterr().out.count("skipped:") == 2


def test_csv_with_two_columns_of_one_name(folder):
    message = fault(opened, folder, ["text,label,text", "a,x,b"], "rows.csv")
    assert message == "rows.csv, row 1: two columns are called 'text'. Give them different names."


@pytest.mark.parametrize("cell", ["path", "bytes"])
def test_broken_picture_found_late_is_told_with_its_row(folder, monkeypatch, cell):
    """Its header is in order, so that the check of the rows lets it pass."""
    whole = (folder / "good.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    paths = [str(folder / "good.png"), str(folder / "torn.png"), ""]
    cells = paths if cell == "path" else [pathlib.Path(path).read_bytes() if path else b"" for path in paths]
    split = split_of(image=cells, text=["a", "b", "c"])
    prepared = preprocessor(label=False)
    adapt(prepared, split)
    monkeypatch.setattr(pipeline_module, "CACHE_BYTES", 0)
    message = fault(through, split, prepared)
    assert ", row 2: " in message
    assert "is broken" in message
    assert "--skip-bad" in message


def through(split, prepared):
    with data.naming_rows(split, prepared):
        return list(batches(split, prepared, 2))


def test_the_graph_that_reads_is_traced_once_for_all_passes(monkeypatch):
    monkeypatch.setattr(pipeline_module, "CACHE_BYTES", 0)
    split, prepared = data.open("scenes:40").train, preprocessor(label=False)
    adapt(prepared, split)
    for epoch in range(3):
        sizes = [len(x["text"]) for (x,) in batches(split, prepared, 7, epoch=epoch, training=True)]
        assert len(set(sizes)) == 2  # one is uneven
    assert prepared.graph.experimental_get_tracing_count() == 1


ENDS = """
import sys
from mmkeras import data
from mmkeras.data import pipeline
import zoo

pipeline.CACHE_BYTES = 0
split, prepared = data.open("scenes:200").train, zoo.preprocessor("autoencoder", "tiny")
data.adapt(prepared, split)
left = [iter(data.batches(split, prepared, 2, epoch=0)) for _ in range(3)]
for batches in left:
    next(batches)
print("batches are left")
if sys.argv[1] == "fault":
    raise KeyboardInterrupt
"""


@pytest.mark.parametrize("how", ["end", pytest.param("fault", marks=pytest.mark.long)])
def test_a_process_ends_while_batches_are_prepared(how):
    done = subprocess.run([sys.executable, "-c", ENDS, how], capture_output=True, text=True, timeout=100)
    assert done.stdout == "batches are left\n"
    assert (done.returncode == 0) == (how == "end")
    assert ("KeyboardInterrupt" in done.stderr) == (how == "fault")


def test_column_that_does_not_exist(folder):
    split = opened(folder, GOOD)
    message = fault(checked, split, {"image": "image", "txt": "text"})
    assert "rows.jsonl has no column `txt`" in message
    assert "Did you mean `text`?" in message
    assert "--columns" in message


@pytest.mark.parametrize(
    ("name", "content"), [("rows.jsonl", ""), ("rows.jsonl", "\n\n"), ("rows.csv", ""), ("rows.csv", "text,label\n")]
)
def test_empty_file(folder, name, content):
    (folder / name).write_text(content)
    message = fault(data.open, folder / name)
    assert name in message
    assert "is empty" in message


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
@pytest.mark.parametrize("size", [100_000, 500_000])
def test_a_very_long_text_works(folder, name, size):
    text = "word " * (size // 5)
    rows = [json.dumps({"text": text})] if name.endswith("jsonl") else ["text,label", f"{text},x"]
    split = checked(opened(folder, rows, name), {"text": "text"})
    assert split.cells("text") == [text]
    prepared = fitted(split, image=False, label=False)
    ((x,),) = batches(split, prepared, 1)
    assert x["text"].numpy().tolist() == [[4] * 7 + [3]]


def test_huge_picture_is_refused_from_its_header(folder):
    spoil(folder)
    start = time.perf_counter()
    reason = data.picture_fault(str(folder / "huge.png"))
    assert time.perf_counter() - start < 1
    assert "more than the 33,554,432" in reason
    (folder / "large.png").write_bytes(crafted_png(9_000, 9_000))  # Pillow itself only warns of this one
    assert "9000 x 9000 pixels" in data.picture_fault(str(folder / "large.png"), decode=False)


def saved(kind, size=(40, 40), frames=1):
    random, buffer = np.random.default_rng(0), io.BytesIO()
    pictures = [Image.fromarray(random.integers(0, 255, (*size, 3), "uint8")) for _ in range(frames)]
    pictures[0].save(buffer, kind, **({"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}))
    return buffer.getvalue()


JPEG, BMP, GIF = saved("JPEG"), saved("BMP"), saved("GIF", frames=4)


@pytest.mark.parametrize(
    ("picture", "fault"),
    [
        (JPEG, None),
        (JPEG + b"SEFT" + bytes(300), None),  # telephones write more behind the end
        (JPEG[:-100], "is broken (image file is truncated"),
        (saved("JPEG", (4_800, 7_200)), "has 7200 x 4800 pixels, more than the 33,554,432"),
        (BMP + bytes(2), None),  # some are padded
        (BMP[:-2], "is broken (image file is truncated"),
        (GIF, None),
        (GIF[: len(GIF) * 3 // 4], "is cut off"),
    ],
)
def test_the_check_refuses_what_training_cannot_read_and_nothing_else(picture, fault):
    read = DecodeImage((SIZE, SIZE))
    found = data.picture_fault(picture)
    if fault is None:
        assert found is None
        np.testing.assert_allclose(read(tf.constant([picture]))[0], expected_pixels(picture), atol=0.06)
    else:
        assert fault in found
        with pytest.raises(tf.errors.InvalidArgumentError):
            read(tf.constant([picture]))


def expected_pixels(picture):
    """As Pillow reads and shrinks it."""
    small = Image.open(io.BytesIO(picture)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(small) / 255


def test_a_gif_that_is_cut_anywhere_is_told():
    for end in range(13, len(GIF), len(GIF) // 40):
        assert "the picture of" in data.clip_fault(GIF[:end])
        assert end > len(GIF) // 4 or "the picture of" in data.picture_fault(GIF[:end])  # takes the first frame
    assert data.clip_fault(GIF) is None


def test_picture_that_is_cut_off(folder):
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    split = opened(folder, [GOOD[0], {**GOOD[1], "image": "cut.png"}, GOOD[2]])
    assert len(checked(split, MODALITIES)) == 3  # the header is fine
    message = fault(checked, split, MODALITIES, decode=True)
    assert message.startswith("rows.jsonl, row 2: ")
    assert "cut.png is broken" in message
    good = checked(split, MODALITIES, ("label",), skip_bad=True)
    assert good.cells("text") == ["a circle", "a ring"]
    prepared = fitted(good)
    assert len(list(batches(good, prepared, 1))) == 2
    message = fault(batches, checked(split, MODALITIES, ("label",)), prepared)
    assert message.startswith("rows.jsonl, row 2: ")
    assert "cut.png is broken" in message
    assert "--skip-bad" in message


@pytest.mark.parametrize(
    ("kind", "good", "bad", "reason"),
    [
        ("vector", [1, 2.5], [1, 2, 3], "expected 2 numbers in `vector`, got 3"),
        ("vector", "1 2", "1 two", "expected numbers, got '1 two'"),
        ("vector", [1, 2], ["1", "2"], "expected a list of numbers"),
        ("vector", [1, 2], 5, "expected a list of numbers, got 5"),
    ],
)
def test_bad_vectors(folder, kind, good, bad, reason):
    split = opened(folder, [{kind: good}, {kind: bad}, {kind: good}])
    message = fault(checked, split, {kind: kind})
    assert message.startswith(f"rows.jsonl, row 2: {reason}")
    rest = checked(split, {kind: kind}, skip_bad=True)
    assert rest.cells(kind) == [[1, 2.5 if good == [1, 2.5] else 2]] * 2


def test_most_rows_say_how_wide_a_vector_is(folder):
    split = opened(folder, [{"vector": v} for v in ([1, 2, 3], [1, 2], [], [3, 4])])
    assert "row 1: expected 2 numbers in `vector`, got 3" in fault(checked, split, {"vector": "vector"})


def test_vectors_are_as_wide_as_in_training(folder):
    train = split_of(vector=[[1.0, 2.0], [3.0, 5.0]], text=["a", "b"])
    prepared = fitted(train, image=False, vector=2, label=False)
    wider = split_of("test", vector=[[1.0, 2.0, 3.0], [1.0, 2.0]], text=["a", "b"])
    message = fault(wider.batches, prepared)
    assert message.startswith("rows.jsonl, row 1: expected 2 numbers in `vector`, got 3")
    absent = split_of("test", vector=[[], []], text=["a", "b"])
    ((x,),) = absent.batches(prepared, training=False)
    np.testing.assert_array_equal(x["vector"], np.zeros((2, 2)))
    lines, num_bad = data.report(Source("rows.jsonl", {"test": wider, "train": train}))
    assert num_bad == 1
    assert any("row 1: expected 2 numbers in `vector`, got 3" in line for line in lines)


def test_a_vector_that_is_predicted_is_looked_at_as_others_are(folder):
    rows = [{"text": "a", "v": v} for v in ([1, 2], [], [3, 4], [5])]
    split = opened(folder, rows).replace({}, {"v": "vector"})
    assert "row 2: the target `v` is empty" in fault(checked, split, {"text": "text"}, ("v",))
    (folder / "rows.jsonl").unlink()
    split = opened(folder, [rows[0], *rows[2:]]).replace({}, {"v": "vector"})
    assert "row 3: expected 2 numbers in `v`, got 1" in fault(checked, split, {"text": "text"}, ("v",))


@pytest.mark.parametrize(("tags", "reason"), [(7, "expected a list of tags, got 7"), ([["a"]], "a list of tags"),
                                              ([], "the target `tags` is empty"), ("[1", "Expecting")])  # fmt: skip
def test_bad_tags(folder, tags, reason):
    split = opened(folder, [{"text": "a", "tags": ["x", "y"]}, {"text": "b", "tags": tags}])
    message = fault(checked, split, {"text": "text"}, ("tags",))
    assert message.startswith("rows.jsonl, row 2: ")
    assert reason in message
    assert checked(split, {"text": "text"}, ("tags",), skip_bad=True).cells("tags") == [["x", "y"]]


def test_unseen_tag(folder):
    split = opened(folder, [{"text": "a", "tags": ["x"]}, {"text": "b", "tags": ["x", "new"]}])
    message = fault(checked, split, {"text": "text"}, ("tags",), known={"tags": ["x"]})
    assert "row 2: the tag 'new' does not occur" in message


def test_two_pictures_a_row_are_both_looked_at(folder):
    split = opened(folder, [{"left": "good.png", "right": "good.png"}, {"left": "good.png", "right": "no.png"}])
    assert "row 2: there is no file" in fault(checked, split, {"left": "image", "right": "image"})


# What works -----------------------------------------------------------------------------------------------------------


def test_pictures_of_every_sort_work(folder):
    frames = [Image.new("RGB", (SIZE, SIZE), color) for color in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (SIZE, SIZE), 51).save(folder / "gray.png")
    Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 51)).save(folder / "alpha.png")
    Image.fromarray(np.full((SIZE, SIZE), 51 * 257, "uint16")).save(folder / "deep.png")
    Image.new("RGB", (SIZE, SIZE), (0, 255, 0)).save(folder / "a.bmp")
    Image.new("L", (SIZE, SIZE), 102).save(folder / "gray.jpg")
    expected = {
        "a.gif": (1, 0, 0), "gray.png": (0.2,) * 3, "alpha.png": (0.8,) * 3, "deep.png": (0.2,) * 3,
        "a.bmp": (0, 1, 0), "gray.jpg": (0.4,) * 3, "": (0, 0, 0),
    }  # fmt: skip
    split = checked(opened(folder, [{"image": name, "text": "a"} for name in expected]), MODALITIES, decode=True)
    assert len(split) == 7
    ((x,),) = batches(split, fitted(split, label=False), 7, training=False)
    colors = np.broadcast_to(np.array(list(expected.values()))[:, None, None], (7, SIZE, SIZE, 3))
    np.testing.assert_allclose(x["image"], colors, atol=0.005)


def test_rows_may_lack_a_modality(folder):
    split = checked(opened(folder, [GOOD[0], {"image": "", "text": "words"}, {"image": "good.png"}]), MODALITIES)
    assert split.cells("text") == ["a circle", "words", ""]
    prepared = fitted(split, label=False)
    ((x,),) = batches(split, prepared, 3, training=False)
    assert tf.reduce_max(x["image"][1]) == 0
    assert tf.reduce_max(x["image"][2]) > 0
    assert x["text"][2].numpy().tolist() == [3] + [0] * 7


def test_report_tells_what_is_there(folder):
    turned = Image.new("RGB", (4, 8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    rows = [GOOD[0], {"image": "turned.jpg", "text": "a"}, {"image": "no.png", "text": "b"}, {"image": "", "text": "c"}]
    source = Source("rows.jsonl", {"train": opened(folder, rows)})
    lines, num_bad = data.report(source, MODALITIES)
    assert lines[0] == "train: 4 rows, 1 bad"
    assert lines[1] == f"  {opened(folder, rows).where(2)}: there is no file {folder / 'no.png'}."
    assert num_bad == 1
    assert data.report(source)[0] == lines  # of itself it takes every column of a known kind
    assert "  image: absent in 1 rows" in lines
    (line,) = [line for line in lines if "EXIF" in line]
    assert "1 pictures are turned" in line
    assert "turned.jpg" in line
    assert len(lines) == 5  # with that of the empty labels


def test_report_names_no_more_than_twenty_bad_rows(folder):
    rows = [GOOD[0], *[{"image": f"no-{i}.png", "text": "a"} for i in range(23)]]
    lines, num_bad = data.report(Source("rows.jsonl", {"train": opened(folder, rows)}), MODALITIES)
    assert num_bad == 23
    assert ["no-19.png" in lines[20], *lines[21:22]] == [True, "  and 3 more"]


def test_pictures_are_found_beside_their_table_before_and_after_rows_are_checked(tmp_path, monkeypatch):
    source = data.scenes(24)
    folder = tmp_path / "table"
    folder.mkdir()
    rows = [json.dumps({"image": f"{i}.png"}) for i in range(3)]
    for i in range(3):
        (folder / f"{i}.png").write_bytes(source.train.cells("image")[i])
    (folder / "train.jsonl").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    for place in ("table", str(folder)):
        split = data.open(place).split("train")
        for one in (split, data.checked(split, {"image": "image"})):
            (batch,) = data.raw_batches(one, ["image"])
            assert batch["image"].numpy().tolist() == source.train.cells("image")[:3]
