"""Every model of the zoo at `tiny`: structure, gradients, learning, strict inputs, files, and use as plain Keras."""

import collections
import csv
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import mmkeras
import zoo
from mmkeras import data, fusion
from mmkeras.data import Preprocessor, adapt
from zoo import _registry
from zoo.fusion_classifier import FUSIONS

# Keras says this of every tf.data.Dataset given to `fit` with its own default of shuffle=True.
pytestmark = pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning")

# Eight rows are told apart by a label each; cross_modal predicts from two, which its preset does not. Only one model
# has a recurrent network, which takes long to trace; every text encoder has tests of its own.
EIGHT = {
    "fusion_classifier": {"num_classes": 8, "text_encoder": "bag"},
    "cross_modal": {"modalities": {"image": "image", "text": "text", "vector": "vector"}, "target": "vector",
                    "vector_dim": {"vector": 8}, "text_encoder": "cnn"},
    "domain_adversarial": {"modalities": {"image": "image", "text": "text"}, "text_encoder": "bag"},
    "dual_encoder": {"text_encoder": "cnn"},
    "few_shot": {"modalities": {"image": "image", "text": "text"}, "text_encoder": "bag"},
    "multitask": {"num_tags": 13, "text_encoder": "cnn"},
    "sentiment": {"text_encoder": "cnn"},
    "tagger": {"num_classes": 13, "text_encoder": "bag"},
    "transformer": {"num_classes": 8},
    "variational_autoencoder": {"text_encoder": "bag"},
    "vqa": {"num_classes": 8, "text_encoder": "cnn"},
    "conditional_gan": {"discriminator_augment": False, "learning_rate": 2e-3},
}  # fmt: skip
STEPS = {"conditional_gan": 300}
QUICK = ("concat", "gated", "low_rank", "cross_attention", "transformer", "late", "mmtm")  # a fusion of each kind
GIVEN = {"autoencoder": ["image", "text"], "cross_modal": ["image", "text"], "fusion_classifier": ["image", "text"],
         "sentiment": ["image", "remark"], "tagger": ["image", "text"], "transformer": ["image", "text"],
         "variational_autoencoder": ["image", "text"], "vqa": ["image", "question"]}  # fmt: skip

Fitted = collections.namedtuple("Fitted", "model x y before first")


@pytest.fixture(scope="module")
def source():
    return data.open("scenes:64")


@pytest.fixture(scope="module")
def eight(source):
    """Eight rows whose texts differ in what `tiny` reads of them, and so do their questions."""
    chosen, seen = [], set()
    for i, (text, question) in enumerate(zip(source.train.cells("text"), source.train.cells("question"), strict=True)):
        beginning = " ".join(text.split()[:6])
        if not seen & {beginning, question}:
            chosen.append(i)
            seen |= {beginning, question}
    return source.train.take(chosen[:8])


def prepared(name, split):
    """The split as the model wants it for testing: where it has `prepare`, with the columns that this adds."""
    module = _registry.module(name)
    if not hasattr(module, "prepare"):
        return split
    return module.prepare(_registry.configure(name, "tiny"), {"test": split})["test"]


def preprocessor(name, split, preset="tiny", **hyperparameters):
    result = zoo.preprocessor(name, preset, **hyperparameters)
    adapt(result, prepared(name, split))
    return result


def batch(name, split, **hyperparameters):
    """One batch `(x, y)` of NumPy arrays of all rows of a split, in their order."""
    pre = preprocessor(name, split, **hyperparameters)
    x, *y = next(iter(prepared(name, split).batches(pre, batch_size=len(split), training=False)))
    x = {key: value.numpy() for key, value in x.items()}
    y = {key: value.numpy() for key, value in y[0].items()} if y else None
    if name == "masked_autoencoder":  # every other patch, and the words between
        x["image_hidden"] = np.tile(np.arange(16) % 2, (len(split), 1)).astype("float32")
        x["text_hidden"] = np.tile(np.arange(8) % 2, (len(split), 1)).astype("float32")
    return x, y


def loss_of(model, x, y, given=None):
    """The model's own loss of full rows, from what is given of them."""
    outputs = model({**x, **(given or {})}, training=False)
    return float(model.compute_loss(x=x, y=y, y_pred=outputs, training=False))


def rolled(values):
    return np.roll(values, 1, axis=0)


