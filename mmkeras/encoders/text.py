"""Text encoders: token ids `(batch, length)` to tokens `(batch, length, width)`, padding masked."""

from typing import Any

import keras
from keras import layers, ops

from mmkeras.layers import AddSinusoids, TokenEmbedding, TransformerBlock
from mmkeras.layers.transformer import heads_of


def text_encoder(
    length: int,
    vocabulary_size: int,
    network: str = "bilstm",
    dim: int = 128,
    width: int = 128,
    dropout: float = 0.0,
    name: str = "text_encoder",
) -> keras.Model:
    """Token ids `(batch, length)` to tokens `(batch, length, width)` with a mask.

    Args:
        length: number of ids a row.
        vocabulary_size: number of ids.
        network: a name of `TEXT_ENCODERS`.
        dim: size of a word's embedding.
        width: size of an output token.
        dropout: rate of dropping inputs and outputs of the network.
        name: of the model.

    Raises:
        ValueError: if there is no network of that name.

    Example:

    >>> text_encoder(12, 1000, "gru", width=64).output_shape
    (None, 12, 64)
    """
    if network not in TEXT_ENCODERS:
        raise ValueError(f"Unknown text encoder {network!r}. Expected one of {', '.join(TEXT_ENCODERS)}.")
    inputs = keras.Input((length,), dtype="int32", name="ids")
    x = TokenEmbedding(vocabulary_size, dim, name="text_embedding")(inputs)
    x = layers.Dropout(dropout)(x)
    x = TEXT_ENCODERS[network](x, width)
    return keras.Model(inputs, layers.Dropout(dropout)(x), name=name)


def lstm(x, width):
    """A long short-term memory (Hochreiter and Schmidhuber 1997), all its states."""
    return layers.LSTM(width, return_sequences=True)(x)


def bilstm(x, width):
    """Two of them, one from each end."""
    return layers.Bidirectional(layers.LSTM(_half(width, "bilstm"), return_sequences=True))(x)


def gru(x, width):
    """Gated recurrent units (Cho 2014)."""
    return layers.GRU(width, return_sequences=True)(x)


def bag(x, width):
    """The words alone, in no order."""
    return layers.Dense(width, activation="relu")(x)


def cnn(x, width):
    """Convolutions over three, four and five words (Kim 2014); its pooling is left to the fusion."""
    branches = [MaskedConv1D(width, size, padding="same", activation="relu")(x) for size in (3, 4, 5)]
    return layers.Dense(width)(layers.Concatenate()(branches))


def transformer(x, width, num_layers=2):
    """Transformer blocks over words and their positions (Vaswani 2017)."""
    # An embedding is small when it begins: as it is, the places would drown the words.
    x = AddSinusoids()(layers.LayerNormalization()(layers.Dense(width)(x)))
    for _ in range(num_layers):
        x = TransformerBlock(heads_of(width))(x)
    return layers.LayerNormalization()(x)


def words(x, width):
    """Words and their positions as they are, for a model that is a transformer itself."""
    return transformer(x, width, num_layers=0)


TEXT_ENCODERS = {
    "lstm": lstm, "bilstm": bilstm, "gru": gru, "bag": bag, "cnn": cnn, "transformer": transformer, "words": words,
}  # fmt: skip


def _half(width, network):
    if width % 2:
        raise ValueError(f"The width of a {network} encoder must be even. Received: width={width}.")
    return width // 2


@keras.saving.register_keras_serializable(package="mmkeras")
class MaskedConv1D(layers.Conv1D):
    """A convolution over tokens `(batch, length, width)` that sees masked ones as zeros; Keras' drops the mask.

    For strides of one and padding `"same"`, where tokens stay in their places.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        return super().call(x if mask is None else x * ops.cast(mask, x.dtype)[..., None])
