"""Tokens to one vector."""

import keras
from keras import ops

FAR_BELOW = -3e4  # where a mask puts what it leaves out: float16 ends at -65,504
POOLS = ("mean", "max", "both", "flatten")


@keras.saving.register_keras_serializable(package="mmkeras")
class Pool(keras.layers.Layer):
    """Tokens `(batch, length, width)` to a vector `(batch, width)`; masked tokens do not count.

    Args:
        how: `"mean"`, `"max"`, `"both"`: mean and max beside each other, `(batch, 2 * width)`, or `"flatten"`: all
            tokens beside each other, masked ones as zeros, `(batch, length * width)`, where their places count.

    Example:

    >>> Pool("mean")(np.ones((2, 5, 3))).shape
    TensorShape([2, 3])
    """

    def __init__(self, how="mean", **kwargs):
        super().__init__(**kwargs)
        if how not in POOLS:
            raise ValueError(
                f"Invalid value for argument how. Expected one of {', '.join(POOLS)}. Received: how={how!r}"
            )
        self.how = how
        self.supports_masking = True

    def call(self, tokens, mask=None):
        if self.how == "flatten":
            tokens = tokens if mask is None else ops.where(mask[..., None], tokens, ops.zeros_like(tokens))
            return ops.reshape(tokens, (-1, tokens.shape[1] * tokens.shape[2]))
        vectors = []
        if self.how in ("mean", "both"):
            vectors.append(masked_mean(tokens, mask))
        if self.how in ("max", "both"):
            if mask is not None:
                tokens = ops.where(mask[..., None], tokens, ops.full_like(tokens, FAR_BELOW))
            vectors.append(ops.max(tokens, axis=1))
        return ops.concatenate(vectors, axis=-1)

    def compute_mask(self, tokens, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        times = {"both": 2, "flatten": input_shape[1]}.get(self.how, 1)
        return (input_shape[0], input_shape[-1] * times)

    def get_config(self):
        return {**super().get_config(), "how": self.how}


def masked_mean(tokens, mask=None):
    """The mean `(batch, width)` of the tokens `(batch, length, width)` that the mask `(batch, length)` keeps."""
    if mask is None:
        return ops.mean(tokens, axis=1)
    kept = ops.cast(mask, tokens.dtype)[..., None]
    return ops.sum(tokens * kept, axis=1) / ops.maximum(ops.sum(kept, axis=1), 1.0)