@pytest.fixture(scope="module")
def fitted(eight):
    """A function from a model's name to the model trained on eight rows, once a name."""
    import tensorflow as tf

    done = {}

    def fit(name):
        if name not in done:
            keras.utils.set_random_seed(0)
            dropped = 0.0 if name in ("conditional_gan", "dual_encoder") else 0.3  # which can lack nothing
            settings = {"modality_dropout": dropped, "weight_decay": 0.0, **EIGHT.get(name, {})}
            model = zoo.build(name, preset="tiny", **settings)
            x, y = batch(name, eight, **settings)
            if name in ("fusion_classifier", "transformer", "vqa"):
                y = {key: np.arange(8, dtype="int32") for key in y}
            first = None if name == "conditional_gan" else loss_of(model, x, y)
            before = model.get_weights()
            rows = tf.data.Dataset.from_tensors((x, y) if y else (x,)).repeat(STEPS.get(name, 250))
            model.fit(rows, verbose=0)
            done[name] = Fitted(model, x, y, before, first)
        return done[name]

    return fit


# Structure


@pytest.mark.parametrize("name", zoo.names())
def test_preprocess_and_model_have_one_structure(name, source):
    model = zoo.build(name, preset="tiny")
    pre = preprocessor(name, source.train)
    expected = dict(model.generator.input if name == "conditional_gan" else model.input)
    symbolic = dict(pre.inputs.output)
    real = next(iter(prepared(name, source.train).batches(pre, batch_size=3)))[0]
    assert set(real) == set(symbolic)
    if name == "conditional_gan":  # a text is all it draws from: noise is its own, and presence is not asked for
        del expected["noise"], symbolic["presence"]
    if name == "masked_autoencoder":  # what is hidden is drawn in the training step
        del expected["image_hidden"], expected["text_hidden"]
    assert set(symbolic) == set(expected)
    for key, tensor in expected.items():
        assert key == tensor.name
        assert (symbolic[key].shape, symbolic[key].dtype) == (tensor.shape, tensor.dtype), key
        assert (real[key].shape[1:], real[key].dtype.name) == (tensor.shape[1:], tensor.dtype), key


@pytest.mark.parametrize("name", zoo.names())
def test_targets_belong_to_outputs(name, source):
    pre = preprocessor(name, source.train)
    model = zoo.build(name, preset="tiny", **({"num_classes": 6} if name == "fusion_classifier" else {}))
    if pre.targets is None:
        objective = _registry.module(name).objective(_registry.configure(name, "tiny"))
        assert "loss" not in (objective if isinstance(objective, dict) else vars(objective))
        return
    outputs = model.generator.output if name == "conditional_gan" else model.output
    y = next(iter(prepared(name, source.train).batches(pre, batch_size=3)))[1]
    assert set(y) == set(pre.targets.output) <= set(outputs)
    if y.keys() == {"label"}:
        assert y["label"].numpy().max() < outputs["label"].shape[-1]
    else:
        assert all(y[key].shape[1:] == outputs[key].shape[1 : 1 + y[key].shape.rank - 1] for key in y)


@pytest.mark.parametrize("name", zoo.names())
def test_description_tells_every_hyperparameter_and_preset(name):
    text = zoo.describe(name)
    config = _registry.configure(name)
    assert all(f"\n  {field} " in text for field in config.to_dict())
    assert all(f"\n  {preset}: " in text for preset in _registry.module(name).PRESETS)


@pytest.mark.parametrize("name", zoo.names())
def test_base_is_built_in_two_seconds(name):
    taken = []
    for _ in range(2):
        began = time.process_time()  # not the clock on the wall: other tests run beside this one
        zoo.build(name)
        taken.append(time.process_time() - began)
    assert min(taken) < 2


# Learning


@pytest.mark.parametrize("name", zoo.names())
def test_training_reaches_every_weight(name, fitted):
    model, _, _, before, _ = fitted(name)  # trained without weight decay: what got no gradient stands still
    values = dict(zip([id(w) for w in model.weights], before, strict=True))
    still = [w.path for w in model.trainable_variables if np.array_equal(values[id(w)], w.numpy())]
    assert not still
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)


@pytest.mark.parametrize("name", [n for n in zoo.names() if n not in ("conditional_gan", "domain_adversarial")])
def test_eight_rows_are_learned(name, fitted):
    model, x, y, _, first = fitted(name)
    assert loss_of(model, x, y) < 0.25 * first


