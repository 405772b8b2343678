"""Layers against NumPy, Pillow and plain Python."""

import io
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmkeras import layers

RNG = np.random.default_rng(0)


def with_gradient(function, x):
    """The value of a function and its gradient, as NumPy arrays."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
        total = tf.reduce_sum(value)
    return value.numpy(), tape.gradient(total, x).numpy()


def saved_and_loaded(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def strings(*texts):
    return tf.constant(np.array(texts, dtype=object))


# Tokens and vectors


def test_token_embedding_masks_padding_but_never_the_first():
    layer = layers.TokenEmbedding(10, 4)
    ids = np.array([[5, 7, 0, 0], [0, 0, 0, 0], [3, 0, 9, 1]])
    tokens = layer(ids)
    for row, column in np.ndindex(ids.shape):
        np.testing.assert_array_equal(tokens[row, column], layer.table[ids[row, column]])
    expected = [[True, True, False, False], [True, False, False, False], [True, False, True, True]]
    np.testing.assert_array_equal(layer.compute_mask(ids), expected)
    np.testing.assert_array_equal(keras.src.backend.get_keras_mask(tokens), expected)


def test_l2_normalize():
    x = RNG.normal(size=(5, 3)).astype("float32")
    x[2] = 0
    value, gradient = with_gradient(layers.L2Normalize(), x)
    np.testing.assert_allclose(value, [v / (np.linalg.norm(v) or 1) for v in x], rtol=1e-6)
    assert np.isfinite(gradient).all()
    for half in ("float16", "bfloat16"):
        low, gradient = with_gradient(layers.L2Normalize(dtype=half), x.astype(half))
        np.testing.assert_allclose(low.astype("float32"), value, atol=0.01)
        assert np.isfinite(gradient.astype("float32")).all()
    _, gradient = with_gradient(layers.L2Normalize(), x)
    for i in (0, 1, 3, 4):  # d sum(x / |x|) / dx = (1 - u sum(u)) / |x|
        u, length = x[i] / np.linalg.norm(x[i]), np.linalg.norm(x[i])
        np.testing.assert_allclose(gradient[i], (1 - u * u.sum()) / length, rtol=1e-4, atol=1e-6)


def test_the_mask_of_what_is_absent_says_nothing():
    layer, ids = layers.FillAbsent(), np.array([[5, 6, 0, 0], [5, 6, 0, 0]])
    filled = layer(layers.TokenEmbedding(10, 3)(ids), np.array([1.0, 0.0]))
    mask = keras.src.backend.get_keras_mask(filled)
    np.testing.assert_array_equal(mask, [[True, True, False, False], [True] * 4])


@pytest.mark.parametrize(("scale", "bias"), [(1 / 0.07, None), (10.0, -10.0), (100.0, 0.5), (2000.0, None)])
def test_similarity_scale(scale, bias):
    layer = layers.SimilarityScale(scale, bias)
    rows = layer(np.zeros((3, 5)))
    np.testing.assert_allclose(rows, [[min(scale, 100), bias or 0]] * 3, rtol=1e-5)
    assert [w.name for w in layer.weights] == ["log_scale"] + ["bias"] * (bias is not None)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(np.zeros((3, 5)))[:, 0])
    slope = tape.gradient(total, layer.log_scale)
    assert float(slope) == pytest.approx(3 * min(scale, 100), rel=1e-5)


def test_similarity_scale_stops_at_100_and_comes_back():
    layer = layers.SimilarityScale(99.0)
    layer(np.zeros((1, 2)))
    optimizer = keras.optimizers.SGD(1.0)
    for gradient, expected in ((-5.0, 100.0), (-5.0, 100.0), (math.log(2), 50.0)):
        optimizer.apply([tf.constant(gradient)], [layer.log_scale])
        assert float(layer(np.zeros((1, 2)))[0, 0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("how", ["mean", "max", "both"])
def test_pool_leaves_masked_tokens_out(how):
    tokens = RNG.normal(-5, 1, size=(3, 6, 4)).astype("float32")
    mask = np.arange(6) < np.array([[6], [2], [1]])
    tokens[~mask] = 1e6
    kept = [t[m] for t, m in zip(tokens, mask, strict=True)]
    parts = {"mean": [k.mean(axis=0) for k in kept], "max": [k.max(axis=0) for k in kept]}
    expected = np.concatenate([parts[p] for p in (("mean", "max") if how == "both" else (how,))], axis=-1)
    layer = layers.Pool(how)
    value, gradient = with_gradient(lambda x: layer(x, mask=mask), tokens)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert (gradient[~mask] == 0).all()
    np.testing.assert_allclose(layer(tokens[:1]), expected[:1], rtol=1e-5)
    embedding = layers.TokenEmbedding(9, 4)  # the mask comes by itself from an embedding
    short, padded = np.array([[3, 4]]), np.array([[3, 4, 0, 0, 0]])
    np.testing.assert_allclose(layer(embedding(padded)), layer(embedding(short)), rtol=1e-6)


def test_pool_flattens_with_masked_tokens_as_zeros():
    tokens = RNG.normal(size=(2, 3, 4)).astype("float32")
    mask = np.arange(3) < np.array([[3], [1]])
    expected = np.where(mask[..., None], tokens, 0).reshape(2, 12)
    layer = layers.Pool("flatten")
    value, gradient = with_gradient(lambda x: layer(x, mask=mask), tokens)
    np.testing.assert_array_equal(value, expected)
    assert (gradient[~mask] == 0).all()
    np.testing.assert_array_equal(layer(tokens), tokens.reshape(2, 12))


# Presence


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.8])
def test_modality_dropout_drops_at_its_rate_and_never_all(rate):
    layer = layers.ModalityDropout(rate, seed=1)
    presence = np.repeat(np.array(list(itertools.product((0, 1), repeat=3)), "float32"), 4000, axis=0)
    kept = layer(presence, training=True).numpy()
    assert np.isin(kept, (0, 1)).all()
    assert (kept <= presence).all()
    np.testing.assert_array_equal(kept.any(axis=1), presence.any(axis=1))
    for had in (1, 2, 3):
        rows = presence.sum(axis=1) == had
        dropped = 1 - kept[rows].sum() / presence[rows].sum()
        # All of them go with probability rate ** had, and then all stay.
        assert dropped == pytest.approx(rate - rate**had, abs=0.01)
    np.testing.assert_array_equal(layer(presence, training=False), presence)
    np.testing.assert_array_equal(layer(presence), presence)
    np.testing.assert_array_equal(layers.ModalityDropout(rate, seed=1)(presence, training=True), kept)
    if rate:
        assert (layer(presence, training=True).numpy() != kept).any()


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3), (4, 2, 5, 3)])
def test_fill_absent(shape):
    layer = layers.FillAbsent()
    presence = np.array([1, 0, 1, 0], "float32")
    x = RNG.normal(size=shape).astype("float32")
    layer(x, presence)
    layer.stand_in.assign([1.0, 2.0, 3.0])
    x[1], x[3] = np.nan, 1e6
    value, gradient = with_gradient(lambda x: layer(x, presence), x)
    expected = np.where(presence.reshape(-1, *[1] * (len(shape) - 1)) > 0, x, np.array([1, 2, 3], "float32"))
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient, np.broadcast_to(presence.reshape(-1, *[1] * (len(shape) - 1)), shape))


@pytest.mark.parametrize("normalize", [True, False])
def test_present_mean(normalize):
    presence = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], "float32")
    a, b = RNG.normal(size=(2, 4, 3)).astype("float32")
    a[presence[:, 0] == 0] = np.nan
    expected = [(a[0] + b[0]) / (2 if normalize else 1), a[1], b[2], np.zeros(3)]
    layer = layers.PresentMean(normalize)
    value, gradient = with_gradient(lambda a: layer([a, b], presence), a)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert (gradient[presence[:, 0] == 0] == 0).all()
    assert gradient[presence[:, 0] == 1].all()


def test_raw_presence():
    png = b"\x89PNG\r\n" + bytes(400)
    images = strings(png, b"", b"\0", b"GIF", png)
    texts = strings("a ring", "  \t\n", "", " x", "圆")
    vectors = np.array([[1, 2], [np.nan, 1], [np.inf, 0], [0, 0], [1, -np.inf]], "float32")
    expected = [[1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]]
    np.testing.assert_array_equal(layers.RawPresence()([images, texts, vectors]), expected)


# Pictures


def encoded(image, kind="PNG", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def decoded(data, size=(6, 8), **options):
    return layers.DecodeImage(size, **options)(tf.constant([data])).numpy()[0]


@pytest.mark.parametrize(("sides", "resize", "ratio"), [
    ((31, 31), "stretch", 1), ((32, 32), "stretch", 2), ((63, 200), "stretch", 2), ((64, 64), "stretch", 4),
    ((500, 128), "stretch", 8), ((128, 32), "pad", 8), ((128, 32), "crop", 2),
])  # fmt: skip
def test_a_large_jpeg_is_decoded_to_twice_the_size_at_least(sides, resize, ratio):
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2, 2, 3), "uint8")).resize(sides[::-1])
    jpeg = encoded(smooth, "JPEG", quality=95)
    found = decoded(jpeg, (8, 8), resize=resize)
    layer = layers.DecodeImage((8, 8), resize=resize)
    np.testing.assert_array_equal(found, layer.fitted(tf.io.decode_jpeg(jpeg, channels=3, ratio=ratio)))
    whole = layer.fitted(tf.io.decode_jpeg(jpeg, channels=3)).numpy()
    assert np.abs(found - whole).mean() < 0.01
    assert (np.abs(found - whole).max() == 0) == (ratio == 1)


def pixels_of(data):
    """What Pillow reads, in 0..1, transparency over white."""
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")) / 255


def noise(*shape, dtype="uint8"):
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def palette(transparent):
    """A picture of four colours, one of them transparent if wanted."""
    image = Image.new("P", (8, 6))
    image.putdata((noise(6, 8) % 4).ravel().tolist())
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 90, 80, 70])
    return encoded(image, **({"transparency": 2} if transparent else {}))


def two_frames():
    first, second = (Image.fromarray(np.full((6, 8, 3), c, "uint8")).convert("P") for c in (0, 255))
    return encoded(first, "GIF", save_all=True, append_images=[second])


PICTURES = {
    "rgb": encoded(noise(6, 8, 3)),
    "gray": encoded(noise(6, 8)),
    "black and white": encoded(Image.fromarray(noise(6, 8)).convert("1")),
    "gray with alpha": encoded(Image.fromarray(noise(6, 8, 4)).convert("LA")),
    "alpha": encoded(noise(6, 8, 4)),
    "palette": palette(False),
    "palette with transparency": palette(True),
    "gif": two_frames(),
    "bmp": encoded(noise(6, 8, 3), "BMP"),
    "gray bmp": encoded(noise(6, 8), "BMP"),
    "jpeg": encoded(np.full((6, 8, 3), (200, 30, 90), "uint8"), "JPEG", quality=95),
    "gray jpeg": encoded(noise(6, 8), "JPEG"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_decode_image_equals_pillow(name):
    data = PICTURES[name]
    expected = pixels_of(data)
    # Pillow rounds what it lays over white to whole numbers, and JPEG decoders may differ by a little.
    tolerance = 2.5 / 255 if "jpeg" in name else 1 / 255 if "alpha" in name else 1e-6
    np.testing.assert_allclose(decoded(data), expected, atol=tolerance)
    luma = expected @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(decoded(data, channels=1)[..., 0], luma, atol=tolerance + 5e-4)
    assert expected.min() < 0.5 or name == "gif"


def test_decode_image_of_sixteen_bits_keeps_the_upper_eight():
    pixels = noise(6, 8, dtype="uint16")
    np.testing.assert_allclose(decoded(encoded(pixels))[..., 0], pixels / 65535, atol=1 / 255)


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_image_of_a_batch_with_absent_ones(resize, channels):
    layer = layers.DecodeImage((6, 8), channels, resize)
    data = [PICTURES["rgb"], b"", PICTURES["jpeg"], b""]
    for images in (layer(tf.constant(data)), next(iter(tf.data.Dataset.from_tensors(data).map(layer)))):
        assert images.shape == (4, 6, 8, channels)
        assert not images[1].numpy().any()
        assert not images[3].numpy().any()
        for i in (0, 2):
            np.testing.assert_array_equal(images[i], decoded(data[i], channels=channels))


def test_decode_image_stretches():
    flat = encoded(np.full((5, 9, 3), (10, 120, 250), "uint8"))
    np.testing.assert_allclose(decoded(flat, (8, 3)), np.full((8, 3, 3), (10, 120, 250)) / 255, atol=1e-5)
    sides = np.zeros((10, 20, 3), "uint8")
    sides[:, 10:] = 255
    half = decoded(encoded(sides), (4, 4))  # top stays top and left stays left
    np.testing.assert_allclose(half, np.broadcast_to([0, 0.0, 1, 1], (3, 4, 4)).transpose(1, 2, 0), atol=0.15)
    # Averaged, not sampled: a fine chessboard becomes gray.
    chess = (np.indices((32, 32)).sum(axis=0) % 2 * 255).astype("uint8")
    np.testing.assert_allclose(decoded(encoded(chess), (4, 4)), 0.5, atol=0.02)


def test_decode_image_pads_with_white():
    black = encoded(np.zeros((4, 8, 3), "uint8"))
    expected = np.ones((8, 8, 3))
    expected[2:6] = 0
    np.testing.assert_allclose(decoded(black, (8, 8), resize="pad"), expected, atol=1e-6)
    np.testing.assert_allclose(decoded(black, (16, 16), resize="pad"), expected.repeat(2, 0).repeat(2, 1), atol=1e-6)
    tall = decoded(encoded(np.zeros((8, 4, 3), "uint8")), (8, 8), resize="pad")
    np.testing.assert_allclose(tall, expected.transpose(1, 0, 2), atol=1e-6)


def test_decode_image_crops_the_middle():
    wide = noise(4, 10, 3)
    np.testing.assert_allclose(decoded(encoded(wide), (4, 4), resize="crop"), wide[:, 3:7] / 255, atol=1e-5)
    tall = noise(10, 4, 3)
    np.testing.assert_allclose(decoded(encoded(tall), (4, 4), resize="crop"), tall[3:7] / 255, atol=1e-5)
    # A smaller picture is enlarged until it covers the size: no border is left.
    small = encoded(np.full((3, 7, 3), 77, "uint8"))
    np.testing.assert_allclose(decoded(small, (16, 16), resize="crop"), 77 / 255, atol=1e-5)


def test_decode_image_refuses_what_is_no_picture():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(b"not a picture at all")


# Texts

WORDS = ("red", "circle", "。", "a", "b", "!", "圆")
RED, CIRCLE, STOP, A, B, MARK, ROUND = range(4, 11)
UNKNOWN, END = 1, 3


@pytest.mark.parametrize(
    ("options", "text", "ids"),
    [
        ({}, "red circle", [RED, CIRCLE, END, 0, 0, 0]),
        ({}, "Red  CIRCLE!\n", [RED, CIRCLE, MARK, END, 0, 0]),
        ({}, "red blue circle", [RED, UNKNOWN, CIRCLE, END, 0, 0]),
        ({}, "", [END, 0, 0, 0, 0, 0]),
        ({}, " \t ", [END, 0, 0, 0, 0, 0]),
        ({}, "a a a a a", [A, A, A, A, A, END]),  # exactly full
        ({}, "a a a a a b", [A, A, A, A, A, END]),  # too long
        ({}, "a,b。", [A, UNKNOWN, B, STOP, END, 0]),
        ({"punctuation": "strip"}, "a,b。!", [A, B, END, 0, 0, 0]),
        ({"punctuation": "strip"}, "!!!", [END, 0, 0, 0, 0, 0]),
        ({"punctuation": "keep"}, "a! a b", [UNKNOWN, A, B, END, 0, 0]),
        ({"punctuation": "keep"}, "a ! 。", [A, MARK, STOP, END, 0, 0]),
        ({"lower": False}, "Red red", [UNKNOWN, RED, END, 0, 0, 0]),
        ({}, "red圆a。圆圆", [RED, ROUND, A, STOP, ROUND, END]),  # what sets no spaces is a token a character
        ({"length": 1}, "red", [END]),
        ({"unit": "characters"}, "圆ab。", [ROUND, A, B, STOP, END, 0]),
        ({"unit": "characters"}, "a。b!", [A, STOP, B, MARK, END, 0]),
        ({"unit": "characters"}, "  方圆  ", [UNKNOWN, ROUND, END, 0, 0, 0]),
        ({"unit": "characters"}, "", [END, 0, 0, 0, 0, 0]),
        ({"unit": "characters"}, "ababababa", [A, B, A, B, A, END]),
    ],
)
def test_tokenize_text(options, text, ids):
    layer = layers.TokenizeText(**{"length": 6, "vocabulary": WORDS, **options})
    batched = layer(strings(text, "a", text)).numpy()
    assert batched.dtype == "int32"
    assert batched.tolist() == [ids, layer(strings("a"))[0].numpy().tolist(), ids]


def test_tokenize_text_lowers_letters_of_all_scripts():
    layer = layers.TokenizeText(5, vocabulary=["äöü", "éa", "ж"])
    assert layer(strings("ÄÖÜ ÉA Ж")).numpy().tolist() == [[4, 5, 6, END, 0]]


def test_tokenize_text_survives_bytes_that_are_no_text():
    for unit in ("words", "characters"):
        ids = layers.TokenizeText(4, vocabulary=["a"], unit=unit, lower=False)(strings(b"\xff\xfe", b"a")).numpy()
        assert ids[0, 0] == UNKNOWN
        assert ids[1].tolist() == [4, END, 0, 0]


def read(layer, ids):
    return [text.decode() for text in layer.texts(ids).numpy()]


def test_written_chinese_sets_no_spaces():
    layer = layers.TokenizeText(12, vocabulary=[*"卡片索引ねこ", "card"])
    written = ["卡片索引", "card 卡片 card", "ねこ, 卡"]
    assert read(layer, layer(strings(*written))) == ["卡片索引", "card 卡片 card", "ねこ [UNK] 卡"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=5), min_size=1, max_size=4))
def test_texts_undo_the_ids(rows):
    for unit, joint in (("words", " "), ("characters", "")):
        letters = [[w for w in row if unit == "words" or len(w) == 1] for row in rows]
        layer = layers.TokenizeText(6, vocabulary=WORDS, unit=unit)
        texts = [joint.join(row) for row in letters]
        ids = layer(strings(*texts)).numpy()
        assert [text.replace(" ", "") for text in read(layer, ids)] == [text.replace(" ", "") for text in texts]
        np.testing.assert_array_equal(layer(strings(*read(layer, ids))), ids)  # to the same words, where marks moved
        assert ((ids == END).sum(axis=1) == 1).all()


def test_texts_stop_at_the_end_and_show_the_unknown():
    layer = layers.TokenizeText(6, vocabulary=WORDS)
    ids = np.array([[2, RED, UNKNOWN, END, CIRCLE, 0], [0, RED, 0, A, B, B]])
    assert read(layer, ids) == ["red [UNK]", "red a b b"]
    mapped = tf.data.Dataset.from_tensors(ids).map(layer.texts)
    assert next(iter(mapped)).numpy().tolist() == [b"red [UNK]", b"red a b b"]


def test_marks_stand_at_the_word_before_in_texts_that_are_written():
    layer = layers.TokenizeText(12, vocabulary=["a", "circle", ",", "ring", ".", "(", ")"])
    said = "a circle, a ring (a circle)."
    assert layer.texts(layer(np.array([said]))).numpy()[0].decode() == said
    kept = layers.TokenizeText(12, vocabulary=["a", ","], punctuation="keep")
    assert kept.texts(kept(np.array(["a , a"]))).numpy()[0] == b"a , a"


def test_tokens_are_counted_as_they_are_split():
    layer = layers.TokenizeText(6)
    assert layer.count(np.array(["A red, red ring", "", "圆 a"])) == {"a": 2, "red": 2, ",": 1, "ring": 1, "圆": 1}
    assert layers.TokenizeText(6, unit="characters").count(np.array(["圆，圆"])) == {"圆": 2, "，": 1}
    with pytest.raises(ValueError, match="no vocabulary"):
        layer(strings("a"))
    layer.set_vocabulary(["ring"])
    assert layer(strings("a ring"))[0, :3].numpy().tolist() == [UNKNOWN, 4, END]


# Labels and vectors


def test_encode_label_and_tags():
    names = ["cat", "dog", "Kuh 1"]
    assert layers.EncodeLabel(names)(strings("dog", "cow", "", "Kuh 1", "Dog")).numpy().tolist() == [1, -1, -1, 2, -1]
    tags = layers.EncodeTags(names)(strings("dog\tcat", "cow", "", "Kuh 1\tcow", "dog\tdog"))
    assert tags.numpy().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert layers.EncodeTags(names)(strings("", "")).numpy().tolist() == [[0, 0, 0]] * 2
    for layer in (layers.EncodeLabel(), layers.EncodeTags()):
        with pytest.raises(ValueError, match="Fit them first"):
            layer(strings("dog"))


def test_standardize_vector():
    x = RNG.normal([3, -100, 7], [2, 50, 0], (200, 3)).astype("float32")
    dirty = np.concatenate([x, [[np.nan] * 3, [1, np.inf, 2], [1e9, np.nan, 0]]]).astype("float32")
    layer = layers.StandardizeVector()
    np.testing.assert_array_equal(layer(x), x)  # not fitted yet
    layer.fit(dirty)
    value = layer(dirty).numpy()
    np.testing.assert_allclose(value[:200].mean(axis=0), [0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(value[:200].std(axis=0), [1, 1, 0], atol=1e-5)
    deviation = np.array([*x.std(axis=0)[:2], 1])  # a feature that does not vary is only moved
    np.testing.assert_allclose(value[:200], (x - x.mean(axis=0)) / deviation, rtol=1e-3, atol=1e-4)
    assert not value[200].any()
    assert np.isfinite(value).all()


# Round trips

NUMERIC = {
    "token_embedding": (layers.TokenEmbedding(9, 3), [(4,)]),
    "l2_normalize": (layers.L2Normalize(), [(4,)]),
    "similarity_scale": (layers.SimilarityScale(7.0, -1.0), [(4,)]),
    "pool": (layers.Pool("both"), [(5, 4)]),
    "flatten": (layers.Pool("flatten"), [(5, 4)]),
    "add_coordinates": (layers.AddCoordinates((2, 3)), [(6, 4)]),
    "add_position": (layers.AddPosition(5), [(5, 4)]),
    "transformer_block": (layers.TransformerBlock(2, 0.1, True), [(5, 4), (3, 6)]),
    "modality_dropout": (layers.ModalityDropout(0.4, seed=3), [(4,)]),
    "fill_absent": (layers.FillAbsent(), [(5, 4), ()]),
    "present_mean": (layers.PresentMean(False), [[(4,), (4,)], (2,)]),
    "standardize_vector": (layers.StandardizeVector([1.0, 2.0], [3.0, 0.5]), [(2,)]),
}
RAW = {
    "decode_image": layers.DecodeImage((4, 4), 1, "pad"),
    "tokenize_text": layers.TokenizeText(4, WORDS, "characters", False, "strip"),
    "encode_label": layers.EncodeLabel(["a", "b"]),
    "encode_tags": layers.EncodeTags(["a", "b"]),
}


@pytest.mark.parametrize("name", NUMERIC)
def test_saved_model_gives_the_same(name, tmp_path):
    layer, shapes = NUMERIC[name]
    inputs = [
        [keras.Input(one) for one in shape] if isinstance(shape, list) else keras.Input(shape) for shape in shapes
    ]
    model = keras.Model(keras.tree.flatten(inputs), layer(*inputs))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(rng.normal(size=weight.shape))
    arrays = [rng.integers(0, 2, (6, *x.shape[1:])).astype(x.dtype) for x in model.inputs]
    loaded = saved_and_loaded(model, tmp_path)
    np.testing.assert_array_equal(loaded(arrays), model(arrays))
    assert model.output_shape == (None, *model(arrays).shape[1:])
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("name", RAW)
def test_saved_preprocessor_gives_the_same(name, tmp_path):
    layer = RAW[name]
    raw = keras.Input((), dtype="string")
    model = keras.Model(raw, {"value": layer(raw), "presence": layers.RawPresence()([raw])})
    rows = [PICTURES["rgb"], b""] if name == "decode_image" else ["a", "b\ta", "", "圆 B!", "c"]
    loaded = saved_and_loaded(model, tmp_path)
    expected = model(strings(*rows))
    assert model.output["value"].shape == (None, *expected["value"].shape[1:])
    assert expected["value"].numpy().any()
    mapped = next(iter(tf.data.Dataset.from_tensor_slices(strings(*rows)).batch(9).map(loaded)))
    for value in (loaded(strings(*rows)), mapped):
        keras.tree.map_structure(np.testing.assert_array_equal, value, expected)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Pool("median"), "one of mean, max, both, flatten. Received: how='median'"),
        (lambda: layers.TokenizeText(4, unit="word"), "'words' or 'characters'. Received: unit='word'"),
        (lambda: layers.TokenizeText(4, punctuation="no"), "'strip' or 'keep'. Received: punctuation='no'"),
        (lambda: layers.ModalityDropout(1.0), "Received: rate=1.0"),
        (lambda: layers.ModalityDropout(-0.1), "Received: rate=-0.1"),
        (lambda: layers.DecodeImage((4, 4), resize="zoom"), "'stretch', 'pad' or 'crop'. Received: resize='zoom'"),
        (lambda: layers.DecodeImage((4, 4), channels=4), "Received: channels=4"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_name_that_is_no_layer_is_answered_with_the_list():
    with pytest.raises(AttributeError, match=r"no attribute 'Tokenise'. It has: AddCoordinates, .*TokenizeText"):
        _ = layers.Tokenise


def through(layer, x, dy):
    """`[y, dx, gradients of its weights]` of a layer in training."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    return [y, *tape.gradient(y, [x, *(weight.value for weight in layer.trainable_weights)], output_gradients=dy)]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(9, 3), (6, 5, 3), (6, 5, 4, 3), (6, 2, 5, 4, 3)])
