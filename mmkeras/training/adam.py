"""Adam and AdamW in one operation a weight."""

import keras
import tensorflow as tf


class _OneOperation:
    """The step of TensorFlow's kernel: Keras' own takes some twenty operations a weight, to trace and to run."""

    def update_step(self, gradient, variable, learning_rate):
        # The kernel knows neither amsgrad, nor rows of an embedding, nor the variables of several replicas.
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices) or tf.distribute.has_strategy():
            return super().update_step(gradient, variable, learning_rate)
        index, dtype = self._get_variable_index(variable), variable.dtype
        steps = tf.cast(self.iterations.value, dtype) + 1
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), steps),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), steps),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )

    def _apply_weight_decay(self, variables):
        if self.weight_decay is None or tf.distribute.has_strategy():
            return super()._apply_weight_decay(variables)
        rate = self.learning_rate  # once: Keras has the whole schedule worked out anew for every weight
        for variable in filter(self._use_weight_decay, (variable.value for variable in variables)):
            decay, dtype = tf.cast(self.weight_decay, variable.dtype), variable.dtype
            variable.assign_sub(variable * decay * tf.cast(rate, dtype))


@keras.saving.register_keras_serializable(package="mmkeras")
class Adam(_OneOperation, keras.optimizers.Adam):
    """`keras.optimizers.Adam` (Kingma 2015), the same numbers to rounding.

    Example:

    >>> weight = keras.Variable([1.0, 2.0])
    >>> Adam(0.5).apply([tf.constant([3.0, -3.0])], [weight])
    >>> weight.numpy().round(3).tolist()
    [0.5, 2.5]
    """


@keras.saving.register_keras_serializable(package="mmkeras")
class AdamW(_OneOperation, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` (Loshchilov 2019), the same numbers to rounding.

    Example:

    >>> weight = keras.Variable([1.0, 2.0])
    >>> AdamW(0.5, weight_decay=0.1).apply([tf.constant([3.0, -3.0])], [weight])
    >>> weight.numpy().round(3).tolist()
    [0.45, 2.4]
    """
