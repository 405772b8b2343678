"""Image decoders: a latent `(batch, width)` to pixels `(batch, height, width, channels)` in 0..1."""

import math
from typing import Literal

import keras
from keras import layers

from mmkeras.layers import BatchNormalization


def image_decoder(
    latent_size: int,
    shape: tuple[int, int, int],
    network: Literal["cnn", "flat"] = "cnn",
    width: int = 32,
    name: str = "image_decoder",
) -> keras.Model:
    """A latent `(batch, latent_size)` to pixels `(batch, *shape)` in 0..1.

    Args:
        latent_size: size of the latent.
        shape: `(height, width, channels)`.
        network: a name of `IMAGE_DECODERS`.
        width: channels at half the resolution; the stage before has twice, the first four times as many.
        name: of the model.

    Raises:
        ValueError: if there is no network of that name.

    Example:

    >>> image_decoder(16, (28, 14, 1), width=4).output_shape
    (None, 28, 14, 1)
    """
    if network not in IMAGE_DECODERS:
        raise ValueError(f"Unknown image decoder {network!r}. Expected one of {', '.join(IMAGE_DECODERS)}.")
    inputs = keras.Input((latent_size,), name="latent")
    return keras.Model(inputs, IMAGE_DECODERS[network](inputs, shape, width), name=name)


def cnn(x, shape, width):
    """Three times upsampled and convolved, then cropped to the shape.

    Pixels are repeated before they are convolved: transposed convolutions leave a checkerboard (Odena 2016).
    """
    rows, columns, channels = math.ceil(shape[0] / 8), math.ceil(shape[1] / 8), shape[2]
    x = layers.Dense(rows * columns * 4 * width, use_bias=False)(x)
    x = _normalized(layers.Reshape((rows, columns, 4 * width))(x))
    for size in (2 * width, width, max(width // 2, 4)):
        x = layers.UpSampling2D(2)(x)
        x = _normalized(layers.Conv2D(size, 3, padding="same", use_bias=False)(x))
    x = layers.Conv2D(channels, 3, padding="same", activation="sigmoid")(x)
    crop = (8 * rows - shape[0], 8 * columns - shape[1])
    return layers.Cropping2D([(c // 2, c - c // 2) for c in crop], name="pixels")(x) if any(crop) else x


def flat(x, shape, width):
    """One dense layer (correlational networks)."""
    return layers.Reshape(shape, name="pixels")(layers.Dense(math.prod(shape), activation="sigmoid")(x))


IMAGE_DECODERS = {"cnn": cnn, "flat": flat}


def _normalized(x):
    return layers.Activation("relu")(BatchNormalization(momentum=0.9)(x))
