"""Every fusion against NumPy, row by row, from the layer's own weights."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mmkeras import fusion
from mmkeras.layers import TokenEmbedding

WIDTH = 4
SHAPES = {"audio": (2, 4), "image": (6, 5), "text": (5, 3)}  # (length, width)
OPTIONS = {
    "cross_attention": {"num_heads": 2},
    "bilinear": {"rank": 5},
    "tensor": {"tensor_width": 3},
    "low_rank": {"rank": 2},
}
CASES = [*((name, {}) for name in fusion.FEATURE_FUSIONS), ("film", {"modulated": "text"})]
every_fusion = pytest.mark.parametrize(
    ("name", "more"), CASES, ids=[name + "".join(f"-{value}" for value in more.values()) for name, more in CASES]
)


def make(name, more=()):
    return fusion.FEATURE_FUSIONS[name](WIDTH, **OPTIONS.get(name, {}), **dict(more))


def randomize(layer, seed=0):
    """Random numbers for every weight, those that begin as zeros too."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.normal(0, 0.7, weight.shape))


def batch(num_modalities, seed=0):
    """Tokens, masks and presence: every combination of presence, the last with all modalities absent."""
    rng = np.random.default_rng(seed)
    names = {1: ["text"], 2: ["image", "text"], 3: ["audio", "image", "text"]}[num_modalities]
    presence = np.array(list(itertools.product((1, 0), repeat=num_modalities)), "float32")
    tokens = {n: rng.normal(size=(len(presence), *SHAPES[n])).astype("float32") for n in reversed(names)}
    lengths = rng.integers(1, SHAPES["text"][0], len(presence))
    mask = np.arange(SHAPES["text"][0]) < lengths[:, None]
    return tokens, {"text": tf.constant(mask)}, presence


def dense(layer, x):
    kernel, bias = (w.numpy().astype("float64") for w in layer.weights)
    return x @ kernel + bias


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def with_one(x, width):
    return np.append(np.zeros(width) if x is None else x, 1.0)


# An oracle takes the layer and the real tokens of one row by modality, None where absent, and gives `(width,)`.


def features(layer, row):
    return [None if x is None else dense(p, x.mean(axis=0)) for p, x in zip(layer.projections, row, strict=True)]


def concat(layer, row):
    stand_ins = layer.stand_ins.numpy()
    filled = [stand_ins[i] if x is None else x for i, x in enumerate(features(layer, row))]
    return dense(layer.output_projection, np.concatenate(filled))


def add(layer, row):
    return sum((x for x in features(layer, row) if x is not None), np.zeros(WIDTH))


def convex(scores, vectors):
    return softmax(np.array(scores)) @ np.array(vectors) if vectors else np.zeros(WIDTH)


def weighted_sum(layer, row):
    here = [(s, x) for s, x in zip(layer.scores.numpy(), features(layer, row), strict=True) if x is not None]
    return convex([s for s, _ in here], [x for _, x in here])


def product(layer, row):
    return np.prod([np.ones(WIDTH), *(x for x in features(layer, row) if x is not None)], axis=0)


def gated(layer, row):
    vectors = features(layer, row)
    everything = np.concatenate([np.zeros(WIDTH) if x is None else x for x in vectors])
    total = np.zeros(WIDTH)
    for gate, x in zip(layer.gates, vectors, strict=True):
        if x is not None:
            total += np.tanh(x) / (1 + np.exp(-dense(gate, everything)))
    return total


def attention(layer, row):
    here = [x for x in features(layer, row) if x is not None]
    v = layer.score.kernel.numpy()[:, 0]
    return convex([v @ np.tanh(dense(layer.hidden, x)) for x in here], here)


def cross_attention(layer, row):
    projected = [None if x is None else dense(p, x) for p, x in zip(layer.projections, row, strict=True)]
    results = []
    for i, x in enumerate(projected):
        if x is None:
            continue
        others = [other for j, other in enumerate(projected) if j != i and other is not None]
        keys = np.concatenate([layer.nothing.numpy()[0], *others])
        query, query_bias, key, key_bias, value, value_bias, out, out_bias = (
            w.numpy().astype("float64") for w in layer.attentions[i].weights
        )
        y = np.zeros_like(x) + out_bias
        for head in range(query.shape[1]):
            q, k = x @ query[:, head] + query_bias[head], keys @ key[:, head] + key_bias[head]
            seen = softmax(q @ k.T / np.sqrt(k.shape[-1])) @ (keys @ value[:, head] + value_bias[head])
            y += seen @ out[head]
        y = x + y
        y = (y - y.mean(axis=-1, keepdims=True)) / np.sqrt(y.var(axis=-1, keepdims=True) + layer.norms[i].epsilon)
        results.append((y * layer.norms[i].gamma.numpy() + layer.norms[i].beta.numpy()).mean(axis=0))
    return np.mean(results, axis=0) if results else np.zeros(WIDTH)


def bilinear(layer, row):
    factors = [np.tanh(x) for x in features(layer, row) if x is not None]
    return dense(layer.output_projection, np.prod([np.ones(layer.rank), *factors], axis=0))