def test_labels_are_learned_against_an_adversary(fitted):
    """Its whole loss need not fall: where the domains cannot be told apart, that of the adversary is ln 2."""
    model, x, y, _, _ = fitted("domain_adversarial")
    chances = model(x, training=False)["label"].numpy()
    source = y["domain"] == 0
    assert source.sum() >= 6
    assert -np.log(chances[np.arange(8), y["label"]][source]).mean() < 0.25 * np.log(6)


@pytest.mark.parametrize(("name", "alone"), [(name, alone) for name, given in GIVEN.items() for alone in given])
def test_eight_rows_are_learned_from_each_modality_alone(name, alone, fitted):
    model, x, y, _, first = fitted(name)
    mask = np.array([[other == alone for other in GIVEN[name]]], "float32")
    assert loss_of(model, x, y, {"presence": x["presence"] * mask}) < 0.5 * first


@pytest.mark.parametrize(
    ("name", "shuffled"),
    [*((name, s) for name, given in GIVEN.items() for s in given), ("dual_encoder", "image"), ("dual_encoder", "text")],
)
def test_rows_shuffled_in_one_modality_are_worse(name, shuffled, fitted):
    model, x, y, _, first = fitted(name)
    right, wrong = loss_of(model, x, y), loss_of(model, x, y, {shuffled: rolled(x[shuffled])})
    assert wrong > 1.5 * right + 0.001 * first


def test_rows_without_a_pair_take_no_part_in_contrast(fitted):
    model, x, y, _, _ = fitted("dual_encoder")
    presence = x["presence"].copy()
    presence[5:, 0] = 0
    x = {**x, "text": x["text"][::-1]}  # pairs that do not match: the loss is far from zero
    first_five = {key: value[:5] for key, value in x.items()}
    assert loss_of(model, {**x, "presence": presence}, y) == pytest.approx(loss_of(model, first_five, y), rel=1e-4)


def test_discriminator_tells_right_from_wrong_texts(fitted):
    model, x, y, _, _ = fitted("conditional_gan")
    right = model.discriminator({"image": y["image"], "text": x["text"]}, training=False)["logits"].numpy()
    wrong = model.discriminator({"image": y["image"], "text": rolled(x["text"])}, training=False)["logits"].numpy()
    assert right.mean() > wrong.mean() + 0.5
    assert (right > wrong).sum() >= 7


def test_drawn_pictures_come_near_those_they_are_measured_against(eight, fitted):
    import tensorflow as tf

    def distances(model, x, y):
        drawn = model({**x, "noise": np.zeros((8, model.noise_dim), "float32")})["image"].numpy()
        return [np.abs(drawn - pictures).mean() for pictures in (y["image"], rolled(y["image"]))]

    keras.utils.set_random_seed(0)
    settings = {**EIGHT["conditional_gan"], "weight_decay": 0.0, "reconstruction_weight": 30.0}
    model, (x, y) = zoo.build("conditional_gan", preset="tiny", **settings), batch("conditional_gan", eight, **settings)
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(150), verbose=0)
    own, others = distances(model, x, y)
    assert own < 0.5 * others
    assert own < 0.7 * distances(*fitted("conditional_gan")[:3])[0]  # of twice the steps, without that weight


def test_without_conditioning_augmentation_the_text_gives_the_whole_condition():
    ids, given = np.arange(4, 12)[None].repeat(2, axis=0), {"preset": "tiny", "noise_dim": 8, "condition_dim": 16}
    model = zoo.build("conditional_gan", kl_weight=0.0, **given)
    assert model.noise_dim == 8
    assert zoo.build("conditional_gan", **given).noise_dim == 8 + 16
    drawn = model.generator({"text": ids, "noise": np.stack([np.zeros(8), np.ones(8)])})
    np.testing.assert_array_equal(drawn["kl"], 0)
    assert np.abs(drawn["image"][0] - drawn["image"][1]).max() > 1e-4  # noise draws, but bends no condition
    assert "condition_log_variance" not in [layer.name for layer in model.generator.layers]


def test_places_are_kept_of_pictures_alone():
    shapes = {"image_size": (16, 16), "image_width": 4, "image_grid": 4, "text_width": 8}
    model = zoo.build("dual_encoder", preset="tiny", pool="flatten", **shapes)
    channels = model.get_layer("image_encoder").output.shape[-1]
    kernels = {name: model.get_layer(f"{name}_projection").kernel.shape[0] for name in ("image", "text")}
    assert kernels == {"image": 16 * channels, "text": 2 * model.get_layer("text_encoder").output.shape[-1]}


