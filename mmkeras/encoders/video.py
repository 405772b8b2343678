"""Video encoders: pixels `(batch, frames, height, width, channels)` in 0..1 to tokens in the order of time."""

from typing import Literal

import keras
from keras import layers, ops

from mmkeras.encoders.image import BATCH_NORM_MOMENTUM, cnn
from mmkeras.layers import BatchNormalization


def video_encoder(
    shape: tuple[int, int, int, int],
    network: Literal["cnn_lstm", "conv3d"] = "cnn_lstm",
    width: int = 16,
    dropout: float = 0.0,
    name: str = "video_encoder",
) -> keras.Model:
    """Clips `(batch, *shape)` to tokens `(batch, length, channels)`.

    Args:
        shape: `(frames, height, width, channels)`.
        network: a name of `VIDEO_ENCODERS`.
        width: channels of the first stage; each later one has twice as many.
        dropout: rate of dropping whole channels of the tokens.
        name: of the model.

    Raises:
        ValueError: if there is no network of that name.

    Example:

    >>> video_encoder((8, 32, 32, 3), "cnn_lstm", width=8).output_shape
    (None, 8, 64)
    """
    if network not in VIDEO_ENCODERS:
        raise ValueError(f"Unknown video encoder {network!r}. Expected one of {', '.join(VIDEO_ENCODERS)}.")
    inputs = keras.Input(shape, name="clip")
    x = VIDEO_ENCODERS[network](inputs, width)
    if dropout:
        x = layers.Dropout(dropout, noise_shape=(None, 1, x.shape[-1]), name="channel_dropout")(x)
    return keras.Model(inputs, x, name=name)


def cnn_lstm(x, width):
    """A CNN over every frame, an LSTM from each end over what it saw (Donahue 2015): a token a frame."""
    frames, *shape = x.shape[1:]
    x = cnn(ops.reshape(x, (-1, *shape)), width)
    x = ops.reshape(x, (-1, frames, x.shape[1] * x.shape[2] * x.shape[3]))
    x = layers.Dense(8 * width, activation="relu")(x)
    return layers.Bidirectional(layers.LSTM(4 * width, return_sequences=True), name="tokens")(x)


def conv3d(x, width):
    """Convolutions over space and time (C3D, Tran 2015): a token a place of the last feature map."""
    channels = width
    while True:
        strides = (2 if x.shape[1] > 2 else 1, 2, 2)
        x = layers.Conv3D(channels, 3, strides, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        x = layers.Activation("relu")(BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x))
        if min(x.shape[2:4]) <= 4:
            return layers.Reshape((-1, x.shape[-1]), name="tokens")(x)
        channels *= 2


VIDEO_ENCODERS = {"cnn_lstm": cnn_lstm, "conv3d": conv3d}
