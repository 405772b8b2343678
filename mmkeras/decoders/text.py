"""Text decoder: a latent `(batch, width)` to the logits of every token at once."""

import keras
from keras import layers

from mmkeras.layers import AddPosition


def text_decoder(
    latent_size: int, length: int, vocabulary_size: int, width: int = 128, name: str = "text_decoder"
) -> keras.Model:
    """A latent `(batch, latent_size)` to logits `(batch, length, vocabulary_size)`.

    The latent is repeated at every step, beside a learned vector of the step, and an LSTM runs over it (the decoder
    of sequence autoencoders, Dai and Le 2015, without teacher forcing). No earlier token is needed, so that the text
    can be reconstructed where it is absent.

    Args:
        latent_size: size of the latent.
        length: number of tokens.
        vocabulary_size: number of ids.
        width: units of the LSTM.
        name: of the model.

    Example:

    >>> text_decoder(16, 12, 1000).output_shape
    (None, 12, 1000)
    """
    inputs = keras.Input((latent_size,), name="latent")
    x = layers.Dense(width, activation="relu")(inputs)
    x = AddPosition(length)(layers.RepeatVector(length)(x))
    x = layers.LSTM(width, return_sequences=True)(x)
    return keras.Model(inputs, layers.Dense(vocabulary_size)(x), name=name)
