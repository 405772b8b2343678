"""Decoders of a text, word after word, that look at a memory of tokens."""

from collections.abc import Callable
from typing import Literal

import keras
from keras import layers, ops

from mmkeras.layers import AddPosition, AttentionLSTM, TransformerBlock
from mmkeras.layers.tokens import ShiftRight
from mmkeras.types import Tensor

CAPTION_DECODERS = ("lstm", "transformer")


def caption_decoder(
    memory_shape: tuple[int | None, int],
    length: int,
    vocabulary_size: int,
    network: Literal["lstm", "transformer"] = "lstm",
    width: int = 128,
    num_layers: int = 1,
    num_heads: int = 4,
    dropout: float = 0.0,
    name: str = "decoder",
) -> keras.Model:
    """A model from words and a memory to the logits of every word, each from the words before it alone.

    Inputs: `words (batch, length)`, token ids; `memory (batch, places, width)`; `counts (batch, places)`, 1 for the
    tokens of the memory that count. Outputs: `logits (batch, length, vocabulary_size)` and `attention (batch, length,
    places)`, where it looked for each word.

    Args:
        memory_shape: `(places, width)`.
        length: number of words.
        vocabulary_size: number of ids.
        network: `"lstm"` with attention (Show, Attend and Tell, Xu 2015) or `"transformer"` (Vaswani 2017).
        width: size of states and tokens.
        num_layers, num_heads: of the transformer.
        dropout: rate of dropping hidden features.
        name: of the model.

    Example:

    >>> model = caption_decoder((16, 32), 12, 1000)
    >>> model.output["logits"].shape, model.output["attention"].shape
    ((None, 12, 1000), (None, 12, 16))
    """
    if network not in CAPTION_DECODERS:
        raise ValueError(f"Unknown decoder {network!r}. Expected one of {', '.join(CAPTION_DECODERS)}.")
    words = keras.Input((length,), dtype="int32", name="words")
    memory, counts = keras.Input(memory_shape, name="memory"), keras.Input(memory_shape[:1], name="counts")
    # No mask: padding comes after the words, and no word looks at what comes after it.
    x = layers.Embedding(vocabulary_size, width, name="word_embedding")(ShiftRight(name="previous")(words))
    if network == "lstm":
        state, seen, attention = AttentionLSTM(width, name="lstm")(x, memory, counts)
        x = layers.Dense(width, activation="tanh", name="deep_output")(layers.Concatenate()([x, state, seen]))
    else:
        x = AddPosition(length, name="position")(x)
        x, attention = CausalTransformer(num_layers, num_heads, dropout, name="transformer")(x, memory, counts)
    x = layers.Dropout(dropout, name="word_dropout")(x)
    logits = layers.Dense(vocabulary_size, name="logits")(x)
    inputs = {"words": words, "memory": memory, "counts": counts}
    return keras.Model(inputs, {"logits": logits, "attention": attention}, name=name)


def word_by_word(
    decoder: keras.Model, memory: Tensor, counts: Tensor
) -> tuple[Callable[[Tensor, Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]], list[Tensor]]:
    """What a search over texts needs of a `caption_decoder`: one word's logits at a time.

    The LSTM goes on from its state; the transformer reads all words again.

    Args:
        decoder: the model.
        memory, counts: its inputs.

    Returns:
        A function `(words, t, state) -> (logits (batch, vocabulary_size) of word t, state)`, where of `words (batch,
        length)` those before `t` are written, and the first state, a list of tensors `(batch, ...)`.
    """
    layer_names = [layer.name for layer in decoder.layers]
    if "lstm" not in layer_names:

        def read_again(words, t, state):
            logits = decoder({"words": words, "memory": memory, "counts": counts}, training=False)["logits"]
            return ops.take(logits, t, axis=1), state

        return read_again, []
    shift, embed, lstm, deep, out = (
        decoder.get_layer(name) for name in ("previous", "word_embedding", "lstm", "deep_output", "logits")
    )
    first, keys = lstm.start(memory, counts)

    def go_on(words, t, state):
        x = embed(ops.take(shift(words), t, axis=1))
        state, seen, _ = lstm.step(x, state, memory, keys, counts)
        return out(deep(ops.concatenate([x, state[0], seen], axis=-1))), list(state)

    return go_on, list(first)


@keras.saving.register_keras_serializable(package="mmkeras")
class CausalTransformer(layers.Layer):
    """Tokens `(batch, length, width)` that see those before them and a memory, and where the last block looked.

    Args:
        num_layers: blocks.
        num_heads, dropout: of a block.

    Returns:
        `(batch, length, width)`, normalised, and `(batch, length, places)`.
    """

    def __init__(self, num_layers, num_heads, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dropout = dropout

    def build(self, tokens_shape, memory_shape, counts_shape):
        self.blocks = [
            TransformerBlock(self.num_heads, self.dropout, use_causal_mask=True, name=f"block_{i}")
            for i in range(self.num_layers)
        ]
        for block in self.blocks:
            block.build(tokens_shape, memory_shape)
        self.norm = layers.LayerNormalization(name="norm")
        self.norm.build(tokens_shape)

    def call(self, tokens, memory, counts, training=None):
        for block in self.blocks:
            tokens, weights = block.look(tokens, memory, others_mask=counts > 0, training=training)
        return self.norm(tokens), weights

    def compute_output_shape(self, tokens_shape, memory_shape, counts_shape):
        return tokens_shape, (*tokens_shape[:2], memory_shape[1])

    def get_config(self):
        own = {"num_layers": self.num_layers, "num_heads": self.num_heads, "dropout": self.dropout}
        return {**super().get_config(), **own}