def tensor(layer, row):
    factors = [with_one(x, layer.tensor_width) for x in features(layer, row)]
    return dense(layer.output_projection, functools.reduce(np.multiply.outer, factors).ravel())


def low_rank(layer, row):
    total = layer.bias.numpy().astype("float64")
    for r, weight in enumerate(layer.rank_weights.numpy()):
        vectors = [with_one(x, WIDTH) @ layer.factors.numpy()[i, r] for i, x in enumerate(features(layer, row))]
        total = total + weight * np.prod(vectors, axis=0)
    return total


def film(layer, row):
    vectors = features(layer, row)
    main = layer.names.index(layer.modulated) if layer.modulated else 0
    gamma, beta = np.zeros(WIDTH), np.zeros(WIDTH)
    others = [x for i, x in enumerate(vectors) if i != main]
    for modulation, x in zip(layer.modulations, others, strict=True):
        if x is not None:
            change = dense(modulation, x)
            gamma, beta = gamma + change[:WIDTH], beta + change[WIDTH:]
    x = layer.stand_in.numpy()[None] if row[main] is None else dense(layer.projections[main], row[main])
    return np.maximum((1 + gamma) * x + beta, 0).mean(axis=0)


ORACLES = {
    "concat": concat, "sum": add, "weighted_sum": weighted_sum, "product": product, "gated": gated,
    "attention": attention, "cross_attention": cross_attention, "bilinear": bilinear, "tensor": tensor,
    "low_rank": low_rank, "film": film,
}  # fmt: skip


def by_hand(name, layer, tokens, masks, presence):
    rows = []
    for r, here in enumerate(presence):
        row = []
        for i, modality in enumerate(sorted(tokens)):
            x = tokens[modality][r].astype("float64")
            if modality in masks:
                x = x[masks[modality][r].numpy()]
            row.append(x if here[i] else None)
        rows.append(ORACLES[name](layer, row))
    return np.array(rows)


@pytest.mark.parametrize("num_modalities", [1, 2, 3])
@every_fusion
def test_equals_numpy(name, more, num_modalities):
    layer = make(name, more)
    tokens, masks, presence = batch(num_modalities)
    layer(tokens, presence)
    randomize(layer)
    everywhere = np.ones_like(presence)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(layer(tokens, presence, masks), by_hand(name, layer, tokens, masks, presence))
    close(layer(tokens, presence), by_hand(name, layer, tokens, {}, presence))
    close(layer(tokens, tokens_mask=masks), by_hand(name, layer, tokens, masks, everywhere))
    np.testing.assert_array_equal(layer(tokens, tokens_mask=masks), layer(tokens, everywhere, masks))


@every_fusion
def test_an_absent_modality_changes_nothing_and_gets_no_gradient(name, more):
    layer = make(name, more)
    tokens, masks, presence = batch(3)
    layer(tokens, presence)
    randomize(layer)
    expected = layer(tokens, presence, masks).numpy()
    absent = {n: presence[:, i] == 0 for i, n in enumerate(sorted(tokens))}
    for value in (1e6, np.nan):
        changed = {n: tf.constant(np.where(absent[n][:, None, None], value, x), "float32") for n, x in tokens.items()}
        for any_token in (True, False):
            other = {"text": tf.where(absent["text"][:, None], any_token, masks["text"])}
            with tf.GradientTape() as tape:
                tape.watch(changed)
                output = layer(changed, presence, other)
                total = tf.reduce_sum(output * tf.random.stateless_normal(output.shape, (0, 0)))
            np.testing.assert_array_equal(output, expected)
            gradients, of_weights = tape.gradient(total, (changed, layer.trainable_weights))
            for n, gradient in gradients.items():
                assert (gradient.numpy()[absent[n]] == 0).all()
                assert gradient.numpy()[~absent[n]].any()
            for weight, gradient in zip(layer.trainable_weights, of_weights, strict=True):
                assert np.isfinite(gradient).all(), weight.path
                # Whatever a query adds to all its keys leaves their softmax as it is.
                assert weight.path.endswith("key/bias") or np.abs(gradient).max() > 1e-6, weight.path


