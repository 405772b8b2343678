"""Encoders in three stages, for fusions that let the modalities look at each other on the way."""

from collections.abc import Callable
from typing import Literal

from keras import layers

from mmkeras.encoders.image import BATCH_NORM_MOMENTUM, conv
from mmkeras.encoders.text import TEXT_ENCODERS
from mmkeras.layers import BatchNormalization, TokenEmbedding
from mmkeras.types import Tensor

NUM_STAGES = 3


def staged_encoder(
    kind: Literal["image", "audio", "video", "text", "vector"],
    width: int,
    vocabulary_size: int | None = None,
    network: str = "bilstm",
    name: str = "encoder",
) -> list[Callable[[Tensor], Tensor]]:
    """A list of functions, each a stage: from a modality to features `(batch, .., channels)`, and on to the next.

    Pictures and spectrograms: a convolution a stage, which halves the sides and doubles the channels; clips: the same
    in space and time; texts: an encoder of texts a stage, over the states of the one before; vectors: dense layers.

    Args:
        kind: `"image"`, `"audio"`, `"video"`, `"text"` or `"vector"`.
        width: channels of the first stage; of a text or vector, of all.
        vocabulary_size: of a text.
        network: of a text, a name of `TEXT_ENCODERS`.
        name: of the layer that embeds a text's words, with `_words` behind it.

    Example:

    >>> first, second, _ = staged_encoder("image", 8)
    >>> second(first(keras.Input((32, 32, 3)))).shape
    (None, 8, 8, 16)
    """

    def stage(i):
        return lambda x: _stage(kind, x, i, width, vocabulary_size, network, name)

    return [stage(i) for i in range(NUM_STAGES)]


def _stage(kind, x, i, width, vocabulary_size, network, name):
    if kind == "text":
        x = TokenEmbedding(vocabulary_size, width, name=f"{name}_words")(x) if i == 0 else x
        return TEXT_ENCODERS[network](x, width)
    if kind == "vector":
        x = layers.Reshape((1, -1))(x) if i == 0 else x
        return layers.Dense(width, activation="relu")(x)
    channels = width * 2**i
    if kind == "video":
        strides = (2 if x.shape[1] > 2 else 1, 2, 2)
        x = layers.Conv3D(channels, 3, strides, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        return layers.Activation("relu")(BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x))
    x = layers.Reshape((*x.shape[1:], 1))(x) if kind == "audio" and i == 0 else x
    return conv(x, channels, strides=2)
