"""Attention, transformer blocks, relations and coordinates, each against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mmkeras import layers

RNG = np.random.default_rng(0)
MASK = np.arange(6) < np.array([[6], [3], [1]])


def draw(*shape):
    return RNG.normal(size=shape).astype("float32")


def weights_of(layer):
    """`{path without the layer's own name: array}`."""
    return {w.path.split("/", 1)[1]: w.numpy() for w in layer.weights}


def softmax(x, mask=None):
    x = np.where(mask, x, -np.inf) if mask is not None else x
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def randomized(layer, *inputs, **options):
    """The layer, built, with weights of a size that matters."""
    layer(*inputs, **options)
    for w in layer.weights:
        w.assign(0.5 * RNG.normal(size=w.shape))
    return layer


@pytest.mark.parametrize("asked", [True, False])
def test_attention_pool_equals_numpys(asked):
    tokens, query = draw(3, 6, 4), draw(3, 5)
    given = (tokens, query) if asked else (tokens,)
    layer = randomized(layers.AttentionPool(7), *given)
    vector, weights = layer(*given, tokens_mask=MASK)
    w = weights_of(layer)
    hidden = tokens @ w["of_token/kernel"] + w["of_token/bias"]
    hidden += (query @ w["of_query/kernel"])[:, None] if asked else 0
    expected = softmax((np.tanh(hidden) @ w["score/kernel"])[..., 0], MASK)
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(vector, np.einsum("bl,blw->bw", expected, tokens), rtol=1e-4, atol=1e-5)
    assert (weights.numpy()[~MASK] == 0).all()


def test_co_attention_equals_numpys():
    a, b = draw(3, 4, 5), draw(3, 6, 3)
    layer = randomized(layers.ParallelCoAttention(7), a, b)
    seen_a, seen_b, of_a, of_b = layer(a, b, b_mask=MASK)
    w = weights_of(layer)
    affinity = np.tanh((b @ w["affinity/kernel"]) @ a.transpose(0, 2, 1)) * MASK[:, :, None]
    own_a, own_b = a @ w["of_a/kernel"], b @ w["of_b/kernel"]
    expected_a = softmax((np.tanh(own_a + affinity.transpose(0, 2, 1) @ own_b) @ w["score_a/kernel"])[..., 0])
    expected_b = softmax((np.tanh(own_b + affinity @ own_a) @ w["score_b/kernel"])[..., 0], MASK)
    np.testing.assert_allclose(of_a, expected_a, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_b, expected_b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen_a, np.einsum("bl,blw->bw", expected_a, a), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen_b, np.einsum("bl,blw->bw", expected_b, b), rtol=1e-4, atol=1e-5)


def normed(x, w, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    return x * w[f"{name}/gamma"] + w[f"{name}/beta"]


def looked(x, others, w, name, mask):
    """One head's attention, `(batch, length, width)`."""
    q, k, v = (
        np.einsum("blw,whd->blhd", t, w[f"{name}/{part}/kernel"])[:, :, 0] + w[f"{name}/{part}/bias"][0]
        for t, part in ((x, "query"), (others, "key"), (others, "value"))
    )
    shares = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]), mask)
    return (
        np.einsum("bld,dw->blw", shares @ v, w[f"{name}/attention_output/kernel"][0])
        + w[f"{name}/attention_output/bias"]
    )


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_block_equals_numpys(causal):
    x, others = draw(3, 4, 8), draw(3, 6, 5)
    layer = randomized(layers.TransformerBlock(1, use_causal_mask=causal), x, others)
    value = layer(x, others, others_mask=MASK)
    w = weights_of(layer)
    own = np.tril(np.ones((4, 4), bool))[None] if causal else None
    y = normed(x, w, "norm_0")
    y = x + looked(y, y, w, "to_own", own)
    y = y + looked(normed(y, w, "norm_1"), others, w, "to_others", MASK[:, None])
    hidden = normed(y, w, "norm_2") @ w["hidden/kernel"] + w["hidden/bias"]
    hidden = keras.ops.convert_to_numpy(keras.activations.gelu(hidden))
    np.testing.assert_allclose(value, y + hidden @ w["output/kernel"] + w["output/bias"], rtol=1e-3, atol=1e-4)


