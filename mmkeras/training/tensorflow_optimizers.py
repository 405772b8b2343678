"""Keras' optimisers on TensorFlow: gradients summed over replicas and then clipped, their norms kept; a faster Adam."""

import keras
import tensorflow as tf


class _Summed:
    """Sums gradients over the replicas before it clips them, and keeps their norms.

    Keras clips each replica's gradient by its own norm and sums afterwards: several replicas would then take another
    step than one.

    Attributes:
        norms: `(2, weights)`, each weight's gradient norm, unclipped, in the step before the last and in the last.
        paths: of the weights.
    """

    def __init__(self, *arguments, global_clipnorm=None, **options):
        super().__init__(*arguments, **options)
        self.clip_norm = global_clipnorm
        self.given_sums = False  # whether what it applies is summed already

    def build(self, variables):
        super().build(variables)
        self.paths = [variable.path for variable in variables]
        zeros = tf.zeros((2, len(self.paths)), tf.float64)
        self.norms = tf.Variable(zeros, trainable=False)

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(trainable_variables)
        return super().apply(self._clipped(grads if self.given_sums else _summed(grads)), trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return list(grads_and_vars)  # they are summed already, see `apply`

    def _clipped(self, grads):
        norms = [tf.zeros((), tf.float64) if gradient is None else _norm(gradient) for gradient in grads]
        self.norms.assign(tf.stack([self.norms[1], tf.stack(norms)]))
        if not self.clip_norm:
            return grads
        scale = self.clip_norm / tf.maximum(tf.norm(tf.stack(norms)), self.clip_norm)
        return [gradient if gradient is None else _times(gradient, scale) for gradient in grads]

    def get_config(self):
        return {**super().get_config(), "global_clipnorm": self.clip_norm}


def _summed(gradients):
    """Gradients, some of them None, summed over the replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    given = [gradient for gradient in gradients if gradient is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, given))
    return [gradient if gradient is None else next(summed) for gradient in gradients]


def _norm(gradient):
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return tf.sqrt(2 * tf.cast(tf.nn.l2_loss(values), tf.float64))


def _times(gradient, scale):
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_times(gradient.values, scale), gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(scale, gradient.dtype)


class _OneOperation(_Summed):
    """The step of TensorFlow's kernel: Keras' own takes some twenty operations a weight, to trace and to run."""

    def update_step(self, gradient, variable, learning_rate):
        # The kernel knows neither amsgrad nor rows of an embedding.
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            return super().update_step(gradient, variable, learning_rate)
        index, dtype = self._get_variable_index(variable), variable.dtype
        steps = tf.cast(self.iterations.value, dtype) + 1
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.constant(self.beta_1, dtype), steps),
            beta2_power=tf.pow(tf.constant(self.beta_2, dtype), steps),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )

    def _apply_weight_decay(self, variables):
        if self.weight_decay is None or tf.distribute.has_strategy():
            return super()._apply_weight_decay(variables)
        rate = self.learning_rate  # once: Keras has the whole schedule worked out anew for every weight
        for variable in filter(self._use_weight_decay, (variable.value for variable in variables)):
            decay, dtype = tf.constant(self.weight_decay, variable.dtype), variable.dtype
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
    >>> print(weight.numpy().round(3))
    [0.45 2.4 ]
    """


@keras.saving.register_keras_serializable(package="mmkeras")
class SGD(_Summed, keras.optimizers.SGD):
    """`keras.optimizers.SGD`, gradients summed over the replicas before they are clipped."""


@keras.saving.register_keras_serializable(package="mmkeras")
class RMSprop(_Summed, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop`, gradients summed over the replicas before they are clipped."""


@keras.saving.register_keras_serializable(package="mmkeras")
class Lion(_Summed, keras.optimizers.Lion):
    """`keras.optimizers.Lion` (Chen 2023), gradients summed over the replicas before they are clipped."""


@keras.saving.register_keras_serializable(package="mmkeras")
class LossScale(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` around an optimiser of this file: float16 needs it (Micikevicius 2018).

    Keras' own looks at one replica's gradients; a step is left out here where the sum over all is not finite.

    Example:

    >>> weight, optimizer = keras.Variable([1.0, 2.0]), LossScale(SGD(0.5, momentum=0.0))
    >>> optimizer.build([weight])
    >>> float(optimizer.scale_loss(1.0))
    32768.0
    >>> optimizer.apply([tf.constant([32768.0, 65536.0])])
    >>> weight.numpy().tolist()
    [0.5, 1.0]
    """

    def __init__(self, inner_optimizer, **options):
        super().__init__(inner_optimizer, **options)
        inner_optimizer.given_sums = True

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(trainable_variables)
        return super().apply(_summed(grads), trainable_variables)


def gradient_norms(model, steps_before=0):
    """`{path of a weight: norm of its gradient}` in the last step or one before it, by the optimisers of this file."""
    found = {}
    optimizers = (getattr(value, "inner_optimizer", value) for value in vars(model).values())  # float16 scales losses
    for optimizer in (value for value in optimizers if isinstance(value, _Summed)):
        found.update(zip(optimizer.paths, optimizer.norms.numpy()[1 - steps_before].tolist(), strict=True))
    return found
