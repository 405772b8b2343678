"""What stands in for a modality that is absent."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class FillAbsent(keras.layers.Layer):
    """Features `(batch, ..., width)` and presence `(batch,)` to features, a learned vector standing in where absent.

    The features of an absent row are not looked at: they change nothing and get exactly zero gradient, nor does their
    mask say how many there were.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, x_shape, presence_shape):
        self.stand_in = self.add_weight(name="stand_in", shape=(x_shape[-1],), initializer="zeros")

    def call(self, x, presence, x_mask=None):
        present = ops.reshape(presence > 0, (-1,) + (1,) * (len(x.shape) - 1))
        filled = ops.where(present, x, ops.cast(self.stand_in, x.dtype))
        if x_mask is not None:
            filled._keras_mask = ops.logical_or(x_mask, presence[:, None] <= 0)  # compute_mask is not told the presence
        return filled

    def compute_output_shape(self, x_shape, presence_shape):
        return x_shape


@keras.saving.register_keras_serializable(package="mmkeras")
class PresentMean(keras.layers.Layer):
    """Features, a list of `(batch, width)`, and presence `(batch, modalities)` to the mean of the present ones.

    Args:
        normalize: True for the mean, False for the sum (correlational networks add the views, Chandar 2016).

    Example:

    >>> PresentMean()([np.full((1, 2), 3.0), np.full((1, 2), 9.0)], np.array([[1.0, 0.0]])).numpy().tolist()
    [[3.0, 3.0]]
    """

    def __init__(self, normalize=True, **kwargs):
        super().__init__(**kwargs)
        self.normalize = normalize

    def call(self, features, presence):
        present = presence > 0
        total = sum(ops.where(present[:, i : i + 1], x, ops.zeros_like(x)) for i, x in enumerate(features))
        if self.normalize:
            total = total / ops.maximum(ops.sum(ops.cast(present, total.dtype), axis=-1, keepdims=True), 1.0)
        return total

    def compute_output_shape(self, features_shape, presence_shape):
        return features_shape[0]

    def get_config(self):
        return {**super().get_config(), "normalize": self.normalize}