def test_batch_norm_is_that_of_keras(shape, dtype, affine):
    options = {"momentum": 0.8, "scale": affine, "center": affine, "dtype": dtype}
    random = np.random.default_rng(0)
    x, dy = (tf.constant(random.normal(1.0, 3.0, shape), "float64" if dtype == "float64" else "float32") for _ in "xy")
    found = []
    for layer in (keras.layers.BatchNormalization(**options), layers.BatchNormalization(**options)):
        layer.build(x.shape)
        layer.set_weights([np.linspace(0.5, 1.5, 3) * (i + 1) for i in range(len(layer.weights))])
        found.append([*through(layer, x, tf.cast(dy, layer.compute_dtype)), *layer.weights, layer(x, training=False)])
    for ours, expected in zip(*found[::-1], strict=True):
        expected = np.asarray(expected, "float64")
        scale = np.abs(expected).max()
        atol = {"float64": 1e-14, "float32": 2e-6, "mixed_bfloat16": 1e-2}[dtype]
        np.testing.assert_allclose(np.asarray(ours, "float64") / scale, expected / scale, atol=atol)


def test_batch_norm_rounds_less_than_that_of_keras():
    random = np.random.default_rng(0)
    x, dy = random.gamma(1.0, 2.0, (32, 24, 24, 8)).astype("f"), random.normal(0.1, 1.0, (32, 24, 24, 8)).astype("f")
    exact = through(
        keras.layers.BatchNormalization(dtype="float64"), tf.constant(x, "float64"), tf.constant(dy, "float64")
    )
    apart = []
    for layer in (keras.layers.BatchNormalization(), layers.BatchNormalization()):
        found = through(layer, tf.constant(x), tf.constant(dy))
        apart.append(
            [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, map(np.asarray, exact), strict=True)]
        )
    assert max(apart[1]) < 2e-6 < max(apart[0])


