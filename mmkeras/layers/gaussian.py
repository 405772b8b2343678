"""Gaussians with a diagonal covariance: `(batch, 2 * width)`, the means, then the logarithms of the variances."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class GaussianProduct(keras.layers.Layer):
    """Gaussians, a list of `(batch, 2 * width)`, to their product with `N(0, 1)` (product of experts, Wu 2018).

    With presence `(batch, modalities)` the absent ones do not count; with all of them absent `N(0, 1)` remains.

    Example:

    >>> print(GaussianProduct()([np.array([[3.0, 0.0]])]).numpy().round(2))
    [[ 1.5  -0.69]]
    """

    def call(self, gaussians, presence=None):
        means, log_variances = zip(*(ops.split(x, 2, axis=-1) for x in gaussians), strict=True)
        means, log_variances = ops.stack(means, axis=1), ops.stack(log_variances, axis=1)
        present = ops.ones_like(means[..., 0], dtype="bool") if presence is None else presence > 0
        mean, variance = gaussian_product(means, log_variances, present)
        return ops.cast(ops.concatenate([mean, ops.log(variance)], axis=-1), self.compute_dtype)

    def compute_output_shape(self, gaussians_shape, presence_shape=None):
        return gaussians_shape[0]


def gaussian_product(means, log_variances, present):
    """Gaussians `(batch, experts, width)` to mean and variance `(batch, width)` of their product with `N(0, 1)`.

    Args:
        means, log_variances: of the experts; the latter count as -10 to 10 at most.
        present: booleans `(batch, experts)`; the others do not count.
    """
    # A precision times a mean is more than float16 holds.
    dtype = keras.backend.result_type(means.dtype, "float32")
    means, log_variances = ops.cast(means, dtype), ops.clip(ops.cast(log_variances, dtype), -10.0, 10.0)
    here = present[..., None]
    precisions = ops.where(here, ops.exp(-log_variances), ops.zeros_like(log_variances))
    total = 1 + ops.sum(precisions, axis=1)
    return ops.sum(precisions * ops.where(here, means, ops.zeros_like(means)), axis=1) / total, 1 / total


@keras.saving.register_keras_serializable(package="mmkeras")
class SampleGaussian(keras.layers.Layer):
    """A Gaussian `(batch, 2 * width)` to a draw `(batch, width)` in training, and to its mean otherwise.

    The draw is mean plus deviation times noise, so that gradients reach both (Kingma and Welling 2014).

    Args:
        seed: of the noise.
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.noise = keras.random.SeedGenerator(seed)

    def call(self, gaussian, training=None):
        mean, log_variance = ops.split(gaussian, 2, axis=-1)
        if not training:
            return mean
        noise = keras.random.normal(ops.shape(mean), dtype=self.compute_dtype, seed=self.noise)
        return mean + ops.exp(0.5 * log_variance) * noise

    def compute_output_shape(self, gaussian_shape):
        return (*gaussian_shape[:-1], gaussian_shape[-1] // 2)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="mmkeras")
class Ramp(keras.layers.Layer):
    """Anything `(batch, ..)` to `(batch,)`: a number that rises from 0 to 1 over `steps` training steps; 1 otherwise.

    Args:
        steps: of training; 0 for a one at once.
    """

    def __init__(self, steps, **kwargs):
        super().__init__(**kwargs)
        self.steps = steps

    def build(self, x_shape):
        self.done = self.add_weight(name="done", shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=None):
        level = ops.ones(())
        if training and self.steps:
            level = ops.minimum(self.done / self.steps, 1.0)
            self.done.assign_add(1.0)
        return ops.broadcast_to(level, (ops.shape(x)[0],))

    def compute_output_shape(self, x_shape):
        return (x_shape[0],)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}