def test_average_of_the_generator_follows_it(fitted):
    model, x, _, before, _ = fitted("conditional_gan")
    by_id = dict(zip([id(w) for w in model.weights], before, strict=True))
    now, average = (
        np.concatenate([w.numpy().ravel() for w in net.weights]) for net in (model.generator, model.averaged)
    )
    start = np.concatenate([by_id[id(w)].ravel() for w in model.averaged.weights])
    assert 0 < np.linalg.norm(now - average) < np.linalg.norm(now - start)
    noise = np.zeros((8, model.noise_dim), "float32")
    drawn = model({"text": x["text"], "noise": noise})["image"].numpy()
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert np.abs(drawn - rolled(drawn)).max() > 1e-3  # the text matters


@pytest.mark.parametrize("name", zoo.names())
def test_keras_file_round_trip(name, fitted, tmp_path):
    model, x, y, _, _ = fitted(name)
    x = {**x, "noise": np.ones((8, model.noise_dim), "float32")} if name == "conditional_gan" else x
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    expected, answer = model(x, training=False), loaded(x, training=False)
    assert set(answer) == set(expected)
    for key in expected:
        np.testing.assert_array_equal(answer[key], expected[key], err_msg=key)
    assert loaded.optimizer.iterations == model.optimizer.iterations
    before, loaded.run_eagerly = loaded.get_weights(), True  # one step: a graph would not pay
    losses = loaded.fit(x, y, batch_size=8, verbose=0).history
    assert np.isfinite(list(losses.values())).all()
    assert any((old != new).any() for old, new in zip(before, loaded.get_weights(), strict=True))


# Strict inputs

STRICT = [name for name in zoo.names() if name != "conditional_gan"]


@pytest.fixture(scope="module")
def built(source):
    done = {}

    def build(name):
        if name not in done:
            done[name] = zoo.build(name, preset="tiny"), batch(name, source.validation)[0]
        return done[name]

    return build


def outputs_of(model, x):
    return {key: value.numpy() for key, value in model(x, training=False).items()}


@pytest.mark.parametrize("name", STRICT)
def test_inputs_in_any_order_and_without_presence(name, built):
    model, x = built(name)
    expected = outputs_of(model, x)
    other_order = collections.OrderedDict(sorted(x.items(), reverse=True))
    without = {key: value for key, value in x.items() if key != "presence"}
    for given in (other_order, without):
        answer = outputs_of(model, given)
        assert all(np.array_equal(answer[key], expected[key]) for key in expected)
    predicted = model.predict(without, verbose=0)
    assert all(np.allclose(predicted[key], expected[key], atol=1e-5) for key in expected)


@pytest.mark.parametrize("name", STRICT)
def test_keys_that_do_not_fit_are_refused_with_the_expected_ones(name, built):
    model, x = built(name)
    key = next(k for k in sorted(x) if k != "presence")
    missing = {k: v for k, v in x.items() if k != key}
    for given in ({**x, "sound": x[key]}, missing, {**missing, f"{key}s": x[key]}):
        for call in (model, lambda inputs, m=model: m.predict(inputs, verbose=0)):
            with pytest.raises(ValueError, match="Expected inputs with the keys") as caught:
                call(given)
            assert str(sorted(x)) in str(caught.value)
    with pytest.raises(ValueError, match="Expected inputs as a dict"):
        model(x[key])


@pytest.mark.parametrize("name", [name for name in STRICT if _registry.configure(name, "tiny").of_kind("text")])
def test_token_ids_that_are_no_integers_are_refused(name, built):
    model, x = built(name)
    key = next(key for key, value in x.items() if value.dtype.kind == "i")
    with pytest.raises(ValueError, match=rf"integer token ids for the input `{key}`\. Received: dtype float32"):
        model({**x, key: x[key].astype("float32")})


# As a Keras user writes it


