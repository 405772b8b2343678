"""Sort-of-CLEVR: its answers are what the pixels show, its codes and sentences say which question it is."""

import dataclasses

import keras
import numpy as np
import pytest

from zoo import build
from zoo.protocols import sort_of_clevr as protocol

SENTENCES = [sentence for kind in protocol.KINDS for sentence in protocol.SENTENCES[kind]]


@pytest.fixture(scope="module")
def generated():
    return protocol.generate(300, seed=1)


def objects(pixels):
    """`{colour: (row, column, circle)}` as seen; None where an object lies upon another."""
    found = {}
    for number, color in enumerate(protocol.COLORS.values()):
        rows, columns = np.nonzero((pixels == color).all(axis=-1))
        if len(rows) not in (81, 100):
            return None
        shift = 0.5 * (len(rows) == 100)  # ten pixels have no middle one
        found[number] = (rows.mean() + shift, columns.mean() + shift, len(rows) == 81)
    return found


def seen_answer(sentence, color, found):
    row, column, circle = found[color]
    near = sorted((np.hypot(row - r, column - c), n) for n, (r, c, _) in found.items())
    if "left" in sentence or "top" in sentence:
        return "yes" if (column if "left" in sentence else row) < 37.5 else "no"
    if "how many" in sentence:
        return str(sum(other == circle for *_, other in found.values()))
    asked = near[1][1] if "nearest" in sentence else near[-1][1] if "furthest" in sentence else color
    return "circle" if found[asked][2] else "square"


def test_answers_are_what_the_pixels_show(generated):
    pictures = seen = 0
    for pixels, colors, kinds, answers in zip(*generated, strict=True):
        found = objects(pixels)
        if found is None:
            continue
        pictures += 1
        for color, kind, answer in zip(colors, kinds, answers, strict=True):
            distances = sorted(np.hypot(found[color][0] - r, found[color][1] - c) for r, c, _ in found.values())
            if "nearest" in SENTENCES[kind] and distances[2] - distances[1] < 1e-6:
                continue
            if "furthest" in SENTENCES[kind] and distances[-1] - distances[-2] < 1e-6:
                continue
            seen += 1
            assert protocol.ANSWERS[answer] == seen_answer(SENTENCES[kind], color, found), SENTENCES[kind]
    assert pictures > 200
    assert seen > 0.95 * 20 * pictures
    assert (generated[2][:, :10] < 3).all()
    assert (generated[2][:, 10:] >= 3).all()


def test_pictures_are_drawn_from_the_seed(generated):
    again, other = protocol.generate(3, seed=1), protocol.generate(3, seed=2)
    assert (again[0] == protocol.generate(3, seed=1)[0]).all()
    assert (again[0] != other[0]).any()


def test_codes_and_sentences_tell_all_questions_apart():
    colors, kinds = (x.ravel() for x in np.meshgrid(np.arange(6), np.arange(6)))
    codes = protocol.code(colors, kinds)
    assert codes.shape == (36, 11)
    assert (codes.sum(axis=1) == 3).all()
    assert len(np.unique(codes, axis=0)) == 36
    ids, number = protocol.words(colors, kinds)
    assert ids.shape == (36, protocol.LENGTH)
    assert len(np.unique(ids, axis=0)) == 36
    assert ids.max() == number - 1
    lengths = [len(SENTENCES[kind].format("red").split()) for kind in kinds]
    assert (np.count_nonzero(ids, axis=1) == lengths).all()


@pytest.mark.parametrize("kind", ["vector", "text"])
def test_a_picture_seen_once_gives_what_it_gives_seen_for_every_question(kind, generated):
    pixels, colors, kinds, _ = (x[:2] for x in generated)
    questions, number = protocol.words(colors, kinds) if kind == "text" else (protocol.code(colors, kinds), 5)
    options = {**protocol.OPTIONS, "vocabulary_size": number, "image_width": 4, "width": 8}
    modalities = {"image": "image", "question": kind}
    model = build("vqa", preset="relation_network", modalities=modalities, **options)
    whole = protocol.once_a_picture(model, 20)
    answers = whole({"image": pixels, "question": questions}, training=False)
    assert answers.shape == (2, 20, 10)
    for i in range(2):
        x = {"image": np.repeat(1 - pixels[i : i + 1] / 255, 20, axis=0).astype("float32"), "question": questions[i]}
        x["presence"] = np.ones((20, 2), "float32")
        expected = keras.ops.convert_to_numpy(model(x, training=False)["answer"])
        np.testing.assert_allclose(answers[i], expected, atol=1e-5)
    assert {id(w) for w in whole.trainable_weights} == {id(w) for w in model.trainable_weights}