def test_transformer_block_passes_masks_on():
    ids = np.array([[3, 4, 5, 0, 0]])
    embedding, block = layers.TokenEmbedding(9, 8), layers.TransformerBlock(2)
    padded, short = block(embedding(ids)), block(embedding(ids[:, :3]))
    np.testing.assert_allclose(padded[:, :3], short, rtol=1e-5, atol=1e-6)
    vector, weights = layers.AttentionPool(3)(padded)
    np.testing.assert_array_equal(weights[0, 3:], [0, 0])
    assert vector.shape == (1, 8)


@pytest.mark.filterwarnings("error:You are using a softmax")
def test_a_token_that_is_alone_looks_at_itself_without_a_warning():
    x, tokens, block = draw(2, 1, 8), keras.Input((1, 8)), layers.TransformerBlock(2)
    model = keras.Model(tokens, block(tokens, tokens))
    np.testing.assert_allclose(model.predict(x, verbose=0), block(x, x), rtol=1e-5, atol=1e-6)


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="divisible by num_heads=3. Received: width=8"):
        layers.TransformerBlock(3)(draw(1, 2, 8))


def test_relations_equal_a_loop_over_pairs():
    objects, question = draw(2, 5, 4), draw(2, 3)
    layer = randomized(layers.Relations(6), objects, question)
    pairs, shares = layer(objects, question)
    w = weights_of(layer)
    first = np.concatenate([w["first/kernel"], w["second/kernel"], w["question/kernel"]])
    expected, sizes = np.zeros((2, 6)), np.zeros((2, 5))
    for row in range(2):
        for i in range(5):
            for j in range(5):
                both = np.concatenate([objects[row, i], objects[row, j], question[row]])
                g = np.maximum(both @ first + w["question/bias"], 0)
                g = np.maximum(g @ w["hidden/kernel"] + w["hidden/bias"], 0)
                expected[row] += g / 5
                sizes[row, [i]] += g.sum()
                sizes[row, [j]] += g.sum()
    np.testing.assert_allclose(pairs, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shares, sizes / sizes.sum(-1, keepdims=True), rtol=1e-4, atol=1e-5)


def test_relations_do_not_depend_on_the_order_of_objects():
    objects, question, order = draw(2, 5, 4), draw(2, 3), [3, 0, 4, 2, 1]
    layer = randomized(layers.Relations(6), objects, question)
    (pairs, shares), (again, permuted) = layer(objects, question), layer(objects[:, order], question)
    np.testing.assert_allclose(again, pairs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(permuted, shares.numpy()[:, order], rtol=1e-4, atol=1e-5)


def test_coordinates_are_places():
    tokens = draw(2, 6, 3)
    placed = layers.AddCoordinates((2, 3))(tokens).numpy()
    np.testing.assert_array_equal(placed[..., :3], tokens)
    np.testing.assert_allclose(placed[1, :, 3], [-1, -1, -1, 1, 1, 1])
    np.testing.assert_allclose(placed[1, :, 4], [-1, 0, 1, -1, 0, 1])


def test_absent_features_keep_the_mask():
    ids = keras.Input((4,), dtype="int32")
    presence = keras.Input(())
    filled = layers.FillAbsent()(layers.TokenEmbedding(9, 3)(ids), presence)
    vector, _ = layers.AttentionPool(2)(filled)
    model = keras.Model([ids, presence], vector)
    x = np.array([[3, 4, 0, 0], [3, 4, 5, 6]])
    with tf.GradientTape() as tape:
        value = model([x, np.ones(2)])
        loss = tf.reduce_sum(value[0])
    table = next(layer.table for layer in model.layers if hasattr(layer, "table"))
    gradient = tf.convert_to_tensor(tape.gradient(loss, table)).numpy()
    assert (gradient[0] == 0).all()  # padding is not looked at
    assert (gradient[3] != 0).any()
