"""An LSTM that looks at a memory before each step."""

import keras
from keras import layers, ops

from mmkeras.layers.attention import AttentionPool


@keras.saving.register_keras_serializable(package="mmkeras")
class AttentionLSTM(layers.Layer):
    """Inputs `(batch, length, dim)` and a memory `(batch, places, width)` to states, what was seen, and the weights.

    The decoder of Show, Attend and Tell (Xu 2015): the state looks at the memory by additive attention, what it sees
    is gated by the state and goes into the next step beside the input. The first state comes from the memory's mean.

    Args:
        units: size of the state.

    Returns:
        `(batch, length, units)`, `(batch, length, width)` and `(batch, length, places)`.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, inputs_shape, memory_shape, counts_shape):
        width = memory_shape[-1]
        self.cell = layers.LSTMCell(self.units, name="cell")
        self.cell.build((inputs_shape[0], inputs_shape[-1] + width))
        self.attention = AttentionPool(self.units, name="attention")
        self.attention.build(memory_shape, (memory_shape[0], self.units))
        self.gate = layers.Dense(width, activation="sigmoid", name="gate")
        self.gate.build((None, self.units))
        self.first = layers.Dense(2 * self.units, activation="tanh", name="first")
        self.first.build((None, width))

    def start(self, memory, counts):
        """The first state, and what the attention needs of the memory in every step."""
        total = ops.maximum(ops.sum(counts, axis=-1, keepdims=True), 1.0)
        state = self.first(ops.sum(memory * counts[..., None], axis=1) / total)
        return ops.split(state, 2, axis=-1), self.attention.of_token(memory)

    def step(self, x, state, memory, keys, counts):
        """One input `(batch, dim)` and a state to the next state, what was seen and the weights."""
        seen, weights = self.attention.look(memory, keys, state[0], counts > 0)
        seen = self.gate(state[0]) * seen
        _, state = self.cell(ops.concatenate([x, seen], axis=-1), state)
        return state, seen, weights

    def call(self, inputs, memory, counts):
        state, keys = self.start(memory, counts)

        def step(before, x):
            state, seen, weights = self.step(x, before[:2], memory, keys, counts)
            after = [*state, seen, weights]
            return after, after  # Keras' scan wants both alike

        before = [*state, ops.zeros_like(memory[:, 0]), ops.zeros_like(counts)]
        _, (states, _, seen, weights) = ops.scan(step, before, ops.transpose(inputs, (1, 0, 2)))
        return tuple(ops.transpose(x, (1, 0, 2)) for x in (states, seen, weights))

    def compute_output_shape(self, inputs_shape, memory_shape, counts_shape):
        batch, length, _ = inputs_shape
        return (batch, length, self.units), (batch, length, memory_shape[-1]), (batch, length, memory_shape[1])

    def get_config(self):
        return {**super().get_config(), "units": self.units}
