"""The layer between what is learned and an adversary of it."""

import keras
from keras import ops


class Rising(keras.layers.Layer):
    """A layer with a strength lambda that rises in training as `2 / (1 + exp(-10 p)) - 1` (Ganin 2016).

    Args:
        ramp: training steps in which it rises, `p` being the share of them done; 0 for a lambda of 1 at once.
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

    def get_config(self):
        return {**super().get_config(), "ramp": self.ramp}


@keras.saving.register_keras_serializable(package="mmkeras")
class GradientReversal(Rising):
    """Its input as it is; the gradient times minus lambda (domain-adversarial training, Ganin 2016).

    Args:
        ramp: see Rising.

    Example:

    >>> GradientReversal(ramp=0)(np.ones((1, 2))).numpy().tolist()
    [[1.0, 1.0]]
    """

    def call(self, x, training=None):
        strength = ops.cast(self.strength, x.dtype)
        if training:
            self.steps.assign_add(1.0)
        return _reverse(x, strength)

    def compute_output_shape(self, x_shape):
        return x_shape


@keras.saving.register_keras_serializable(package="mmkeras")
class RisingWeight(Rising):
    """Anything `(batch, ..)` to `(batch,)`: lambda in training, 1 otherwise.

    Args:
        ramp: see Rising.
    """

    def call(self, x, training=None):
        strength = ops.cast(self.strength, "float32") if training else ops.ones(())
        if training:
            self.steps.assign_add(1.0)
        return ops.broadcast_to(strength, (ops.shape(x)[0],))

    def compute_output_shape(self, x_shape):
        return (x_shape[0],)


@ops.custom_gradient
def _reverse(x, strength):
    def gradient(*arguments, upstream=None):
        (upstream,) = arguments if upstream is None else (upstream,)
        return -strength * upstream, ops.zeros_like(strength)

    return x + 0.0, gradient
