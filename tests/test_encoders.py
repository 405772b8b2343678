"""Encoders and decoders: what they see, what they do not see, and that every weight learns."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mmkeras import data, decoders, encoders
from mmkeras.layers import Pool
from mmkeras.layers.decode_image import DecodeImage

mask_of = keras.src.backend.get_keras_mask
RNG = np.random.default_rng(0)
# Tokens and their width, of 8 x 8 x 3 pixels, width=4
IMAGES = {
    "cnn": (16, 4), "plain_cnn": (16, 4), "resnet": (16, 8), "flat": (1, 192), "vit": (16, 16), "mixer": (16, 16),
    "patches": (16, 16),
}  # fmt: skip


def randomize(model):
    """Random weights, those that begin as zeros too; the averages of batch norm stay."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))


def gradients(model, x, training=False):
    """The gradients of a random number of the outputs that are not masked, by path of weight."""
    with tf.GradientTape() as tape:
        y = model(x, training=training)
        mask = mask_of(y)
        chosen = y * tf.random.stateless_normal(tf.shape(y), (0, 0))
        total = tf.reduce_sum(chosen if mask is None else tf.boolean_mask(chosen, mask))
    weights = model.trainable_weights
    return dict(zip((w.path for w in weights), tape.gradient(total, weights), strict=True))


def check_every_weight_learns(model, x, training=False):
    randomize(model)
    for path, gradient in gradients(model, x, training).items():
        assert gradient is not None, path
        gradient = tf.convert_to_tensor(gradient)
        assert np.isfinite(gradient).all(), path
        # Whatever a query adds to all its keys leaves their softmax as it is.
        assert path.endswith("key/bias") or np.abs(gradient).max() > 1e-6, path


def check_saved_gives_the_same(model, x, path):
    model.save(path / "model.keras")
    loaded = keras.saving.load_model(path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    return loaded


# Pictures


def test_the_lists_of_networks_are_tested_here():
    assert set(encoders.IMAGE_ENCODERS) == set(IMAGES)
    assert set(encoders.TEXT_ENCODERS) == set(TEXTS)


@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 13, 1)])
@pytest.mark.parametrize("network", encoders.IMAGE_ENCODERS)
def test_image_encoder(network, shape, tmp_path):
    model = encoders.image_encoder(shape, network, width=4, name="picture")
    assert model.name == "picture"
    pixels = RNG.random((3, *shape)).astype("float32")
    tokens = model(pixels)
    assert tokens.shape[1:] == model.output_shape[1:]
    if shape == (8, 8, 3):
        assert model.output_shape == (None, *IMAGES[network])
    check_every_weight_learns(model, pixels, training=True)
    check_saved_gives_the_same(model, pixels, tmp_path)
    # At inference a row is encoded by itself.
    np.testing.assert_allclose(model(pixels)[1:2], model(pixels[1:2]), rtol=1e-4, atol=1e-5)


def test_flat_image_encoder_gives_the_pixels():
    pixels = RNG.random((2, 3, 4, 2)).astype("float32")
    np.testing.assert_array_equal(encoders.image_encoder((3, 4, 2), "flat")(pixels), pixels.reshape(2, 1, 24))


def test_image_encoder_tokens_keep_their_places():
    """A change in the upper left corner reaches the first token and not the last."""
    model = encoders.image_encoder((32, 32, 1), "cnn", width=4)
    randomize(model)
    black = np.zeros((1, 32, 32, 1), "float32")
    dot = black.copy()
    dot[0, 1, 1] = 1
    change = np.abs(model(dot) - model(black)).max(axis=-1)[0]
    assert change.shape == (16,)
    assert change[0] > 0
    assert (change[[3, 12, 15]] == 0).all()


