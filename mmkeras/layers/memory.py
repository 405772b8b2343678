"""Tokens of several modalities beside each other: the memory that a decoder looks at."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="mmkeras")
class JoinTokens(layers.Layer):
    """Tokens, a list of `(batch, length_i, width_i)`, and presence `(batch, modalities)` to one memory.

    Each modality is brought to one width and gets a learned vector for each of its positions. What is absent or
    masked is zero and is said not to count.

    Args:
        width: of the memory.

    Returns:
        The memory `(batch, sum of lengths, width)`, and which of its tokens count `(batch, sum of lengths)`, 1 or 0.

    Example:

    >>> memory, counts = JoinTokens(4)([np.ones((1, 2, 3)), np.ones((1, 1, 5))], np.array([[1.0, 0.0]]))
    >>> memory.shape, counts.numpy().tolist()
    (TensorShape([1, 3, 4]), [[1.0, 1.0, 0.0]])
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.supports_masking = True

    def build(self, tokens_shape, presence_shape):
        self.projections, self.positions = [], []
        for i, shape in enumerate(tokens_shape):
            self.projections.append(layers.Dense(self.width, name=f"projection_{i}"))
            self.projections[-1].build(shape)
            name = f"positions_{i}"
            self.positions.append(self.add_weight(name=name, shape=(shape[1], self.width), initializer="uniform"))

    def call(self, tokens, presence, tokens_mask=None):
        masks = tokens_mask or [None] * len(tokens)
        memory, counts = [], []
        for i, (x, mask) in enumerate(zip(tokens, masks, strict=True)):
            here = ops.repeat(presence[:, i : i + 1] > 0, x.shape[1], axis=1)
            keep = here if mask is None else ops.logical_and(here, mask)
            x = self.projections[i](x) + self.positions[i]
            memory.append(ops.where(keep[..., None], x, ops.zeros_like(x)))
            counts.append(ops.cast(keep, x.dtype))
        return ops.concatenate(memory, axis=1), ops.concatenate(counts, axis=1)

    def compute_mask(self, tokens, mask=None):
        return None, None

    def compute_output_shape(self, tokens_shape, presence_shape):
        length = sum(shape[1] for shape in tokens_shape)
        return (presence_shape[0], length, self.width), (presence_shape[0], length)

    def get_config(self):
        return {**super().get_config(), "width": self.width}
