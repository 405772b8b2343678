"""Every fusion against NumPy, row by row, from the layer's own weights."""

import collections
import functools
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from mmkeras import fusion
from mmkeras.fusion.bilinear import power_normalized as ours
from mmkeras.layers import TokenEmbedding
from zoo import build

WIDTH = 4
SHAPES = {"audio": (2, 4), "image": (6, 5), "text": (5, 3)}  # (length, width)
OPTIONS = {
    "cross_attention": {"num_heads": 2},
    "bilinear": {"rank": 5},
    "tensor": {"tensor_width": 3},
    "low_rank": {"rank": 2},
    "multiplicative": {"context_width": 3},
    "mfb": {"factors": 3},
    "tucker": {"core_width": 3},
    "mutan": {"rank": 2},
    "block": {"num_chunks": 2, "rank": 3},
    "mcb": {"sketch_width": 7},
    "mixture_of_experts": {"num_experts": 3},
}
CASES = [
    *((name, {}) for name in fusion.FEATURE_FUSIONS),
    ("film", {"modulated": "text"}),
    ("multiplicative", {"main": "text"}),
]
every_fusion = pytest.mark.parametrize(
    ("name", "more"), CASES, ids=[name + "".join(f"-{value}" for value in more.values()) for name, more in CASES]
)


# What is made of what two modalities say to each other.
OF_TWO = {
    "cross_attention", "bilinear", "tensor", "low_rank", "film", "multiplicative", "mfb", "tucker", "mutan", "block",
    "mcb", "cross_modal", "co_attention", "mmtm",
}  # fmt: skip


def numbers_of(name):
    return [2, 3] if name in OF_TWO else [1, 2, 3]


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


def normalized(norm, x):
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + norm.epsilon)
    return x * norm.gamma.numpy() + norm.beta.numpy()


def attended(layer, x, keys):
    query, query_bias, key, key_bias, value, value_bias, out, out_bias = (
        w.numpy().astype("float64") for w in layer.weights
    )
    y = np.zeros_like(x) + out_bias
    for head in range(query.shape[1]):
        q, k = x @ query[:, head] + query_bias[head], keys @ key[:, head] + key_bias[head]
        y = y + softmax(q @ k.T / np.sqrt(k.shape[-1])) @ (keys @ value[:, head] + value_bias[head]) @ out[head]
    return y


def cross_attention(layer, row):
    projected = [None if x is None else dense(p, x) for p, x in zip(layer.projections, row, strict=True)]
    results = []
    for i, x in enumerate(projected):
        if x is None:
            continue
        others = [other for j, other in enumerate(projected) if j != i and other is not None]
        keys = np.concatenate([layer.nothing.numpy()[0], *others])
        results.append(normalized(layer.norms[i], x + attended(layer.attentions[i], x, keys)).mean(axis=0))
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


def deep_sets(layer, row):
    seen = [np.maximum(dense(layer.each, x), 0) for x in features(layer, row) if x is not None]
    return dense(layer.output_projection, sum(seen, np.zeros(2 * WIDTH)))


def multiplicative(layer, row):
    vectors = features(layer, row)
    main = layer.names.index(layer.main) if layer.main else 0
    others = [x for i, x in enumerate(vectors) if i != main]
    z = np.zeros(layer.context_width)
    for context, x in zip(layer.contexts, others, strict=True):
        if x is not None:
            z = z + dense(context, x)
    matrix = np.tensordot(np.append(z, 1.0), layer.interactions.numpy().astype("float64"), 1)
    return with_one(vectors[main], WIDTH) @ matrix


def power_normalized(x):
    x = np.sign(x) * (np.sqrt(np.abs(x) + 1e-4) - 1e-2)
    return x / np.linalg.norm(x)


def mfb(layer, row):
    wide = np.prod([np.ones(WIDTH * layer.factors), *(x for x in features(layer, row) if x is not None)], axis=0)
    return power_normalized([sum(wide[i * layer.factors : (i + 1) * layer.factors]) for i in range(WIDTH)])