@pytest.mark.parametrize("with_presence", [False, True])
@every_fusion
def test_padding_changes_nothing(name, more, with_presence):
    """The mask comes by itself from the embedding, whether presence is given or not."""
    layer, embedding = make(name, more), TokenEmbedding(9, 3)
    ids = np.array([[4, 2, 5], [7, 0, 0], [3, 8, 0]])
    image = np.random.default_rng(0).normal(size=(3, 6, 5)).astype("float32")
    presence = [np.ones((3, 2), "float32")] if with_presence else []
    layer({"image": image, "text": embedding(ids)}, *presence)
    randomize(layer)
    randomize(embedding)  # the vector of padding is anything but zero
    short = layer({"image": image, "text": embedding(ids)}, *presence).numpy()
    longer = layer({"image": image, "text": embedding(np.pad(ids, ((0, 0), (0, 4))))}, *presence)
    np.testing.assert_allclose(longer, short, rtol=1e-5, atol=1e-6)
    for r, length in enumerate((3, 1, 2)):
        x = {"image": image[r : r + 1], "text": embedding.table.numpy()[ids[r : r + 1, :length]]}
        np.testing.assert_allclose(layer(x)[0], short[r], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("with_presence", [False, True])
@every_fusion
def test_saved_model_gives_the_same(name, more, with_presence, tmp_path):
    pixels, ids, present = keras.Input((6, 5)), keras.Input((5,), dtype="int32"), keras.Input((2,))
    layer = make(name, more)
    tokens = {"image": pixels, "text": TokenEmbedding(9, 3)(ids)}
    output = layer(tokens, present) if with_presence else layer(tokens)
    model = keras.Model([pixels, ids, present] if with_presence else [pixels, ids], output)
    assert model.output_shape == (None, WIDTH)
    randomize(model)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(4, 6, 5)), rng.integers(0, 9, (4, 5)), np.array([[1, 0], [0, 1], [1, 1], [0, 0]])]
    arrays = [np.asarray(array, x.dtype) for array, x in zip(arrays, model.inputs, strict=False)]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(arrays), model(arrays))
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_film_modulates_the_modality_it_is_told_to():
    tokens, _, presence = batch(2)
    values = []
    for modulated in (None, "image", "text"):
        layer = fusion.FiLM(WIDTH, modulated=modulated)
        layer(tokens, presence)
        randomize(layer)
        values.append(layer(tokens, presence).numpy())
    np.testing.assert_array_equal(values[0], values[1])
    assert np.abs(values[1] - values[2]).max() > 0.1


LOGITS = {n: np.random.default_rng(i).normal(size=(8, 3)).astype("float32") for i, n in enumerate(("b", "a", "c"))}


@pytest.mark.parametrize("name", fusion.DECISION_FUSIONS)
@pytest.mark.parametrize("num_modalities", [1, 2, 3])
def test_decision_fusions_equal_numpy(name, num_modalities):
    assert name == "late"  # a new one needs an oracle
    layer = fusion.DECISION_FUSIONS[name]()
    names = ["a", "b", "c"][:num_modalities]
    logits = {n: LOGITS[n] for n in reversed(names)}
    presence = np.array(list(itertools.product((1, 0), repeat=3)), "float32")[:, :num_modalities]
    expected = [
        np.mean([logits[n][r] for n, p in zip(names, here, strict=True) if p], axis=0) if here.any() else np.zeros(3)
        for r, here in enumerate(presence)
    ]
    np.testing.assert_allclose(layer(logits, presence), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(logits), np.mean([logits[n] for n in names], axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(logits), layer(logits, np.ones_like(presence)), rtol=1e-6)
    changed = {
        n: tf.constant(np.where(presence[:, i : i + 1] == 0, np.nan, logits[n]), "float32") for i, n in enumerate(names)
    }
    with tf.GradientTape() as tape:
        tape.watch(changed)
        total = tf.reduce_sum(layer(changed, presence) ** 2)
    np.testing.assert_array_equal(layer(changed, presence), layer(logits, presence))
    gradients = tape.gradient(total, changed)
    for i, n in enumerate(names):
        assert (gradients[n].numpy()[presence[:, i] == 0] == 0).all()
        assert gradients[n].numpy()[presence[:, i] == 1].all()


@pytest.mark.parametrize("name", fusion.DECISION_FUSIONS)
def test_saved_decision_fusion_gives_the_same(name, tmp_path):
    inputs = {n: keras.Input((3,), name=n) for n in LOGITS}
    present = keras.Input((3,), name="presence")
    model = keras.Model({**inputs, "presence": present}, fusion.DECISION_FUSIONS[name]()(inputs, present))
    assert model.output_shape == (None, 3)
    model.save(tmp_path / "model.keras")
    arrays = {**LOGITS, "presence": np.random.default_rng(0).integers(0, 2, (8, 3)).astype("float32")}
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(arrays), model(arrays))


@every_fusion
def test_other_names_are_refused(name, more):
    layer = make(name, more)
    tokens, _, presence = batch(2)
    layer(tokens, presence)
    with pytest.raises(ValueError, match=r"Expected tokens of \['image', 'text'\]. Received: \['image', 'txt'\]"):
        layer({"image": tokens["image"], "txt": tokens["text"]}, presence)
    with pytest.raises(ValueError, match=r"Received: \['image'\]"):
        layer({"image": tokens["image"]})


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: fusion.Tensor(4, tensor_width=1000), "3 modalities of tensor_width=1000, 1,003,003,001 numbers"),
        (lambda: fusion.FiLM(4, modulated="video"), r"one of \['audio', 'image', 'text'\]. .* modulated='video'"),
        (lambda: fusion.CrossAttention(6, num_heads=4), "width=6, num_heads=4"),
    ],
)
def test_wrong_settings_are_refused(make_layer, message):
    tokens, _, presence = batch(3)
    with pytest.raises(ValueError, match=message):
        make_layer()(tokens, presence)
