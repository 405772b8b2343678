"""Decoder of precomputed features."""

import keras
from keras import layers


def vector_decoder(latent_size: int, size: int, width: int = 64, name: str = "vector_decoder") -> keras.Model:
    """A latent `(batch, latent_size)` to a vector `(batch, size)`.

    Args:
        latent_size: size of the latent.
        size: number of features.
        width: hidden units.
        name: of the model.

    Example:

    >>> vector_decoder(16, 7).output_shape
    (None, 7)
    """
    inputs = keras.Input((latent_size,), name="latent")
    x = layers.Dense(width, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(size)(x), name=name)