def test_batch_norms_second_gradient_is_that_of_keras():
    x = tf.constant(np.random.default_rng(0).normal(1.0, 3.0, (6, 5, 4, 3)))
    found = []
    for layer in (keras.layers.BatchNormalization(dtype="float64"), layers.BatchNormalization(dtype="float64")):
        layer.build(x.shape)

        @tf.function(autograph=False)
        def second(x, layer=layer):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    loss = tf.reduce_sum(layer(x, training=True) ** 3)
                first = inner.gradient(loss, [x, layer.gamma.value])
                whole = tf.reduce_sum(first[0] ** 2) + tf.reduce_sum(first[1] ** 2)
            return outer.gradient(whole, [x, layer.gamma.value, layer.beta.value])

        found.append(second(x))
    for ours, expected in zip(*found[::-1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
        assert np.abs(expected).max() > 0.1


def test_batch_norm_with_a_mask_is_that_of_keras_and_is_saved(tmp_path):
    x, mask = tf.constant(np.arange(24.0).reshape(2, 4, 3), "float32"), tf.constant([[True] * 4, [True, False] * 2])
    masked = [
        kind()(x, training=True, mask=mask) for kind in (layers.BatchNormalization, keras.layers.BatchNormalization)
    ]
    np.testing.assert_array_equal(*masked)
    inputs = keras.Input((4, 3))
    keras.Model(inputs, layers.BatchNormalization(name="norm")(inputs)).save(tmp_path / "model.keras")
    assert type(keras.saving.load_model(tmp_path / "model.keras").get_layer("norm")) is layers.BatchNormalization
