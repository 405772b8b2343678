"""The transformer's block, with and without a look at other tokens."""

import contextlib
import warnings

import keras
from keras import layers, ops


@contextlib.contextmanager
def _one_key():
    """Keras warns of a softmax over one key; here a token that is alone looks at itself alone, as it should."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using a softmax over axis")
        yield


@keras.saving.register_keras_serializable(package="mmkeras")
class TransformerBlock(layers.Layer):
    """Tokens `(batch, length, width)` to tokens: self-attention, attention to others, two dense layers (Vaswani 2017).

    Each part is normalised before it and added to its input (pre-norm). With a second argument `(batch, other_length,
    other_width)` the tokens look at those others as well (the guided attention of MCAN, Yu 2019; a decoder's look at
    its memory). Masked tokens are not looked at.

    Args:
        num_heads: attention heads; they share the width.
        dropout: rate of dropping weights and outputs.
        use_causal_mask: whether a token sees only itself and those before it, as in a decoder.
        self_attention: whether tokens look at each other; without, they look at the others alone (MulT, Tsai 2019).

    Example:

    >>> TransformerBlock(2)(np.ones((1, 3, 8)), np.ones((1, 5, 6))).shape
    TensorShape([1, 3, 8])
    """

    def __init__(self, num_heads, dropout=0.0, use_causal_mask=False, self_attention=True, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dropout = dropout
        self.use_causal_mask = use_causal_mask
        self.self_attention = self_attention
        self.supports_masking = True

    def build(self, tokens_shape, others_shape=None):
        width = tokens_shape[-1]
        if width % self.num_heads:
            raise ValueError(f"Expected a width divisible by num_heads={self.num_heads}. Received: width={width}.")
        self.drop = layers.Dropout(self.dropout)
        num_norms = 1 + self.self_attention + bool(others_shape)
        self.norms = [layers.LayerNormalization(name=f"norm_{i}") for i in range(num_norms)]
        for norm in self.norms:
            norm.build(tokens_shape)
        options = {"num_heads": self.num_heads, "key_dim": width // self.num_heads, "dropout": self.dropout}
        self.to_own, self.to_others = None, None
        if self.self_attention:
            self.to_own = layers.MultiHeadAttention(**options, name="to_own")
            self.to_own.build(tokens_shape, tokens_shape)
        if others_shape:
            self.to_others = layers.MultiHeadAttention(**options, name="to_others")
            self.to_others.build(tokens_shape, others_shape)
        self.hidden = layers.Dense(4 * width, activation="gelu", name="hidden")
        self.hidden.build(tokens_shape)
        self.output_layer = layers.Dense(width, name="output")
        self.output_layer.build((*tokens_shape[:-1], 4 * width))

    def call(self, tokens, others=None, tokens_mask=None, others_mask=None, mask=None, training=None):
        return self.look(tokens, others, tokens_mask if mask is None else mask, others_mask, training)[0]

    @_one_key()
    def look(self, tokens, others=None, tokens_mask=None, others_mask=None, training=None):
        """As `call`, and how much each token looked at each of the others, `(batch, length, other_length)`, or None."""
        if self.self_attention:
            x = self.norms[0](tokens)
            looked = self.to_own(
                x, x, attention_mask=_of_keys(tokens_mask), use_causal_mask=self.use_causal_mask, training=training
            )
            tokens = tokens + self.drop(looked, training=training)
        weights = None
        if others is not None:
            looked, weights = self.to_others(
                self.norms[-2](tokens), others, attention_mask=_of_keys(others_mask), training=training,
                return_attention_scores=True,
            )  # fmt: skip
            tokens, weights = tokens + self.drop(looked, training=training), ops.mean(weights, axis=1)
        x = self.output_layer(self.hidden(self.norms[-1](tokens)))
        return tokens + self.drop(x, training=training), weights

    def compute_mask(self, tokens, mask=None):
        return mask

    def compute_output_shape(self, tokens_shape, others_shape=None):
        return tokens_shape

    def get_config(self):
        own = {"num_heads": self.num_heads, "dropout": self.dropout, "use_causal_mask": self.use_causal_mask}
        return {**super().get_config(), **own, "self_attention": self.self_attention}


def heads_of(width):
    """How many attention heads a width is given: eight at most, of sixteen numbers or more each."""
    return next(heads for heads in (8, 4, 2, 1) if heads == 1 or (width % heads == 0 and width >= 16 * heads))


def _of_keys(mask):
    """A mask of tokens `(batch, length)` as one of the pairs that look at them."""
    return None if mask is None else ops.expand_dims(mask, 1)
