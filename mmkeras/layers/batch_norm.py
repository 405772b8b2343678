"""Batch normalisation that rounds less than Keras' own."""

import keras
from keras import ops

from mmkeras.layers import replicas


@keras.saving.register_keras_serializable(package="mmkeras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` (Ioffe 2015) with a gradient written down instead of derived.

    TensorFlow adds up the places of a feature map one after the other, which rounds by some 1e-5 in float32. Here each
    row is added up first, then their sums. With a mask or `renorm`, another axis than the last, and on other backends,
    it is Keras' own.

    Example:

    >>> layer = BatchNormalization(momentum=0.9)
    >>> print(layer(np.arange(4.0).reshape(4, 1, 1, 1), training=True).numpy().round(2).ravel())
    [-1.34 -0.45  0.45  1.34]
    """

    def call(self, inputs, training=None, mask=None):
        last = self.axis in (-1, len(inputs.shape) - 1)
        ours = keras.backend.backend() == "tensorflow" and last and mask is None and not self.renorm
        if not (ours and training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x, size = ops.cast(inputs, dtype), inputs.shape[-1:]
        gamma = ops.cast(self.gamma, dtype) if self.scale else ops.ones(size, dtype)
        beta = ops.cast(self.beta, dtype) if self.center else ops.zeros(size, dtype)
        y, mean, variance = _normalized(x, gamma, beta, self.epsilon, replicas.context() if self.synchronized else None)
        for kept, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept.assign(kept * self.momentum + ops.cast(found, kept.dtype) * (1.0 - self.momentum))
        return ops.cast(y, self.compute_dtype)


def _normalized(x, gamma, beta, epsilon, replica):
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta`, mean and variance, over the rows of all replicas."""
    import tensorflow as tf

    def everywhere(sums):
        return sums if replica is None else replica.all_reduce("sum", sums)

    @tf.custom_gradient
    def normalized(x, gamma, beta):
        count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)[None]
        total = everywhere(tf.concat([_sums(x), count], 0))
        count = total[-1]
        mean = total[:-1] / count
        centered = x - mean
        variance = everywhere(_sums(tf.square(centered))) / count
        scale = tf.math.rsqrt(variance + epsilon)

        def gradient(dy, *_):  # of mean and variance, which only the moving averages want: none
            beta_gradient, gamma_gradient = _sums(dy), _sums(dy * centered) * scale
            of_all = everywhere(tf.stack([beta_gradient, gamma_gradient])) / count
            slope = gamma * scale
            dx = slope * (dy - of_all[0]) - centered * (slope * scale * of_all[1])
            return dx, gamma_gradient, beta_gradient

        return (centered * (gamma * scale) + beta, mean, variance), gradient

    return normalized(x, gamma, beta)


def _sums(x):
    """A sum for each channel, `(.., channels)` to `(channels,)`."""
    import tensorflow as tf

    for _ in range(len(x.shape) - 1):  # sums of sums, since each addition to a large number rounds
        x = tf.reduce_sum(x, min(1, len(x.shape) - 2))
    return x
