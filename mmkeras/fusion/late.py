"""Late fusion: each modality decides for itself."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class Late(keras.layers.Layer):
    """Logits `{name: (batch, classes)}` and presence `(batch, modalities)` to the mean of those present.

    Example:

    >>> logits = {"image": np.full((1, 2), 4.0), "text": np.full((1, 2), 8.0)}
    >>> Late()(logits, np.array([[0.0, 1.0]])).numpy().tolist()
    [[8.0, 8.0]]
    """

    def call(self, logits, presence=None):
        stacked = ops.stack([logits[name] for name in sorted(logits)], axis=1)  # (batch, modalities, classes)
        if presence is None:
            return ops.mean(stacked, axis=1)
        present = (presence > 0)[..., None]
        count = ops.sum(ops.cast(present, stacked.dtype), axis=1)
        return ops.sum(ops.where(present, stacked, ops.zeros_like(stacked)), axis=1) / ops.maximum(count, 1.0)

    def compute_output_shape(self, logits_shape, presence_shape=None):
        return next(iter(logits_shape.values()))
