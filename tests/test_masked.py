"""Masked autoencoders: what is hidden has no way in, and is predicted from the rest of all modalities."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier

import zoo
from mmkeras import layers, metrics
from mmkeras.training import Hidden

TINY = {"preset": "tiny"}


@pytest.mark.parametrize(("shape", "grid"), [((12, 12, 3), 4), ((10, 17, 1), 3), ((5, 4, 2), 4)])
def test_patches_are_what_a_convolution_sees(shape, grid):
    pixels = np.random.default_rng(0).random((2, *shape)).astype("float32")
    side = layers.patch_side(shape, grid)
    patches = layers.to_patches(pixels, side).numpy()
    np.testing.assert_array_equal(layers.from_patches(patches, shape, side), pixels)
    kernel = np.random.default_rng(1).normal(size=(side, side, shape[-1], 4)).astype("float32")
    seen = keras.ops.conv(pixels, kernel, side, "same", data_format="channels_last").numpy()
    np.testing.assert_allclose(patches @ kernel.reshape(-1, 4), seen.reshape(2, -1, 4), atol=1e-5)


@pytest.mark.parametrize("kind", ["image", "audio", "text", "vector"])
def test_loss_counts_what_is_hidden_and_present(kind):
    random = np.random.default_rng(0)
    true = {"image": random.random((3, 4, 4, 3)), "audio": random.random((3, 4, 4)), "vector": random.random((3, 5)),
            "text": np.array([[4, 2, 0, 0], [1, 4, 3, 2], [2, 2, 2, 0]])}[kind]  # fmt: skip
    shape = {"image": (3, 4, 12), "audio": (3, 4, 4), "vector": (3, 1, 5), "text": (3, 4, 6)}[kind]
    found = random.normal(size=shape).astype("float32")
    hidden = (random.random(shape[:2]) < 0.7).astype("float32")
    present = np.array([1.0, 0.0, 1.0], "float32")
    losses = []
    for row, place in np.argwhere(hidden * present[:, None] > 0):
        out = found[row, place].astype("float64")
        if kind == "text":
            if true[row, place]:
                losses.append(np.log(np.exp(out).sum()) - out[true[row, place]])
        elif kind == "vector":
            losses.append(np.mean((out - true[row]) ** 2))
        else:
            top, left = 2 * (place // 2), 2 * (place % 2)
            losses.append(np.mean((out - true[row, top : top + 2, left : left + 2].ravel()) ** 2))
    term = Hidden("loss", "x", "out", kind, 2)
    given = {"x": true if kind == "text" else true.astype("float32")}
    outputs = {"out": found, "x_hidden": hidden}
    assert float(term(given, None, outputs, {"x": present})) == pytest.approx(np.mean(losses), rel=1e-5)
    outputs["x_hidden"] = np.zeros_like(hidden)
    assert float(term(given, None, outputs, {"x": present})) == 0


@pytest.fixture(scope="module")
def model():
    modalities = {"image": "image", "text": "text", "sound": "audio", "size": "vector"}
    return zoo.build("masked_autoencoder", modalities=modalities, vector_dim={"size": 3}, audio_seconds=0.5, **TINY)


def rows(model, count=6):
    random, x = np.random.default_rng(0), {}
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        x[tensor.name] = random.random(shape).astype("float32")
        if tensor.dtype == "int32":
            x[tensor.name] = random.integers(4, 50, shape).astype("int32")
        if tensor.name.endswith("_hidden"):
            x[tensor.name] = (random.random(shape) < 0.5).astype("float32")
    return {**x, "presence": np.ones((count, 4), "float32")}


def replaced(x, name, model):
    """The rows with other contents at the hidden places of a modality."""
    other = rows(model, 12)[name][6:]
    hidden, value = x[f"{name}_hidden"] > 0, x[name]
    if name in ("text", "size"):
        return {**x, name: np.where(hidden, other, value)}
    shape = (*value.shape[1:], 1) if name == "sound" else value.shape[1:]
    side = layers.patch_side(shape, 4)
    old, new = (layers.to_patches(v.reshape(-1, *shape), side).numpy() for v in (value, other))
    mixed = layers.from_patches(np.where(hidden[..., None], new, old), shape, side).numpy()
    return {**x, name: mixed.reshape(value.shape)}


@pytest.mark.parametrize("name", ["image", "text", "sound", "size"])
def test_what_is_hidden_has_no_way_in(model, name):
    x = rows(model)
    other = replaced(x, name, model)
    assert (other[name] != x[name]).any()
    before, after = model(x, training=False), model(other, training=False)
    np.testing.assert_array_equal(before[f"{name}_hidden"], x[f"{name}_hidden"])
    for key in before:
        np.testing.assert_allclose(after[key], before[key], atol=1e-6, err_msg=key)
    shown = {**other, f"{name}_hidden": np.zeros_like(x[f"{name}_hidden"])}  # and where it is shown, it matters
    assert np.abs(model(shown, training=False)["embedding"] - before["embedding"]).max() > 1e-4


def test_an_absent_modality_is_a_hidden_one(model):
    x = rows(model)
    absent = {**x, "presence": np.tile([[0.0, 1, 1, 1]], (6, 1)).astype("float32")}
    hidden = {**x, "image_hidden": np.ones_like(x["image_hidden"])}
    outputs = model(absent, training=False)
    for key, value in ((k, v) for k, v in outputs.items() if not k.endswith("_hidden")):
        np.testing.assert_allclose(value, model(hidden, training=False)[key], atol=1e-5, err_msg=key)


def test_a_share_is_hidden_and_now_and_then_a_whole_modality():
    model = zoo.build("masked_autoencoder", hide_image=0.6, hide_text=0.25, modality_dropout=0.4, **TINY)
    x = {"image": np.zeros((1500, 16, 16, 3), "float32"), "text": np.full((1500, 8), 5)}
    drawn, again = (model(x, training=True) for _ in range(2))
    image, text = drawn["image_hidden"].numpy(), drawn["text_hidden"].numpy()
    assert (image != again["image_hidden"].numpy()).any()
    whole = image.all(axis=1), text.all(axis=1)
    assert [part.mean() for part in whole] == pytest.approx([0.2, 0.2], abs=0.03)
    assert not (whole[0] & whole[1]).mean() > 0.001
    shares = image[~whole[0]].mean(axis=1)
    assert shares.mean() == pytest.approx(0.3, abs=0.02)
    assert shares.min() == 0.0  # pictures are seen whole as well
    assert shares.std() > 0.17  # of a share that is the same for all it would be 0.11
    assert text[~whole[1]].mean() == pytest.approx(0.125, abs=0.02)
    both = [part[~whole[0] & ~whole[1]].mean(axis=1) for part in (image, text)]
    assert abs(np.corrcoef(*both)[0, 1]) < 0.1
    held_out = model.hide({name: keras.ops.convert_to_tensor(value) for name, value in x.items()}, seed=0)
    both = [np.array(held_out[f"{name}_hidden"]) for name in ("image", "text")]
    both = [part[~(both[0].all(axis=1) | both[1].all(axis=1))].mean(axis=1) for part in both]
    assert abs(np.corrcoef(*both)[0, 1]) < 0.1
    given = {**x, "text_hidden": np.ones((1500, 8), "float32")}
    assert model(given, training=True)["text_hidden"].numpy().min() == 1
    assert not model(x, training=False)["text_hidden"].numpy().any()
    first, second = (model.evaluate(x, batch_size=500, verbose=0, return_dict=True) for _ in range(2))
    assert first == second  # validation is asked the same in every epoch
    assert first["text_loss"] > 0.1


def test_where_nothing_is_hidden_there_is_nothing_to_measure(tmp_path):
    run = zoo.train("masked_autoencoder", "scenes:40", out=tmp_path / "run", hide_text=0.0, epochs=1, verbose=0, **TINY)
    report = run.evaluate("test")
    assert any(title.startswith("hidden image") for title in report)
    assert not any(title.startswith("hidden text") for title in report)


def test_linear_probe_is_ridge_classification():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    x = random.normal(size=(4, 8))[labels] + 2 * random.normal(size=(300, 8))
    train, test = slice(0, 200), slice(200, 300)
    scaled = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    expected = RidgeClassifier(alpha=3.0).fit(scaled[train], labels[train]).score(scaled[test], labels[test])
    found = metrics.linear_probe(x[train], labels[train], x[test], labels[test], penalty=3.0)
    assert found == pytest.approx(expected)
    assert 0.4 < found < 1


COLORS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220), "white": (240, 240, 240)}
SHAPES = ("circle", "square", "cross", "star")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on rows whose picture alone tells one word of the text, and whose vector alone tells another."""
    folder, random, lines = tmp_path_factory.mktemp("things"), np.random.default_rng(0), []
    for i in range(640):
        color, shape = random.choice(list(COLORS)), int(random.integers(4))
        pixels = np.array(COLORS[color]) + random.normal(scale=10, size=(16, 16, 3))
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(folder / f"{i}.png")
        row = {"image": f"{i}.png", "text": f"a {color} {SHAPES[shape]}", "vector": np.eye(4)[shape].tolist()}
        lines.append(json.dumps({**row, "label": SHAPES[shape]}))
    (folder / "things.jsonl").write_text("\n".join(lines))
    options = {"image_size": (8, 8), "image_grid": 2, "image_loss_weight": 20.0, "learning_rate": 0.001, **TINY}
    options |= {"modalities": {name: name for name in ("image", "text", "vector")}, "columns": {"label": "label"}}
    options |= {"num_layers": 2, "hide_vector": 0.4, "modality_dropout": 0.2, "epochs": 16, "verbose": 0}
    return zoo.train("masked_autoencoder", folder / "things.jsonl", out=folder / "run", **options)


