"""The mistakes that users of Keras make most with models of several inputs: each has one line, and it is agreed."""

import re
import subprocess
import sys

import numpy as np
import pytest

import zoo

RANDOM = np.random.default_rng(0)
X = {"image": RANDOM.random((8, 16, 16, 3), "float32"), "text": RANDOM.integers(4, 50, (8, 8))}
Y = np.arange(8) % 3
FIRST = {name: value[0] for name, value in X.items()}
HOLED = np.where(np.arange(16 * 16 * 3).reshape(16, 16, 3) == 7, np.nan, X["image"]).astype("float32")
OPTIONS = {"preset": "tiny", "text_encoder": "bag", "num_classes": 3}
PREPARE = "Prepare the rows with the model's preprocessor, or build the model for this shape."
NUMBERS = "Expected class numbers from 0 to 2 for `label`. Received: "


@pytest.fixture(scope="module")
def model():
    return zoo.build("fusion_classifier", **OPTIONS)


def given(x=None, y=Y):
    return lambda model: model.fit(X if x is None else x, y, verbose=0)


def of(**changed):
    return given({**X, **changed})


MISTAKES = {
    "a tuple for a dict": (
        given((X["image"], X["text"])),
        "Expected inputs as a dict with the keys ['image', 'presence', 'text']. Received: tuple. Name them: "
        "{'image': …, 'presence': …, 'text': …}.",
    ),
    "inputs swapped": (
        given({"image": X["text"], "text": X["image"]}),
        "Expected the input `image` with the shape (batch, 16, 16, 3). Received: (8, 8). That is the shape of `text`: "
        "are they swapped?",
    ),
    "an input missing": (
        given({"image": X["image"]}),
        "Expected inputs with the keys ['image', 'presence', 'text']. Received: ['image'] (missing ['text']).",
    ),
    "an input misspelt": (
        given({"image": X["image"], "txt": X["text"]}),
        "Expected inputs with the keys ['image', 'presence', 'text']. Received: ['image', 'txt'] (missing ['text']; "
        "unknown ['txt']).",
    ),
    "token ids that are floats": (
        of(text=X["text"].astype("float32")),
        "Expected integer token ids for the input `text`. Received: dtype float32. Cast them: text.astype('int32').",
    ),
    "texts for token ids": (
        of(text=np.array(["a red circle"] * 8)),
        "Expected numbers for the input `text`. Received: raw values, of dtype str384. Prepare them first with a "
        "preprocessor: zoo.preprocessor, mmkeras.data.adapt.",
    ),
    "files for pixels": (
        of(image=np.array([b"\x89PNG"] * 8)),
        "Expected numbers for the input `image`. Received: raw values, of dtype bytes32. Prepare them first with a "
        "preprocessor: zoo.preprocessor, mmkeras.data.adapt.",
    ),
    "token ids of another vocabulary": (
        of(text=X["text"] * 0 + 1016),
        "Expected token ids from 0 to 49. Received: 1016. The model was built for another vocabulary than that of the "
        "preprocessor: see vocabulary_size.",
    ),
    "pixels in 0..255": (
        of(image=np.full((8, 16, 16, 3), 255, "uint8")),
        "Expected pixels in 0..1 in `image`. Received: uint8 from 255 to 255. Divide by 255 where they are bytes.",
    ),
    "pixels in 0..255 that are predicted": (
        lambda model: model.predict({**X, "image": np.full((8, 16, 16, 3), 200, "float32")}, verbose=0),
        "Expected pixels in 0..1 in `image`. Received: float32 from 200 to 200. Divide by 255 where they are bytes.",
    ),
    "NaN": (
        of(image=HOLED),
        "Expected numbers in `image`. Received: NaN in row 0 of the first batch. Leave the row out, or fill the gap.",
    ),
    "pictures of another size": (
        of(image=np.zeros((8, 32, 32, 3), "float32")),
        f"Expected the input `image` with the shape (batch, 16, 16, 3). Received: (8, 32, 32, 3). {PREPARE}",
    ),
    "pictures in gray": (
        of(image=X["image"][..., :1]),
        f"Expected the input `image` with the shape (batch, 16, 16, 3). Received: (8, 16, 16, 1). {PREPARE}",
    ),
    "channels first": (
        of(image=np.moveaxis(X["image"], -1, 1)),
        "Expected the input `image` with the shape (batch, 16, 16, 3). Received: (8, 3, 16, 16). The channels come "
        "last: np.moveaxis(image, 1, -1).",
    ),
    "texts of another length": (
        of(text=X["text"][:, :5]),
        f"Expected the input `text` with the shape (batch, 8). Received: (8, 5). {PREPARE}",
    ),
    "one row that is called": (
        lambda model: model(FIRST),
        "Expected the input `image` with the shape (batch, 16, 16, 3). Received: (16, 16, 3). One row is a batch "
        "of one: image[None].",
    ),
    "one row that is predicted": (
        lambda model: model.predict(FIRST, verbose=0),
        "Expected the input `image` with the shape (batch, 16, 16, 3). Received: (16, 16, 3). One row is a batch "
        "of one: image[None].",
    ),
    "inputs of other numbers of rows": (
        of(text=X["text"][:5]),
        "Expected as many rows of every input. Received: 8 of `image`, 5 of `text`.",
    ),
    "presence of another number of modalities": (
        of(presence=np.ones((8, 3), "float32")),
        f"Expected the input `presence` with the shape (batch, 2). Received: (8, 3). {PREPARE}",
    ),
    "no rows": (
        given({name: value[:0] for name, value in X.items()}, Y[:0]),
        "Expected at least one row. Received: 0 of `image`, 0 of `text`.",
    ),
    "lists": (
        of(image=X["image"].tolist()),
        "Expected an array for the input `image`. Received: list. Take np.array(image).",
    ),
    "no targets": (
        given(y=None),
        "Expected targets beside the inputs: model.fit(x, {'label': labels}). Received: none.",
    ),
    "targets of another length": (
        given(y=Y[:5]),
        "Expected as many targets as rows. Received: 8 of `image`, 5 of `label`.",
    ),
    "targets of another name": (
        given(y={"labels": Y}),
        "Expected targets with the keys ['label']. Received: ['labels'].",
    ),
    "labels that are texts": (
        given(y=np.array(["cat", "dog"] * 4)),
        f"{NUMBERS}texts. Number them: np.unique(label, return_inverse=True)[1].",
    ),
    "labels that are one-hot": (
        given(y=np.eye(3)[Y]),
        f"{NUMBERS}the shape (8, 3). Of one-hot rows take the numbers: label.argmax(-1).",
    ),
    "labels that the model has not": (
        given(y=Y + 5),
        f"{NUMBERS}5 to 7. Number them from 0, and build the model for all of them: num_classes=8.",
    ),
    "labels below zero": (
        lambda model: model.evaluate(X, Y - 1, verbose=0),
        f"{NUMBERS}-1 to 1. Number them from 0, and build the model for all of them: num_classes=3.",
    ),
    "a preprocessor that is not fitted": (
        lambda model: zoo.preprocessor("fusion_classifier", **OPTIONS)(
            {"image": np.array([b""]), "text": np.array(["a"]), "label": np.array(["b"])}
        ),
        "Expected a preprocessor that has seen training rows. Received: one without words for `text`. Fit it: "
        "mmkeras.data.adapt(preprocessor, source.train).",
    ),
    "a model that does not exist": (
        lambda model: zoo.build("dual_enocder", preset="tiny"),
        f"Unknown model `dual_enocder`. Did you mean `dual_encoder`? The zoo has: {', '.join(zoo.names())}.",
    ),
    "a kind of modality that does not exist": (
        lambda model: zoo.build("dual_encoder", modalities={"photo": "picture", "title": "text"}),
        "Invalid kind of the modality `photo`. Expected image, text, vector, audio or video. Received: 'picture'.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_the_agreed_line(mistake, model):
    make, agreed = MISTAKES[mistake]
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message is compared
        make(model)
    assert str(caught.value) == agreed


VECTORS = {"modalities": {"a": "vector", "b": "vector"}, "vector_dim": {"a": 2, "b": 3}}
ROWS = {"a": RANDOM.random((8, 2), "float32"), "b": RANDOM.random((8, 3), "float32")}
SCORES = RANDOM.random(8).astype("float32")
PLURAL = {"polarity": "polarities", "label": "labels"}
# Models whose training looks at targets itself: name, hyperparameters, inputs, targets.
TARGETED = {
    "sentiment": ({}, {"polarity": SCORES}),
    "domain_adversarial": ({}, {"label": Y, "domain": np.arange(8) % 2}),
    "domain_adversarial by covariances": ({"method": "coral", "ramp": 0}, {"label": Y, "domain": np.arange(8) % 2}),
    "dual_encoder": ({"label_positives": True}, {"label": Y}),
    "dual_encoder with a head": ({"label_weight": 1.0, "num_classes": 3}, {"label": Y}),
}


def losses_of(key, targets):
    import keras

    keras.utils.set_random_seed(0)
    model = zoo.build(key.split()[0], preset="tiny", **VECTORS, **TARGETED[key][0])
    model.run_eagerly = True  # faster than a graph for one step
    return model.fit(ROWS, targets, verbose=0).history


@pytest.mark.parametrize("key", TARGETED)
def test_targets_in_columns_and_alone_are_those_of_the_rows(key):
    targets = TARGETED[key][1]
    expected = losses_of(key, targets)
    assert losses_of(key, {name: value[:, None] for name, value in targets.items()}) == expected
    if len(targets) == 1:
        assert losses_of(key, *targets.values()) == expected


@pytest.mark.parametrize("key", TARGETED)
def test_targets_that_are_missing_or_of_another_kind_are_told(key):
    targets = TARGETED[key][1]
    name = next(iter(targets))
    for wrong, message in (
        (None, f"Expected targets beside the inputs: model.fit(x, {{{name!r}: {PLURAL[name]}"),
        ({"x": Y}, f"Expected targets with the keys {sorted(targets)}. Received: ['x']"),
        ({**targets, name: np.array(list("abcdefgh"))}, f"Expected numbers for `{name}`. Received: texts"),
        ({**targets, name: np.eye(8)}, f"Expected `{name}` with the shape (batch,). Received: (8, 8)"),
        ({**targets, name: targets[name][:5]}, f"Expected as many targets as rows. Received: 8 of `a`, 5 of `{name}`"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            losses_of(key, wrong)


def test_a_gan_takes_pictures_alone_and_says_where_they_are_missing():
    model = zoo.build("conditional_gan", preset="tiny")
    pictures, texts = RANDOM.random((8, 16, 16, 3), "float32"), {"text": X["text"]}
    assert np.isfinite(
        model.fit(texts, pictures, validation_data=(texts, pictures), verbose=0).history["val_generator_loss"]
    )
    with pytest.raises(ValueError, match="Expected targets beside the inputs"):
        model.fit(texts, verbose=0)


NAMED = {
    "fusion": ("fusion_classifier", {"fusion": "text", "b": "text"}, "Two layers would be called `fusion`"),
    "a/b": ("fusion_classifier", {"a/b": "text"}, "A modality's name has letters and no slash"),
    "a_b": ("variational_autoencoder", {"a": "text", "b": "text", "a_b": "text"}, "Two layers would be called `a_b"),
    "a_from_a": ("variational_autoencoder", {"a": "text", "a_from_a": "text"}, "cannot be called `a_from_a`"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_names_of_modalities_that_are_taken_are_told(name):
    model, modalities, message = NAMED[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        zoo.build(model, preset="tiny", modalities=modalities)


def test_what_is_right_is_taken(model):
    before = model.get_weights()
    model.fit(X, {"label": Y}, verbose=0)
    model.fit({**X, "presence": np.ones((8, 2), bool)}, Y, verbose=0)
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    one = {name: value[:1] for name, value in X.items()}
    np.testing.assert_allclose(model.predict(one, verbose=0)["label"], model(one)["label"], atol=1e-5)


LOAD = """
import sys, keras
try:
    keras.models.load_model(sys.argv[1])
except TypeError as error:  # what Keras says; none of our code is there to say more
    print(str(error).partition(". ")[0], "'module': 'mmkeras.training.multi_input'" in str(error))
import zoo
print(sorted(keras.models.load_model(sys.argv[1]).input))
"""


def test_a_file_is_loaded_once_the_package_is_imported(model, tmp_path):
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "model.keras")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[-2:] == ["Could not locate class 'MultiInput' True", "['image', 'presence', 'text']"]
