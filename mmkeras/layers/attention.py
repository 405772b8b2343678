"""Attention that says where it looked: one query over tokens, and two sets of tokens over each other."""

import keras
from keras import layers, ops

from mmkeras.layers.pooling import FAR_BELOW


@keras.saving.register_keras_serializable(package="mmkeras")
class AttentionPool(layers.Layer):
    """Tokens `(batch, length, width)` and a query `(batch, dim)` to their weighted mean and the weights.

    `weights = softmax(v . tanh(W token + U query))`, additive attention (Bahdanau 2015). Without a query the tokens
    alone decide (self-attention pooling, Lin 2017). Masked tokens have weight zero.

    Args:
        units: size of the hidden layer.

    Returns:
        `(batch, width)` and `(batch, length)`.

    Example:

    >>> vector, weights = AttentionPool(4)(np.ones((2, 5, 3)), np.ones((2, 7)))
    >>> vector.shape, weights.shape
    (TensorShape([2, 3]), TensorShape([2, 5]))
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.supports_masking = True

    def build(self, tokens_shape, query_shape=None):
        self.of_token = layers.Dense(self.units, name="of_token")
        self.of_token.build(tokens_shape)
        self.of_query = None
        if query_shape is not None:
            self.of_query = layers.Dense(self.units, use_bias=False, name="of_query")
            self.of_query.build(query_shape)
        self.score = layers.Dense(1, use_bias=False, name="score")
        self.score.build((*tokens_shape[:-1], self.units))

    def call(self, tokens, query=None, tokens_mask=None, mask=None):
        tokens_mask = mask if tokens_mask is None else tokens_mask  # Keras calls it `mask` where there is no query
        return self.look(tokens, self.of_token(tokens), query, tokens_mask)

    def look(self, tokens, keys, query=None, tokens_mask=None):
        """As `call`, the keys `self.of_token(tokens)` made before: a decoder looks at the same tokens many times."""
        hidden = keys if query is None else keys + self.of_query(query)[:, None]
        weights = token_softmax(self.score(ops.tanh(hidden))[..., 0], tokens_mask)
        return ops.sum(weights[..., None] * tokens, axis=1), weights

    def compute_mask(self, tokens, mask=None):
        return None, None

    def compute_output_shape(self, tokens_shape, query_shape=None):
        return (tokens_shape[0], tokens_shape[-1]), tuple(tokens_shape[:2])

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="mmkeras")
class ParallelCoAttention(layers.Layer):
    """Two sets of tokens that look at each other: the weighted mean of each, and the weights of each.

    Parallel co-attention (Lu 2016): with the affinity `C = tanh(b W a^T)`, the weights of `a` are a softmax of
    `v . tanh(W_a a + C^T (W_b b))`, and those of `b` likewise. Masked tokens have weight zero.

    Args:
        units: size of the hidden layer.

    Returns:
        `(batch, width_a)`, `(batch, width_b)`, `(batch, length_a)` and `(batch, length_b)`.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.supports_masking = True

    def build(self, a_shape, b_shape):
        self.affinity = layers.Dense(a_shape[-1], use_bias=False, name="affinity")
        self.affinity.build(b_shape)
        self.of_a, self.of_b = (layers.Dense(self.units, use_bias=False, name=f"of_{n}") for n in "ab")
        self.of_a.build(a_shape)
        self.of_b.build(b_shape)
        self.score_a, self.score_b = (layers.Dense(1, use_bias=False, name=f"score_{n}") for n in "ab")
        for score in (self.score_a, self.score_b):
            score.build((None, None, self.units))

    def call(self, a, b, a_mask=None, b_mask=None):
        affinity = ops.tanh(ops.matmul(self.affinity(b), ops.transpose(a, (0, 2, 1))))  # (batch, length_b, length_a)
        for tokens_mask, axis in ((a_mask, 1), (b_mask, 2)):
            if tokens_mask is not None:
                affinity = affinity * ops.cast(ops.expand_dims(tokens_mask, axis), affinity.dtype)
        of_a, of_b = self.of_a(a), self.of_b(b)
        hidden_a = ops.tanh(of_a + ops.matmul(ops.transpose(affinity, (0, 2, 1)), of_b))
        hidden_b = ops.tanh(of_b + ops.matmul(affinity, of_a))
        of_a, of_b = (
            token_softmax(score(hidden)[..., 0], tokens_mask)
            for score, hidden, tokens_mask in ((self.score_a, hidden_a, a_mask), (self.score_b, hidden_b, b_mask))
        )
        return ops.sum(of_a[..., None] * a, axis=1), ops.sum(of_b[..., None] * b, axis=1), of_a, of_b

    def compute_mask(self, a, mask=None):
        return None, None, None, None

    def compute_output_shape(self, a_shape, b_shape):
        return (a_shape[0], a_shape[-1]), (b_shape[0], b_shape[-1]), tuple(a_shape[:2]), tuple(b_shape[:2])

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def token_softmax(scores, mask=None):
    """Softmax of scores `(batch, length)` over the tokens that the mask keeps."""
    if mask is None:
        return ops.softmax(scores, axis=-1)
    return ops.softmax(ops.where(mask, scores, ops.full_like(scores, FAR_BELOW)), axis=-1)
