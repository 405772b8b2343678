"""Encoders of precomputed features: word vectors, CNN features, sensors."""

from typing import Literal

import keras
from keras import layers


def vector_encoder(
    size: int,
    network: Literal["mlp", "linear"] = "mlp",
    width: int = 64,
    dropout: float = 0.0,
    name: str = "vector_encoder",
) -> keras.Model:
    """Vectors `(batch, size)` to one token `(batch, 1, width)`.

    Args:
        size: number of features.
        network: a name of `VECTOR_ENCODERS`.
        width: size of the token.
        dropout: rate of dropping hidden units.
        name: of the model.

    Raises:
        ValueError: if there is no network of that name.

    Example:

    >>> vector_encoder(7, width=16).output_shape
    (None, 1, 16)
    """
    if network not in VECTOR_ENCODERS:
        raise ValueError(f"Unknown vector encoder {network!r}. Expected one of {', '.join(VECTOR_ENCODERS)}.")
    inputs = keras.Input((size,), name="features")
    x = VECTOR_ENCODERS[network](inputs, width, dropout)
    return keras.Model(inputs, layers.Reshape((1, -1), name="tokens")(x), name=name)


def mlp(x, width, dropout):
    """Two dense layers."""
    x = layers.Dropout(dropout)(layers.Dense(width, activation="relu")(x))
    return layers.Dense(width, activation="relu")(x)


def linear(x, width, dropout):
    """The features as they are."""
    return x


VECTOR_ENCODERS = {"mlp": mlp, "linear": linear}
