"""A learned query a label, which looks at a memory; and each label's own threshold."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="mmkeras")
class LabelQueries(layers.Layer):
    """A memory `(batch, places, width)` to a logit a label, and where each label looked.

    Learned queries look at the memory, then two dense layers, then a product with a vector a label (ML-Decoder,
    Ridnik 2023: Query2Label, Liu 2021, without attention between the queries, so that thousands of labels cost
    little). Where there are more labels than queries, neighbouring labels share one.

    Args:
        num_labels: number of labels.
        num_queries: most queries.
        num_heads: attention heads.
        dropout: rate of dropping features.

    Returns:
        Logits `(batch, num_labels)` and attention `(batch, num_labels, places)`.

    Example:

    >>> logits, attention = LabelQueries(3)(np.ones((2, 5, 8), "float32"), np.ones((2, 5)))
    >>> logits.shape, attention.shape
    (TensorShape([2, 3]), TensorShape([2, 3, 5]))
    """

    def __init__(self, num_labels, num_queries=100, num_heads=4, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_labels = num_labels
        self.num_queries = num_queries
        self.num_heads = num_heads
        self.dropout = dropout

    def build(self, memory_shape, counts_shape):
        width = memory_shape[-1]
        self.share = -(-self.num_labels // self.num_queries)  # labels of a query
        number = -(-self.num_labels // self.share)
        self.queries = self.add_weight(name="queries", shape=(1, number, width), initializer="uniform")
        self.look = layers.MultiHeadAttention(self.num_heads, width // self.num_heads, name="look")
        self.look.build((None, number, width), memory_shape)
        self.norm = layers.LayerNormalization(name="norm")
        self.norm.build((None, number, width))
        self.hidden = layers.Dense(2 * width, activation="relu", name="hidden")
        self.hidden.build((None, number, width))
        self.drop = layers.Dropout(self.dropout)
        shape = (number, 2 * width, self.share)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(number, self.share), initializer="zeros")

    def call(self, memory, counts, training=None):
        queries = ops.repeat(self.queries, ops.shape(memory)[0], axis=0)
        seen, weights = self.look(
            queries, memory, attention_mask=ops.expand_dims(counts > 0, 1), return_attention_scores=True
        )
        x = self.drop(self.hidden(self.norm(queries + seen)), training=training)
        logits = ops.einsum("bqw,qws->bqs", x, self.kernel) + self.bias
        logits = ops.reshape(logits, (-1, logits.shape[1] * self.share))[:, : self.num_labels]
        return logits, ops.repeat(ops.mean(weights, axis=1), self.share, axis=1)[:, : self.num_labels]

    def compute_output_shape(self, memory_shape, counts_shape):
        return (memory_shape[0], self.num_labels), (memory_shape[0], self.num_labels, memory_shape[1])

    def get_config(self):
        own = {
            "num_labels": self.num_labels, "num_queries": self.num_queries, "num_heads": self.num_heads,
            "dropout": self.dropout,
        }  # fmt: skip
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="mmkeras")
class Thresholds(layers.Layer):
    """Logits `(batch, labels)` to zeros and ones: whether each label's probability reaches its own threshold.

    The thresholds are a weight that training does not touch: `set_thresholds` puts in what validation found.

    Example:

    >>> layer = Thresholds()
    >>> layer(np.array([[0.0, -3.0]])).numpy().tolist()
    [[1.0, 0.0]]
    >>> layer.set_thresholds([0.6, 0.01])
    >>> layer(np.array([[0.0, -3.0]])).numpy().tolist()
    [[0.0, 1.0]]
    """

    def build(self, logits_shape):
        half = keras.initializers.Constant(0.5)
        self.thresholds = self.add_weight(
            name="thresholds", shape=(logits_shape[-1],), initializer=half, trainable=False
        )

    def set_thresholds(self, values):
        """Makes `values` the thresholds, probabilities `(labels,)`."""
        self.thresholds.assign(values)

    def call(self, logits):
        return ops.cast(ops.sigmoid(logits) >= self.thresholds, logits.dtype)

    def compute_output_shape(self, logits_shape):
        return logits_shape
