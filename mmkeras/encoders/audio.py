"""Audio encoder: log-mel spectrograms `(batch, frames, mels)` in 0..1 to tokens in the order of time."""

import keras
from keras import layers

from mmkeras.encoders.image import conv


def audio_encoder(
    shape: tuple[int, int], width: int = 16, dropout: float = 0.0, name: str = "audio_encoder"
) -> keras.Model:
    """Spectrograms `(batch, frames, mels)` to tokens `(batch, frames / 8, 8 * width)`, by convolutions over both.

    Three stages halve both axes (a spectrogram read as a picture, Hershey 2017); then the frequencies of a time are
    put beside each other, because a pitch is a place and not a texture.

    Args:
        shape: `(frames, mels)`.
        width: channels of the first stage; each later one has twice as many.
        dropout: rate of dropping whole channels of the tokens.
        name: of the model.

    Example:

    >>> audio_encoder((63, 40), width=8).output_shape
    (None, 8, 64)
    """
    inputs = keras.Input(shape, name="log_mel")
    x = layers.Reshape((*shape, 1))(inputs)
    for stage in (1, 2, 4):
        x = conv(x, width * stage, strides=2)
    x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)
    x = layers.Dense(8 * width, activation="relu", name="tokens")(x)
    if dropout:
        x = layers.Dropout(dropout, noise_shape=(None, 1, 8 * width), name="channel_dropout")(x)
    return keras.Model(inputs, x, name=name)
