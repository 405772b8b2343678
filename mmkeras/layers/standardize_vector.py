"""Precomputed features on one scale."""

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="mmkeras")
class StandardizeVector(keras.layers.Layer):
    """Vectors `(batch, dim)` to vectors with mean 0 and variance 1 over the training split; absent ones become 0.

    Args:
        mean, deviation: of every feature; None until fitted (`mmkeras.data.adapt`), then lists of `dim` numbers.
    """

    def __init__(self, mean=None, deviation=None, **kwargs):
        super().__init__(**kwargs)
        self.mean = mean
        self.deviation = deviation

    def fit(self, vectors):
        """Takes mean and deviation from `(rows, dim)`; rows with a value that is not a number do not count."""
        vectors = vectors[np.isfinite(vectors).all(axis=-1)].astype("float64")
        self.mean = vectors.mean(axis=0).tolist()
        deviation = vectors.std(axis=0)
        self.deviation = np.where(deviation > 1e-9, deviation, 1.0).tolist()

    def call(self, x):
        if self.mean is not None:
            x = (x - tf.constant(self.mean, x.dtype)) / tf.constant(self.deviation, x.dtype)
        return tf.where(tf.math.is_finite(x), x, tf.zeros_like(x))

    def restore(self, x):
        """Standardised vectors back on their own scale."""
        return x if self.mean is None else x * tf.constant(self.deviation, x.dtype) + tf.constant(self.mean, x.dtype)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "deviation": self.deviation}
