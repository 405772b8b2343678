"""Batches that are larger than memory: embedded a chunk of rows at a time, compared all with all."""

from typing import Any

import keras

from mmkeras.layers import replicas
from mmkeras.training.objective import Objective, ObjectiveModel


@keras.saving.register_keras_serializable(package="mmkeras")
class Chunked(ObjectiveModel):
    """An ObjectiveModel whose rows go through the network a chunk at a time, in training (GradCache, Gao 2021).

    First without gradients, all chunks; the loss of all outputs then says what the gradient of each output is; with
    these the chunks go through the network once more, with the same random numbers. So memory is taken for what the
    network computes of one chunk, and the outputs of all rows. Batch norms take the means of a chunk.

    Args:
        inputs, outputs, name, objective: see ObjectiveModel.
        chunk: rows at a time; 0 for all at once.
    """

    def __init__(
        self,
        inputs: dict[str, keras.KerasTensor],
        outputs: dict[str, keras.KerasTensor],
        name: str | None = None,
        *,
        objective: Objective | dict[str, Any] | None = None,
        chunk: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, objective=objective, **kwargs)
        self.chunk = chunk

    def train_step(self, *given):
        if not self.chunk:
            return super().train_step(*given)
        import tensorflow as tf

        x, y, _ = keras.utils.unpack_x_y_sample_weight(given[-1])
        x = self.matched(x)
        state = [tf.identity(v.value) for v in self.non_trainable_variables]
        outputs = self._in_chunks(x, training=True)
        for variable, value in zip(self.non_trainable_variables, state, strict=True):
            variable.assign(value)
        floats = {name: value for name, value in outputs.items() if value.dtype.is_floating}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(floats)
            loss = self.compute_loss(x, y, {**outputs, **floats}, training=True)
            scaled = self.optimizer.scale_loss(loss)
        slopes = tape.gradient(scaled, floats, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = self._gradients(x, slopes)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self._counted(x, y, outputs, loss)

    def test_step(self, *given):
        if not self.chunk:
            return super().test_step(*given)
        x, y, _ = keras.utils.unpack_x_y_sample_weight(given[-1])
        x = self.matched(x)
        outputs = self._in_chunks(x, training=False)
        return self._counted(x, y, outputs, self.compute_loss(x, y, outputs, training=False))

    def _counted(self, x, y, outputs, loss):
        rows = keras.ops.shape(next(iter(x.values())))[0]
        self._loss_tracker.update_state(loss * replicas.count(), sample_weight=rows)
        return self.compute_metrics(x, y, outputs)

    def _part(self, x, i):
        return {name: value[i * self.chunk : (i + 1) * self.chunk] for name, value in x.items()}

    def _num_chunks(self, x):
        return -(-keras.ops.shape(next(iter(x.values())))[0] // self.chunk)

    def _in_chunks(self, x, training):
        """The outputs of all rows, `{name: (batch, ..)}`."""
        import tensorflow as tf

        count = self._num_chunks(x)
        kinds = {name: value.dtype for name, value in self.compute_output_spec(self.input).items()}
        kinds.update({name: "float32" for name, kind in kinds.items() if kind in ("float16", "bfloat16")})
        parts = {name: tf.TensorArray(dtype, count, infer_shape=False) for name, dtype in kinds.items()}

        def step(i, parts):
            found = self(self._part(x, i), training=training)
            return i + 1, {name: part.write(i, found[name]) for name, part in parts.items()}

        _, parts = tf.while_loop(lambda i, _: i < count, step, (0, parts), parallel_iterations=1)
        outputs = {}
        for name, part in parts.items():
            outputs[name] = part.concat()
            outputs[name].set_shape((None, *self.output[name].shape[1:]))
        return outputs

    def _gradients(self, x, slopes):
        """The gradient of every weight, where `slopes` are those of the outputs."""
        import tensorflow as tf

        weights, count = self.trainable_variables, self._num_chunks(x)

        def step(i, sums):
            with tf.GradientTape() as tape:
                found = self(self._part(x, i), training=True)
                here = self._part(slopes, i)
                total = sum(tf.reduce_sum(found[name] * tf.stop_gradient(here[name])) for name in slopes)
            values = [weight.value for weight in weights]
            parts = tape.gradient(total, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return i + 1, [value + tf.convert_to_tensor(part) for value, part in zip(sums, parts, strict=True)]

        zeros = [tf.zeros(weight.shape, weight.dtype) for weight in weights]
        return tf.while_loop(lambda i, _: i < count, step, (0, zeros), parallel_iterations=1)[1]

    def get_config(self):
        return {**super().get_config(), "chunk": self.chunk}