def tucker(layer, row):
    stand_ins = layer.stand_ins.numpy()
    filled = [stand_ins[i] if x is None else x for i, x in enumerate(features(layer, row))]
    core = layer.core.kernel.numpy().reshape(*[layer.core_width] * (len(filled) + 1))
    for x in filled:
        core = np.tensordot(x, core, 1)
    return dense(layer.output_projection, core)


def mutan(layer, row):
    total = np.zeros(WIDTH)
    for r in range(layer.rank):
        factors = [
            np.tanh(x) @ layer.factors.numpy()[i, r] for i, x in enumerate(features(layer, row)) if x is not None
        ]
        total += np.prod([np.ones(WIDTH), *factors], axis=0)
    return dense(layer.output_projection, total)


def block(layer, row):
    size, chunks = WIDTH // layer.num_chunks, []
    for c in range(layer.num_chunks):
        total = np.zeros(size)
        for r in range(layer.rank):
            factors = [
                x[c * size : (c + 1) * size] @ layer.factors.numpy()[i, c, r]
                for i, x in enumerate(features(layer, row))
                if x is not None
            ]
            total += np.prod([np.ones(size), *factors], axis=0)
        chunks.append(power_normalized(total))
    return dense(layer.output_projection, np.concatenate(chunks))


def mcb(layer, row):
    result = np.eye(layer.sketch_width)[0]
    for i, x in enumerate(features(layer, row)):
        if x is not None:
            sketch = x @ layer.sketches.numpy()[i]
            result = sum(value * np.roll(sketch, place) for place, value in enumerate(result))  # circular convolution
    return dense(layer.output_projection, power_normalized(result))


def product_of_experts(layer, row):
    here = [(x[:WIDTH], np.exp(-x[WIDTH:])) for x in features(layer, row) if x is not None]
    return sum((m * p for m, p in here), np.zeros(WIDTH)) / sum((p for _, p in here), np.ones(WIDTH))


def mixture_of_experts(layer, row):
    everything = np.concatenate([np.zeros(WIDTH) if x is None else x for x in features(layer, row)])
    said = np.maximum(dense(layer.experts, everything), 0).reshape(-1, WIDTH)
    return softmax(dense(layer.gate, everything)) @ said


