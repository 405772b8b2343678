"""The layer between what is learned and an adversary of it."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class GradientReversal(keras.layers.Layer):
    """Its input as it is; the gradient times minus lambda (domain-adversarial training, Ganin 2016).

    In training lambda rises from 0 to 1 as `2 / (1 + exp(-10 p)) - 1`, where `p` is the share of `ramp` steps done.

    Args:
        ramp: training steps until lambda has its full size; 0 for a lambda of 1 at once.

    Example:

    >>> GradientReversal(ramp=0)(np.ones((1, 2))).numpy().tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, ramp=1000, **kwargs):
        super().__init__(**kwargs)
        self.ramp = ramp
        self.supports_masking = True

    def build(self, x_shape):
        self.steps = self.add_weight(name="steps", shape=(), initializer="zeros", trainable=False)

    @property
    def strength(self):
        """Lambda, as far as training has come."""
        if not self.ramp:
            return ops.ones(())
        return 2 / (1 + ops.exp(-10 * ops.minimum(self.steps / self.ramp, 1.0))) - 1

    def call(self, x, training=None):
        strength = ops.cast(self.strength, x.dtype)
        if training:
            self.steps.assign_add(1.0)
        return _reverse(x, strength)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {**super().get_config(), "ramp": self.ramp}


@ops.custom_gradient
def _reverse(x, strength):
    def gradient(*arguments, upstream=None):
        (upstream,) = arguments if upstream is None else (upstream,)
        return -strength * upstream, ops.zeros_like(strength)

    return x + 0.0, gradient