@pytest.mark.parametrize("as_dataset", [False, True])
def test_the_first_batch_is_looked_at(as_dataset):
    model = zoo.build(
        "fusion_classifier", preset="tiny", modalities={"photo": "image", "size": "vector"}, vector_dim={"size": 2}
    )
    good = {"photo": np.full((4, 16, 16, 3), 0.5, "float32"), "size": np.zeros((4, 2), "float32")}
    labels = np.arange(4) % 3
    holed = np.zeros((4, 2), "float32")
    holed[2, 1] = np.nan

    def fit(x):
        data = (tf.data.Dataset.from_tensor_slices((x, {"label": labels})).batch(4),) if as_dataset else (x, labels)
        return model.fit(*data, verbose=0)

    fit(good)
    with pytest.raises(ValueError, match=r"Expected pixels in 0..1 in `photo`. Received: float32 from 127.5 to 127.5"):
        fit({**good, "photo": good["photo"] * 255})
    with pytest.raises(ValueError, match=r"Expected numbers in `size`. Received: NaN in row 2"):
        fit({**good, "size": holed})


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in FUSIONS]
)
def test_every_fusion_fits_plain_arrays(name, monkeypatch):
    traced, gradient = [], tf.GradientTape.gradient
    monkeypatch.setattr(tf.GradientTape, "gradient", lambda *args, **kw: traced.append(1) or gradient(*args, **kw))
    random = np.random.default_rng(0)
    images, token_ids = random.random((16, 16, 16, 3), "float32"), random.integers(4, 50, (16, 8))
    labels = random.integers(0, 9, 16)
    model = zoo.build(
        "fusion_classifier", modalities={"photo": "image", "title": "text"}, fusion=name, num_classes=9,
        preset="tiny", text_encoder="bag",
    )  # fmt: skip
    history = model.fit({"photo": images, "title": token_ids}, labels, epochs=12, batch_size=8, verbose=0).history
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert "accuracy" in history
    assert len(traced) == 1  # a step is traced once: twice would take twice as long to begin
    assert model({"photo": images, "title": token_ids})["label"].shape == (16, 9)


def test_every_fusion_can_be_chosen():
    assert sorted(FUSIONS) == sorted(
        [*fusion.FEATURE_FUSIONS, *fusion.TOKEN_FUSIONS, *fusion.DECISION_FUSIONS, *fusion.STAGED_FUSIONS]
    )
    with pytest.raises(ValueError, match="Evidential fusion is of one label a row"):
        zoo.build("fusion_classifier", preset="tiny", fusion="evidential", labels="many")