ORACLES = {
    "concat": concat, "sum": add, "weighted_sum": weighted_sum, "product": product, "gated": gated,
    "attention": attention, "cross_attention": cross_attention, "bilinear": bilinear, "tensor": tensor,
    "low_rank": low_rank, "film": film, "deep_sets": deep_sets, "multiplicative": multiplicative, "mfb": mfb,
    "tucker": tucker, "mutan": mutan, "block": block, "mcb": mcb, "product_of_experts": product_of_experts,
    "mixture_of_experts": mixture_of_experts,
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


@pytest.mark.parametrize(("name", "more", "num_modalities"), [(*c, n) for c in CASES for n in numbers_of(c[0])])
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


def late(logits):
    return np.mean(logits, axis=0) if logits else np.zeros(3)


def evidential(logits):
    """Dempster's rule over sets of classes: masses of single classes and of all of them, joined set by set."""
    everything = frozenset(range(3))
    joint = {everything: 1.0}
    for x in logits:
        evidence = np.log1p(np.exp(x.astype("float64")))
        mass = {frozenset([k]): e / (evidence.sum() + 3) for k, e in enumerate(evidence)}
        mass[everything] = 3 / (evidence.sum() + 3)
        products = collections.Counter()
        for (a, p), (b, q) in itertools.product(joint.items(), mass.items()):
            products[a & b] += p * q
        conflict = products.pop(frozenset(), 0.0)
        joint = {each: p / (1 - conflict) for each, p in products.items()}
    return np.log([3 / joint[everything] * joint.get(frozenset([k]), 0.0) + 1 for k in range(3)])


DECISION_ORACLES = {"late": late, "evidential": evidential}


@pytest.mark.parametrize("name", fusion.DECISION_FUSIONS)
@pytest.mark.parametrize("num_modalities", [1, 2, 3])
def test_decision_fusions_equal_numpy(name, num_modalities):
    layer, oracle = fusion.DECISION_FUSIONS[name](), DECISION_ORACLES[name]
    names = ["a", "b", "c"][:num_modalities]
    logits = {n: LOGITS[n] for n in reversed(names)}
    presence = np.array(list(itertools.product((1, 0), repeat=3)), "float32")[:, :num_modalities]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    expected = [
        oracle([logits[n][r] for n, p in zip(names, here, strict=True) if p]) for r, here in enumerate(presence)
    ]
    close(layer(logits, presence), expected)
    close(layer(logits), [oracle([logits[n][r] for n in names]) for r in range(8)])
    close(layer(logits), layer(logits, np.ones_like(presence)))
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


# Staged: a picture `(batch, rows, columns, channels)`, a text `(batch, length, channels)` with padding


def stage(seed=0):
    random = np.random.default_rng(seed)
    features = {"image": random.normal(size=(4, 2, 3, 5)).astype("float32"),
                "text": random.normal(size=(4, 6, 3)).astype("float32")}  # fmt: skip
    mask = np.arange(6) < np.array([[6], [2], [4], [1]])
    presence = np.array([[1, 1], [1, 0], [0, 1], [1, 1]], "float32")
    return features, mask, presence, random.normal(size=(4, 7)).astype("float32")


def staged_model(name, **options):
    """The layer after a Masking, so that the padding of the text is told as it is in a model."""
    inputs = {"image": keras.Input((2, 3, 5), name="image"), "text": keras.Input((6, 3), name="text"),
              "presence": keras.Input((2,), name="presence"), "central": keras.Input((7,), name="central")}  # fmt: skip
    text = keras.layers.Masking(mask_value=99.0)(inputs["text"])
    layer = fusion.STAGED_FUSIONS[name](7, name="exchange", **options)
    features, central = layer({"image": inputs["image"], "text": text}, inputs["presence"], inputs["central"])
    after = keras.layers.GlobalAveragePooling1D(name="after")(features["text"])  # which hears of the mask
    return keras.Model(inputs, {**features, "central": central, "after": after})


def weights_by_name(layer):
    return {w.path.split("exchange/")[1]: w.numpy().astype("float64") for w in layer.weights}


@pytest.mark.parametrize("name", fusion.STAGED_FUSIONS)
def test_staged_fusions_equal_numpy(name):
    keras.utils.set_random_seed(0)
    features, mask, presence, central = stage()
    model = staged_model(name)
    layer = model.get_layer("exchange")
    for weight in layer.weights:
        weight.assign(np.random.default_rng(len(weight.path)).normal(size=weight.shape))
    padded = {**features, "text": np.where(mask[..., None], features["text"], 99.0).astype("float32")}
    answer = model({**padded, "presence": presence, "central": central})
    given = {**features, "text": np.where(mask[..., None], features["text"], 0.0)}
    w = weights_by_name(layer)
    for r in range(4):
        vectors = [features["image"][r].mean(axis=(0, 1)) @ w["image_squeeze/kernel"] * presence[r, 0],
                   features["text"][r][mask[r]].mean(axis=0) @ w["text_squeeze/kernel"] * presence[r, 1]]  # fmt: skip
        if name == "mmtm":
            joint = np.maximum(sum(vectors) + w["bias"], 0)
            np.testing.assert_allclose(answer["central"][r], joint, atol=1e-5)
            for i, n in enumerate(("image", "text")):
                gate = 2 / (1 + np.exp(-(joint @ w[f"{n}_gate/kernel"] + w[f"{n}_gate/bias"])))
                expected = given[n][r] * (gate if presence[r, i] else 1)
                np.testing.assert_allclose(answer[n][r], expected, rtol=1e-4, atol=1e-5)
        else:
            total = w["shares"][0] * central[r] + w["shares"][1] * vectors[0] + w["shares"][2] * vectors[1]
            expected = np.maximum(total @ w["central/kernel"] + w["central/bias"], 0)
            np.testing.assert_allclose(answer["central"][r], expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(answer["image"][r], features["image"][r])
        np.testing.assert_allclose(answer["after"][r], answer["text"].numpy()[r][mask[r]].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("name", fusion.STAGED_FUSIONS)
def test_absent_features_change_nothing_of_the_others(name, tmp_path):
    features, _, presence, central = stage()
    model = staged_model(name)
    given = {n: tf.constant(v) for n, v in {**features, "presence": presence, "central": central}.items()}
    before = model(given)
    with tf.GradientTape() as tape:
        watched = {n: given[n] for n in features}
        tape.watch(watched)
        outputs = model({**given, **watched})
        total = tf.reduce_sum(outputs["central"][1:3] ** 2) + tf.reduce_sum(outputs["image"][1] ** 2)
    slopes = tape.gradient(total, watched, unconnected_gradients="zero")
    assert not slopes["text"][1].numpy().any()  # absent there
    assert not slopes["image"][2].numpy().any()
    spoiled = np.where(presence[:, 1:, None] > 0, features["text"], np.nan)
    other = {**given, "text": tf.constant(spoiled, tf.float32)}
    for key in ("central", "image"):
        np.testing.assert_array_equal(model(other)[key], before[key])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")(given)
    assert all(np.array_equal(loaded[key], before[key]) for key in before)


def test_encoders_of_a_staged_fusion_cannot_be_frozen():
    with pytest.raises(ValueError, match="none can be frozen. Received: 'mmtm', freeze="):
        build("fusion_classifier", preset="tiny", fusion="mmtm", freeze="image")


@pytest.mark.parametrize("name", [*fusion.FEATURE_FUSIONS, *fusion.TOKEN_FUSIONS, *fusion.STAGED_FUSIONS])
def test_one_modality_is_refused_by_fusions_of_two(name):
    layer = (fusion.FEATURE_FUSIONS | fusion.TOKEN_FUSIONS | fusion.STAGED_FUSIONS)[name](8)
    tokens, presence = {"text": tf.zeros((2, 3, 4))}, tf.ones((2, 1))
    if name not in OF_TWO:
        layer(tokens, presence)
        return
    with pytest.raises(ValueError, match=f"^{type(layer).__name__} is a fusion of at least 2 modalities. .*: text. "):
        layer(tokens, presence)


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


def test_who_is_unsure_says_little():
    """Evidence for class 0 is not weakened by a modality that has none, as it would be by a mean."""
    sure, unsure = np.array([[30.0, 0.0, 0.0]], "float32"), np.full((1, 3), -20.0, "float32")
    alone = fusion.Evidential()({"a": sure}).numpy()
    np.testing.assert_allclose(fusion.Evidential()({"a": sure, "b": unsure}), alone, rtol=1e-5)
    apart = fusion.Evidential()({"a": sure, "b": sure[:, ::-1]}).numpy()
    assert 3 / np.exp(alone).sum() < 0.1
    np.testing.assert_allclose(apart[0, 0], apart[0, 2], rtol=1e-5)


def test_products_of_sketches_are_those_of_outer_products():
    """A count sketch keeps inner products: <x1, y1><x2, y2> on average over places and signs (Gao 2016)."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2, WIDTH))
    found = []
    for seed in range(0, 50, 2):
        layer = fusion.CompactBilinear(WIDTH, sketch_width=128, seed=seed)
        layer({n: np.ones((1, *SHAPES[n]), "float32") for n in ("image", "text")})
        sketches = layer.sketches.numpy()
        np.testing.assert_array_equal(np.abs(sketches).sum(axis=-1), 1)  # one place each
        both = [np.fft.ifft(np.prod([np.fft.fft(v[i] @ sketches[i]) for i in (0, 1)], axis=0)).real for v in (x, y)]
        found.append(both[0] @ both[1])
    expected = (x[0] @ y[0]) * (x[1] @ y[1])
    assert np.mean(found) == pytest.approx(expected, abs=3 * np.std(found) / np.sqrt(len(found)))
    assert abs(expected) > 3 * np.std(found) / np.sqrt(len(found))  # zero would not pass for it


# From tokens to tokens


def make_token_fusion(name):
    own = {"bottleneck": {"num_bottlenecks": 2}}.get(name, {})
    return fusion.TOKEN_FUSIONS[name](WIDTH, num_layers=2, num_heads=2, **own)


def block_by_hand(block, x, others=None):
    if block.to_own is not None:
        y = normalized(block.norms[0], x)
        x = x + attended(block.to_own, y, y)
    if others is not None:
        x = x + attended(block.to_others, normalized(block.norms[-2], x), others)
    hidden = dense(block.hidden, normalized(block.norms[-1], x))
    gelu = hidden * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2))) / 2
    return x + dense(block.output_layer, gelu)


def transformer(layer, streams):
    x = np.concatenate([tokens + layer.modalities.numpy()[i] for i, tokens in streams.items()])
    for block in layer.stream:
        x = block_by_hand(block, x)
    ends = np.cumsum([len(tokens) for tokens in streams.values()])[:-1]
    return dict(zip(streams, np.split(x, ends), strict=True))


def bottleneck(layer, streams):
    shared = layer.bottlenecks.numpy()[0]
    for step in range(layer.num_layers):
        seen = {i: block_by_hand(layer.streams[i][step], np.concatenate([shared, x])) for i, x in streams.items()}
        streams = {i: x[len(shared) :] for i, x in seen.items()}
        shared = np.mean([x[: len(shared)] for x in seen.values()], axis=0)
    return streams


def co_attention(layer, streams):
    for step in range(layer.num_layers):
        others = {
            i: np.concatenate([layer.nothing.numpy()[0], *(x for j, x in streams.items() if j != i)]) for i in streams
        }
        streams = {i: block_by_hand(layer.streams[i][step], x, others[i]) for i, x in streams.items()}
    return streams


def cross_modal(layer, streams):
    ends = {}
    for i, tokens in streams.items():
        looked, nothing = [], layer.nothing.numpy()[0]
        for j, blocks in zip([j for j in range(len(layer.names)) if j != i], layer.pairs[i], strict=True):
            x = tokens
            for block in blocks:
                x = block_by_hand(block, x, np.concatenate([nothing, streams[j]]) if j in streams else nothing)
            looked.append(x)
        x = dense(layer.joins[i], np.concatenate(looked, axis=-1))
        for block in layer.streams[i]:
            x = block_by_hand(block, x)
        ends[i] = x
    return ends


TOKEN_ORACLES = {
    "transformer": transformer, "cross_modal": cross_modal, "bottleneck": bottleneck, "co_attention": co_attention,
}  # fmt: skip


@pytest.mark.parametrize(("name", "num_modalities"), [(c, n) for c in fusion.TOKEN_FUSIONS for n in numbers_of(c)])
def test_token_fusions_equal_numpy(name, num_modalities):
    layer = make_token_fusion(name)
    tokens, masks, presence = batch(num_modalities)
    layer(tokens, presence)
    randomize(layer)
    found = {n: x.numpy() for n, x in layer(tokens, presence, masks).items()}
    for r, here in enumerate(presence):
        rows = {}
        for i, n in enumerate(sorted(tokens)):
            kept = masks[n][r].numpy() if n in masks else np.ones(SHAPES[n][0], bool)
            if here[i]:
                rows[i] = kept, dense(layer.projections[i], tokens[n][r][kept].astype("float64"))
            else:
                assert not found[n][r].any()
        if rows:
            expected = TOKEN_ORACLES[name](layer, {i: x for i, (_, x) in rows.items()})
        for i, (kept, _) in rows.items():
            ours = found[sorted(tokens)[i]][r][kept]
            np.testing.assert_allclose(ours, normalized(layer.ends[i], expected[i]), rtol=1e-4, atol=2e-5)
    whole = layer(tokens, tokens_mask=masks)
    for n, x in layer(tokens, np.ones_like(presence), masks).items():
        np.testing.assert_array_equal(whole[n], x)


@pytest.mark.parametrize("name", fusion.TOKEN_FUSIONS)
def test_tokens_of_an_absent_modality_change_nothing_and_get_no_gradient(name):
    layer = make_token_fusion(name)
    tokens, masks, presence = batch(3)
    layer(tokens, presence)
    randomize(layer)
    expected = layer(tokens, presence, masks)
    absent = {n: presence[:, i] == 0 for i, n in enumerate(sorted(tokens))}
    for value, any_token in itertools.product((1e6, np.nan), (True, False)):
        changed = {n: tf.constant(np.where(absent[n][:, None, None], value, x), "float32") for n, x in tokens.items()}
        other = {"text": tf.where(absent["text"][:, None], any_token, masks["text"])}
        with tf.GradientTape() as tape:
            tape.watch(changed)
            output = layer(changed, presence, other)
            total = sum(tf.reduce_sum(x * tf.random.stateless_normal(x.shape, (0, 0))) for x in output.values())
        for n, x in output.items():
            np.testing.assert_array_equal(tf.boolean_mask(x, ~absent[n]), tf.boolean_mask(expected[n], ~absent[n]))
        gradients, of_weights = tape.gradient(total, (changed, layer.trainable_weights))
        for n, gradient in gradients.items():
            assert (gradient.numpy()[absent[n]] == 0).all()
            assert gradient.numpy()[~absent[n]].any()
        for weight, gradient in zip(layer.trainable_weights, of_weights, strict=True):
            assert np.isfinite(gradient).all(), weight.path
            assert weight.path.endswith("key/bias") or np.abs(gradient).max() > 1e-6, weight.path


@pytest.mark.parametrize("name", fusion.TOKEN_FUSIONS)
def test_saved_token_fusion_gives_the_same_and_padding_changes_nothing(name, tmp_path):
    pixels, ids = keras.Input((6, 5)), keras.Input((5,), dtype="int32")
    embedding, layer, concat = TokenEmbedding(9, 3), make_token_fusion(name), fusion.Concat(WIDTH)
    tokens = layer({"image": pixels, "text": embedding(ids)})
    assert {n: x.shape for n, x in tokens.items()} == {"image": (None, 6, WIDTH), "text": (None, 5, WIDTH)}
    model = keras.Model([pixels, ids], concat(tokens))
    randomize(model)
    image, words = np.random.default_rng(0).normal(size=(2, 6, 5)).astype("float32"), np.array([[4, 2], [7, 0]])
    padded = np.pad(words, ((0, 0), (0, 3)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded([image, padded]), model([image, padded]))
    for r, length in enumerate((2, 1)):  # the mask goes through to the next layer
        alone = concat(layer({"image": image[r : r + 1], "text": embedding(words[r : r + 1, :length])}))
        np.testing.assert_allclose(model([image, padded])[r], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_nothing_is_normalized_to_nothing_in_half_precision(half):
    x = np.zeros((2, 4), half)
    x[1, 0] = 0.5
    found = ours(tf.constant(x)).numpy().astype("float32")
    np.testing.assert_allclose(found, power_normalized(x.astype("float32")), atol=0.01)


def test_sure_experts_and_sure_opinions_are_numbers_in_half_precision(half_policy):
    random = np.random.default_rng(0)
    x = {name: 10 * random.normal(size=(4, 1, 8)).astype("float16") for name in "ab"}
    experts = fusion.FEATURE_FUSIONS["product_of_experts"](8)
    assert np.isfinite(experts(x)).all()
    logits = {name: np.array([[100, 0, 0]], "float16") for name in "abc"}
    found = fusion.Evidential()(logits).numpy()
    assert found.dtype == "float16"
    exact = fusion.Evidential(dtype="float32")({name: x.astype("float32") for name, x in logits.items()})
    np.testing.assert_allclose(found, exact, rtol=2e-3)


@pytest.fixture
def half_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)