def test_image_encoder_drops_whole_channels():
    model = encoders.image_encoder((16, 16, 3), "flat", dropout=0.5)
    ones = np.ones((2, 16, 16, 3), "float32")
    np.testing.assert_array_equal(model(ones), ones.reshape(2, 1, -1))
    dropout = encoders.image_encoder((16, 16, 3), "cnn", width=64, dropout=0.25).get_layer("channel_dropout")
    tokens = dropout(np.ones((50, 16, 128), "float32"), training=True).numpy()
    np.testing.assert_array_equal(tokens, np.broadcast_to(tokens[:, :1], tokens.shape))
    assert (tokens[:, 0] == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert tokens.max() == pytest.approx(1 / 0.75)


def test_image_encoder_of_keras_applications():
    keras.utils.set_random_seed(0)
    model = encoders.image_encoder((32, 32, 1), "MobileNetV2")
    assert model.output_shape == (None, 1, 1280)
    pixels = RNG.random((2, 32, 32, 1)).astype("float32")
    base = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    own = keras.applications.mobilenet_v2.preprocess_input(np.repeat(pixels * 255, 3, axis=-1))
    expected = base(own)[:, 0, 0].numpy()
    assert expected.any()  # small numbers: nothing is trained
    np.testing.assert_allclose(model(pixels)[:, 0], expected, atol=1e-3 * expected.max())
    model = encoders.image_encoder((32, 32, 3), "MobileNetV3Small")  # rescales by itself
    base = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    pixels = np.repeat(pixels, 3, axis=-1)
    np.testing.assert_allclose(model(pixels)[:, 0], base(pixels * 255)[:, 0, 0], rtol=1e-5)


# Texts

ORDERED = ("lstm", "bilstm", "gru", "cnn", "transformer", "words")
TEXTS = (*ORDERED, "bag")


@pytest.mark.parametrize("network", encoders.TEXT_ENCODERS)
def test_padding_changes_nothing(network):
    lengths = (3, 1, 5)
    ids = np.zeros((3, 5), int)
    for row, length in enumerate(lengths):
        ids[row, :length] = RNG.integers(1, 20, length)
    model = encoders.text_encoder(5, 20, network, dim=4, width=6)
    randomize(model)
    longer = encoders.text_encoder(9, 20, network, dim=4, width=6)
    longer.set_weights(model.get_weights())
    tokens, padded = model(ids), longer(np.pad(ids, ((0, 0), (0, 4))))
    assert tokens.shape == (3, 5, 6)
    mask = np.arange(9) < np.array(lengths)[:, None]
    np.testing.assert_array_equal(mask_of(padded), mask)
    np.testing.assert_array_equal(mask_of(tokens), mask[:, :5])
    np.testing.assert_allclose(padded[:, :5][mask[:, :5]], tokens[mask[:, :5]], rtol=1e-5, atol=1e-6)
    pooled = Pool("both")(tokens)
    np.testing.assert_allclose(Pool("both")(padded), pooled, rtol=1e-5, atol=1e-6)
    for row, length in enumerate(lengths):  # the same as the row alone, without any padding
        alone = encoders.text_encoder(length, 20, network, dim=4, width=6)
        alone.set_weights(model.get_weights())
        vector = Pool("both")(alone(ids[row : row + 1, :length]))[0]
        np.testing.assert_allclose(vector, pooled[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", encoders.TEXT_ENCODERS)
def test_order_matters_to_all_but_the_bag(network):
    model = encoders.text_encoder(6, 20, network, dim=4, width=6)
    randomize(model)
    there, back = np.array([[3, 9, 4, 7, 0, 0]]), np.array([[7, 4, 9, 3, 0, 0]])
    pool = Pool("max" if network == "words" else "mean")  # its tokens know their places, but not each other
    change = np.abs(pool(model(there)) - pool(model(back))).max()
    assert change > 1e-2 if network in ORDERED else change < 1e-6


@pytest.mark.parametrize("network", encoders.TEXT_ENCODERS)
def test_text_encoder_learns_and_is_saved_with_its_mask(network, tmp_path):
    model = encoders.text_encoder(6, 20, network, dim=4, width=6, name="words")
    assert model.name == "words"
    assert model.output_shape == (None, 6, 6)
    ids = RNG.integers(0, 20, (8, 6))
    check_every_weight_learns(model, ids)
    table = next(g for path, g in gradients(model, ids).items() if path.endswith("table"))
    used = np.abs(tf.convert_to_tensor(table)).max(axis=-1)
    np.testing.assert_array_equal(np.flatnonzero(used[1:]) + 1, np.setdiff1d(ids, [0]))
    loaded = check_saved_gives_the_same(model, ids, tmp_path)
    np.testing.assert_array_equal(mask_of(loaded(ids)), mask_of(model(ids)))


def test_text_encoder_drops_in_training_only():
    model = encoders.text_encoder(6, 20, "bag", dim=4, width=6, dropout=0.5)
    ids = RNG.integers(1, 20, (8, 6))
    np.testing.assert_array_equal(model(ids), model(ids))
    assert np.abs(model(ids, training=True) - model(ids)).max() > 1e-3


# Vectors


def test_vector_encoder_equals_numpy(tmp_path):
    x = RNG.normal(size=(4, 7)).astype("float32")
    np.testing.assert_array_equal(encoders.vector_encoder(7, "linear")(x), x[:, None])
    model = encoders.vector_encoder(7, "mlp", width=16, dropout=0.5)
    check_every_weight_learns(model, x)
    first, first_bias, second, second_bias = model.get_weights()
    expected = np.maximum(np.maximum(x @ first + first_bias, 0) @ second + second_bias, 0)
    assert model.output_shape == (None, 1, 16)
    np.testing.assert_allclose(model(x)[:, 0], expected, rtol=1e-4, atol=1e-5)
    check_saved_gives_the_same(model, x, tmp_path)


# Decoders

LATENT = RNG.normal(size=(6, 5)).astype("float32")


@pytest.mark.parametrize("shape", [(16, 8, 3), (9, 13, 1)])
@pytest.mark.parametrize("network", decoders.IMAGE_DECODERS)
def test_image_decoder(network, shape, tmp_path):
    model = decoders.image_decoder(5, shape, network, width=4)
    check_every_weight_learns(model, LATENT, training=True)
    pixels = model(LATENT).numpy()
    assert pixels.shape == (6, *shape)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert np.ptp(pixels, axis=0).max() > 0.1  # the latent matters
    check_saved_gives_the_same(model, LATENT, tmp_path)
    if network == "flat":
        kernel, bias = model.get_weights()
        np.testing.assert_allclose(
            pixels, 1 / (1 + np.exp(-(LATENT @ kernel + bias).reshape(6, *shape))), rtol=1e-4, atol=1e-6
        )


def test_text_decoder_tells_its_steps_apart(tmp_path):
    model = decoders.text_decoder(5, 7, 11, width=8)
    assert model.output_shape == (None, 7, 11)
    check_every_weight_learns(model, LATENT)
    logits = model(LATENT).numpy()
    assert np.ptp(logits, axis=1).max() > 1e-2
    check_saved_gives_the_same(model, LATENT, tmp_path)
    positions = next(layer for layer in model.layers if type(layer).__name__ == "AddPosition")
    x = RNG.normal(size=(2, 7, 8)).astype("float32")
    np.testing.assert_allclose(positions(x), x + positions.positions.numpy(), rtol=1e-6)


def test_vector_decoder_equals_numpy(tmp_path):
    model = decoders.vector_decoder(5, 7, width=16)
    check_every_weight_learns(model, LATENT)
    first, first_bias, second, second_bias = model.get_weights()
    np.testing.assert_allclose(
        model(LATENT), np.maximum(LATENT @ first + first_bias, 0) @ second + second_bias, rtol=1e-4, atol=1e-5
    )
    check_saved_gives_the_same(model, LATENT, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: encoders.image_encoder((8, 8, 3), "resnt"),
            "'resnt'. Expected one of cnn, plain_cnn, resnet, flat, vit, mixer, patches, or",
        ),
        (lambda: encoders.image_encoder((8, 8, 3), "mobilenet_v2"), "Unknown image encoder 'mobilenet_v2'"),  # a module
        (lambda: encoders.image_encoder((8, 8, 3), "cnn", weights="imagenet"), "no weights 'imagenet' for .*'cnn'"),
        (lambda: encoders.text_encoder(4, 9, "rnn"), "'rnn'. Expected one of lstm, bilstm, gru, bag, cnn"),
        (lambda: encoders.text_encoder(4, 9, "bilstm", width=5), "must be even. Received: width=5"),
        (lambda: encoders.vector_encoder(4, "mpl"), "'mpl'. Expected one of mlp, linear"),
        (lambda: decoders.image_decoder(4, (8, 8, 3), "gan"), "'gan'. Expected one of cnn, flat"),
    ],
)
def test_unknown_names_are_answered_with_the_list(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def shares_of_variance(tokens):
    """How much of the variance of tokens `(rows, places, width)` is between places, and how much between rows."""
    tokens = np.array(tokens)
    between_places = tokens.mean(axis=0).var(axis=0).sum()
    return between_places, tokens.var(axis=0).mean(axis=0).sum()


def test_before_training_neither_place_nor_content_drowns_the_other():
    keras.utils.set_random_seed(0)
    rows = data.open("scenes:64").train
    decode = DecodeImage((48, 48))
    pixels = decode(tf.constant(rows.cells("image")))
    ids = np.random.default_rng(0).integers(4, 50, (64, 12))
    for encoder, x in (
        (encoders.image_encoder((48, 48, 3), "patches", 32, grid=6), pixels),
        (encoders.text_encoder(12, 50, "words", width=64), ids),
    ):
        places, content = shares_of_variance(encoder(x))
        assert 0.1 < places / content < 10, encoder.name
