"""Image encoders: pixels `(batch, height, width, channels)` in 0..1 to tokens, one a place of the last feature map."""

import keras
from keras import layers

from mmkeras.layers import AddPosition, BatchNormalization, TransformerBlock, patch_side
from mmkeras.layers.transformer import heads_of

# Keras' default momentum of 0.99 leaves the averages of batch norm far behind on small data: evaluation stands at
# chance while the loss falls.
BATCH_NORM_MOMENTUM = 0.9


def image_encoder(
    shape: tuple[int, int, int],
    network: str = "resnet",
    width: int = 32,
    dropout: float = 0.0,
    weights: str | None = None,
    grid: int = 4,
    name: str = "image_encoder",
) -> keras.Model:
    """Pixels `(batch, *shape)` to tokens `(batch, places, channels)`.

    Args:
        shape: `(height, width, channels)`.
        network: a name of `IMAGE_ENCODERS`, or of a network of `keras.applications` such as `"MobileNetV2"`.
        width: channels of the first stage; each later one has twice as many. Not used by `keras.applications`.
        dropout: rate of dropping whole channels of the last feature map.
        weights: None, or `"imagenet"` for a network of `keras.applications` (downloads).
        grid: `"cnn"`, `"plain_cnn"` and `"resnet"` halve the sides until the shorter one has so many places or fewer;
            `"vit"`, `"mixer"` and `"patches"` cut it into so many patches.
        name: of the model.

    Raises:
        ValueError: if there is no network of that name, or `weights` for one of our own.

    Example:

    >>> image_encoder((32, 32, 3), "cnn", width=8).output_shape
    (None, 16, 32)
    """
    inputs = keras.Input(shape, name="pixels")
    if network in IMAGE_ENCODERS:
        if weights:
            raise ValueError(
                f"There are no weights {weights!r} for the network {network!r}, only for keras.applications."
            )
        x = IMAGE_ENCODERS[network](inputs, width, grid)
    elif isinstance(getattr(keras.applications, network, None), type(image_encoder)):
        x = _application(inputs, network, weights)
    else:
        raise ValueError(
            f"Unknown image encoder {network!r}. Expected one of {', '.join(IMAGE_ENCODERS)}, or the name of a network "
            "of keras.applications, such as 'MobileNetV2'."
        )
    tokens = layers.Reshape((-1, x.shape[-1]), name="tokens")(x)
    if dropout:
        tokens = layers.Dropout(dropout, noise_shape=(None, 1, tokens.shape[-1]), name="channel_dropout")(tokens)
    return keras.Model(inputs, tokens, name=name)


def cnn(x, width, grid=4):
    """Strided convolutions, halving the sides until the shorter one has `grid` pixels or fewer."""
    return _halved(x, width, grid, lambda x, channels: conv(x, channels, strides=2))


def plain_cnn(x, width, grid=4):
    """`cnn` without batch norm: for steps of few pictures, whose means and deviations tell little of the others'.

    It begins slowly where most pixels are far from zero.
    """
    options = {"strides": 2, "padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
    return _halved(x, width, grid, lambda x, channels: layers.Conv2D(channels, 3, **options)(x))


def _halved(x, channels, grid, convolve):
    while True:
        x = convolve(x, channels)
        if min(x.shape[1:3]) <= grid:
            return x
        channels *= 2


def resnet(x, width, grid=4):
    """A residual network for small pictures in the manner of ResNet-18 (He 2016): stem, then at most six blocks.

    Shortcuts are pooled before they are projected, as in ResNet-D (He 2019).
    """
    x = conv(x, width, strides=2 if min(x.shape[1:3]) > 32 else 1)
    x = _residual(x, width, strides=1)
    for stage, num_blocks in ((2, 2), (4, 2), (8, 1)):
        if min(x.shape[1:3]) <= grid:
            break
        for block in range(num_blocks):
            x = _residual(x, width * stage, strides=2 if block == 0 else 1)
    return x


def flat(x, width, grid=4):
    """No network at all: the pixels as one token, for models that are linear in them (correlational networks)."""
    return layers.Reshape((1, 1, -1))(x)


def vit(x, width, grid=4, num_layers=4):
    """Patches and their positions through transformer blocks (vision transformer, Dosovitskiy 2021)."""
    x, places = _patches(x, 4 * width, grid)
    x = AddPosition(x.shape[1])(x)
    for _ in range(num_layers):
        x = TransformerBlock(heads_of(4 * width))(x)
    return layers.Reshape((*places, 4 * width))(layers.LayerNormalization()(x))


def patches(x, width, grid=4):
    """Patches and their positions as they are, for a model that is a transformer itself."""
    return vit(x, width, grid, num_layers=0)


def mixer(x, width, grid=4, num_layers=4):
    """Patches through dense layers, over the places of a channel and the channels of a place (Tolstikhin 2021)."""
    x, places = _patches(x, 4 * width, grid)
    for _ in range(num_layers):
        y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        # No bias: it would add one number to all channels of a place, which the next norm takes out again.
        y = layers.Dense(x.shape[1], use_bias=False)(layers.Dense(2 * x.shape[1], activation="gelu")(y))
        x = layers.Add()([x, layers.Permute((2, 1))(y)])
        y = layers.Dense(8 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(4 * width)(y)])
    return layers.Reshape((*places, 4 * width))(layers.LayerNormalization()(x))


def _patches(x, width, grid):
    """Patches as tokens `(batch, places, width)`, `grid` of them on the shorter side, and how many on each side."""
    side = patch_side(x.shape[1:], grid)
    x = layers.Rescaling(4.0, -2.0)(x)  # around zero: no batch norm does it here
    x = layers.Conv2D(width, side, side, padding="same")(x)
    places = x.shape[1:3]
    return layers.Reshape((-1, width))(x), places


IMAGE_ENCODERS = {
    "cnn": cnn, "plain_cnn": plain_cnn, "resnet": resnet, "flat": flat, "vit": vit, "mixer": mixer, "patches": patches,
}  # fmt: skip


def conv(x, channels, strides=1, size=3, activation="relu"):
    # No bias: batch norm would take it out again.
    x = layers.Conv2D(channels, size, strides, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x)
    return layers.Activation(activation)(x) if activation else x


def _residual(x, channels, strides):
    y = conv(conv(x, channels, strides), channels, activation=None)
    if strides > 1:
        x = layers.AveragePooling2D(strides, padding="same")(x)
    if x.shape[-1] != channels:
        x = conv(x, channels, size=1, activation=None)
    return layers.Activation("relu")(layers.Add()([x, y]))


def _application(x, network, weights):
    """The network of `keras.applications`, its own preprocessing before it."""
    modules = [m for m in vars(keras.applications).values() if hasattr(m, "preprocess_input") and hasattr(m, network)]
    if x.shape[-1] == 1:
        x = layers.Concatenate()([x, x, x])
    x = layers.Rescaling(255.0)(x)
    for module in modules[:1]:  # MobileNetV3 has none: it rescales by itself
        x = module.preprocess_input(x)
    base = getattr(keras.applications, network)(include_top=False, weights=weights, input_shape=x.shape[1:])
    return base(x)