@pytest.mark.long
def test_the_hidden_is_predicted_from_the_rest_of_all(trained):
    report = trained.evaluate("test")

    def found(name, *given):
        return report[f"hidden {name} from {' and '.join(given)}"]

    of_all, of_others = found("image", "image", "text", "vector"), found("image", "text", "vector")
    assert of_all["mse"] < min(0.9 * found("image", "image")["mse"], 0.3 * of_all["mse_of_mean"])
    assert of_others["mse"] < 0.6 * of_all["mse_of_mean"]
    said = found("text", "image", "text", "vector")
    assert said["accuracy"] > max(found("text", "text")["accuracy"] + 0.1, 2 * said["most_frequent"])
    of_vector = found("vector", "image", "text", "vector")
    assert of_vector["mse"] < 0.5 * min(of_vector["mse_of_mean"], found("vector", "vector")["mse"])
    for given in ("image and text and vector", "image", "text", "vector"):
        assert set(report[f"linear probe of {given}"]) == {"accuracy", "untrained", "majority"}
    assert (trained.path / "figures" / "hidden-test.png").exists()


@pytest.mark.long
def test_another_rows_numbers_tell_other_words(trained):
    module, split = trained.module, trained.split("test")
    right = []
    for roll in (0, 1):
        hits = []
        for x, hidden in module._hidden_batches(trained, split):
            given = {**x, **hidden, "vector": np.roll(x["vector"], roll, axis=0)}
            asked = (hidden["text_hidden"][:, 2] > 0) & (hidden["vector_hidden"][:, 0] == 0)  # "a red STAR", told
            hits.append((trained.outputs(given)["text"].numpy().argmax(-1) == np.array(x["text"]))[asked, 2])
        right.append(np.concatenate(hits).mean())
    assert right[0] > 0.9
    assert right[1] < 0.5