def test_fit_on_a_file_of_ones_own(source, tmp_path):
    labels = source.train.cells("label")
    rows = [["photo", "title", "kind"]]
    (tmp_path / "pictures").mkdir()
    for i, (image, text) in enumerate(zip(source.train.cells("image"), source.train.cells("text"), strict=True)):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(image)
        rows.append([f"pictures/{i}.png", text, labels[i]])
    with (tmp_path / "shoes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    options = {"modalities": {"photo": "image", "title": "text"}, "num_classes": 6, "preset": "tiny"}
    own = mmkeras.data.open(tmp_path / "shoes.csv", columns={"photo": "image", "title": "text", "kind": "label"})
    pre = zoo.preprocessor("fusion_classifier", **options)
    mmkeras.data.adapt(pre, own.train)
    model = zoo.build("fusion_classifier", **options)
    history = model.fit(
        own.train.batches(pre, batch_size=8),
        validation_data=own.validation.batches(pre, batch_size=8),
        epochs=2,
        verbose=0,
    ).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert np.isfinite(list(history.values())).all()


def test_fitted_vocabulary_fits_the_model():
    words = [f"word{i}" for i in range(200)]
    split = data.Split("train", {"text": words, "image": [b""] * 200}, {"text": "text", "image": "image"}, 200, str)
    pre = preprocessor("autoencoder", split)
    ids = pre({"text": np.array(words), "image": np.array([b""] * 200)})[0]["text"].numpy()
    assert ids.max() < _registry.configure("autoencoder", "tiny").vocabulary_size


# Other modalities

MODALITIES = {"left": "image", "right": "image", "text": "text", "vector": "vector"}
MANY = {
    "autoencoder": (["left", "right", "vector"], {}),
    "cross_modal": (["left", "right", "text", "vector"], {"target": "text"}),
    "dual_encoder": (["left", "right", "text"], {"label_weight": 0.5, "label_positives": True, "num_classes": 6}),
    "fusion_classifier": (["left", "right", "text", "vector"], {"num_classes": 6, "augment_shift": 0.1}),
}


@pytest.mark.parametrize("name", MANY)
def test_two_pictures_and_others_at_once(name):
    names, own = MANY[name]
    modalities = {key: MODALITIES[key] for key in names}
    options = {"modalities": modalities, "vector_dim": {"vector": 8}, "text_encoder": "bag", **own}
    split = data.open("halves:scenes:16").train
    model, pre = zoo.build(name, preset="tiny", **options), preprocessor(name, split, **options)
    assert set(model.input) == {*names, "presence"} - {own.get("target")}
    loss = model.fit(split.batches(pre, batch_size=8), epochs=3, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    x = next(iter(split.batches(pre, batch_size=4, training=False)))[0]
    expected = outputs_of(model, x)
    for key in sorted(set(model.input) - {"presence"}):  # each of them counts
        changed = outputs_of(model, {**x, key: rolled(x[key])})
        assert any(np.abs(changed[k] - expected[k]).max() > 1e-6 for k in expected), key


def test_the_loss_of_a_text_is_the_mean_of_its_rows():
    """So that replicas whose rows have other numbers of words add theirs up to the loss of the whole."""
    model = zoo.build("cross_modal", preset="tiny", target="text")
    random = np.random.default_rng(0)
    ids = random.integers(1, 50, (4, 8))
    ids[0, 2:], ids[1, 5:] = 0, 0
    x = {"image": random.random((4, 16, 16, 3)).astype("float32")}
    whole, *rows = (model.evaluate({"image": x["image"][at]}, {"text": ids[at]}, verbose=0)
                    for at in (slice(4), *([i] for i in range(4))))  # fmt: skip
    assert whole == pytest.approx(np.mean(rows), rel=1e-5)
    assert np.ptp(rows) > 0.01


@pytest.mark.parametrize(
    ("modalities", "target"),
    [({"a": "image", "b": "image"}, "b"), ({"a": "vector", "b": "image"}, "b"), ({"a": "image", "b": "vector"}, "b")],
)
def test_cross_modal_in_any_direction(modalities, target):
    sizes = {name: 5 for name, kind in modalities.items() if kind == "vector"}
    model = zoo.build("cross_modal", preset="tiny", modalities=modalities, target=target, vector_dim=sizes)
    shapes = {"image": (16, 16, 3), "vector": (5,)}
    random = np.random.default_rng(0)
    a, b = (random.random((4, *shapes[modalities[name]]), "float32") for name in "ab")
    assert model.predict({"a": a}, verbose=0)["b"].shape == b.shape
    assert np.isfinite(model.evaluate({"a": a}, {"b": b}, verbose=0))


def test_generative_model_takes_names_of_ones_own():
    options = {"modalities": {"photo": "image", "caption": "text"}}
    split = data.open("scenes:16").train.rename({"photo": "image", "caption": "text"})
    model, pre = (
        zoo.build("conditional_gan", preset="tiny", **options),
        preprocessor("conditional_gan", split, **options),
    )
    loss = model.fit(split.batches(pre, batch_size=8), verbose=0).history
    assert np.isfinite(list(loss.values())).all()
    x, y = next(iter(split.batches(pre, batch_size=4)))
    assert model.predict(x, verbose=0)["image"].shape == y["image"].shape


def test_corrnet_learns_from_halves_in_gray():
    split = data.open("halves:scenes:24").train
    pre = preprocessor("autoencoder", split, preset="corrnet")
    model = zoo.build("autoencoder", preset="corrnet", learning_rate=3e-3)
    history = model.fit(split.batches(pre, batch_size=24), epochs=12, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["left_right_correlation"][-1] < history["left_right_correlation"][0]
    x = next(iter(split.batches(pre, batch_size=24, training=False)))[0]
    outputs = outputs_of(model, x)
    assert x["left"].shape == (24, 28, 14, 1)
    views = [outputs[f"{name}_embedding"] for name in ("left", "right")]
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(views[0].T, views[1].T, strict=True)]
    assert np.mean(correlation) > 0.3
    alone = outputs_of(model, {**x, "presence": np.tile([[1.0, 0.0]], (24, 1)).astype("float32")})
    np.testing.assert_allclose(alone["right"], alone["right_from_left"], atol=1e-6)


def test_one_modality_is_enough():
    model = zoo.build("fusion_classifier", preset="tiny", modalities={"image": "image"})
    pictures = np.random.default_rng(0).random((4, 16, 16, 3), "float32")
    assert model.predict({"image": pictures}, verbose=0)["label"].shape == (4, 3)
    assert isinstance(zoo.preprocessor("fusion_classifier", modalities={"image": "image"}), Preprocessor)


@pytest.mark.parametrize(("name", "options"), [("conditional_gan", {}), ("captioner", {"adversarial_weight": 1.0})])
def test_two_networks_are_saved_without_their_optimizers(name, options, tmp_path):
    model = zoo.build(name, preset="tiny", **options)
    model.save(tmp_path / "model.keras")
    bare = keras.models.load_model(tmp_path / "model.keras", compile=False)
    bare.save(tmp_path / "bare.keras")
    again = keras.models.load_model(tmp_path / "bare.keras")
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