def test_portions_ask_every_question_of_a_picture_once(generated):
    pixels, answers = generated[0][:9], generated[3][:9]
    numbers = np.arange(9 * 20).reshape(9, 20, 1)
    straight = list(protocol.portions(pixels, numbers, answers, 4).as_numpy_iterator())
    asked = np.concatenate([x["question"] for x, _ in straight])
    np.testing.assert_array_equal(protocol.in_order(asked), numbers[:, :, 0])
    np.testing.assert_array_equal(protocol.in_order(np.concatenate([y for _, y in straight])), answers)
    shuffled = protocol.portions(pixels, numbers, answers, 4, seed=0)
    orders = []
    for _ in range(2):
        for x, y in shuffled.as_numpy_iterator():
            rows = x["question"][:, :, 0] // 20
            assert (rows == rows[:, :1]).all()
            np.testing.assert_array_equal(x["image"], pixels[rows[:, 0]])
            np.testing.assert_array_equal(y, answers.ravel()[x["question"][:, :, 0]])
            assert 0 < (x["question"] % 20 < 10).mean() < 1
            orders.append(x["question"].ravel())
    first, second = np.array_split(np.concatenate(orders), 2)
    np.testing.assert_array_equal(np.sort(first), np.arange(180))
    np.testing.assert_array_equal(np.sort(second), np.arange(180))
    assert (first != second).any()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(protocol, "PICTURES", {"train": 16, "validation": 4, "test": 4})
    monkeypatch.setattr(protocol, "OPTIONS", {**protocol.OPTIONS, "image_width": 4, "width": 8})
    less = {"changed": {}, "epochs": 3}
    brief = {name: dataclasses.replace(one, **less) for name, one in protocol.NETWORKS.items()}
    monkeypatch.setattr(protocol, "NETWORKS", brief)


# Keras leaves its log open when it is interrupted.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_training_that_was_interrupted_keeps_its_epochs(small, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "NETWORKS", {"CNN and MLP": protocol.NETWORKS["CNN and MLP"]})
    write = keras.callbacks.CSVLogger.on_epoch_end

    def interrupted(logger, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        write(logger, epoch, {**logs, "val_accuracy": 0.9})  # the first is to be the best

    monkeypatch.setattr(keras.callbacks.CSVLogger, "on_epoch_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        protocol.measure(tmp_path / "work", 0, quick=False)
    best = (tmp_path / "work/concat-vector.weights.h5").read_bytes()
    monkeypatch.setattr(keras.callbacks.CSVLogger, "on_epoch_end", write)
    one = protocol.measure(tmp_path / "work", 0, quick=False)
    assert one["found"]["CNN and MLP"]["epoch"] == 1
    assert (tmp_path / "work/concat-vector.weights.h5").read_bytes() == best
    assert len(protocol._epochs(tmp_path / "work/concat-vector.csv")) == 3


@pytest.mark.long
def test_networks_are_trained_and_asked_once(small, tmp_path, monkeypatch):
    networks = {name: protocol.NETWORKS[name] for name in ("CNN and MLP", "FiLM, English")}
    monkeypatch.setattr(protocol, "NETWORKS", networks)
    one = protocol.measure(tmp_path / "work", 0, quick=False)
    assert set(one["values"]) == {row for row in protocol.ROWS if row.split(":")[0] in networks}
    assert all(0 <= value <= 100 for value in one["values"].values())
    monkeypatch.setattr(protocol, "_trained", None)  # all is measured
    assert protocol.measure(tmp_path / "work", 0, quick=False)["values"] == one["values"]