@pytest.mark.long
def test_unknown_words_and_what_is_absent_are_filled_in(trained):
    split = trained.split("test")
    pictures, texts = split.cells("image")[:40], split.cells("text")[:40]
    filled = trained.predict("fill", image=pictures, text=[f"a ? {text.split()[2]}" for text in texts])["text"]
    assert np.mean([one == text for one, text in zip(filled, texts, strict=True)]) > 0.9
    picture, words = pictures[0], texts[0].split()
    asked = " ".join([words[0], "?", *words[2:]])
    answer = trained.predict("fill", image=[picture, b""], text=[asked, asked])
    for said in answer["text"]:
        said = said.split()
        assert [said[0], *said[2:4]] == [words[0], *words[2:4]]
        assert said[1] not in ("?", "[UNK]")
    assert answer["image_bytes"][0] != answer["image_bytes"][1]
    drawn = trained.predict("fill", text=[asked])["image_bytes"][0]
    assert drawn == answer["image_bytes"][1]
    nothing_asked = trained.predict("fill", image=[picture], text=[" ".join(words)])
    assert nothing_asked["text"][0] == " ".join(words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_encoder": "cnn"}, "Other encoders would see what is hidden"),
        ({"text_encoder": "bilstm"}, "text_encoder='words'. Received: 'patches' and 'bilstm'"),
        ({"modalities": {"clip": "video"}}, "takes image, text, audio and vector. Received: clip=video"),
    ],
)
def test_encoders_that_leak_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("masked_autoencoder", **{**TINY, **options})
