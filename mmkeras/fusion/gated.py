"""Gated multimodal unit."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import FeatureFusion


@keras.saving.register_keras_serializable(package="mmkeras")
class Gated(FeatureFusion):
    """`sum_i sigmoid(U_i [x_1 .. x_m]) * tanh(x_i)` (gated multimodal units, Arevalo 2017).

    Every modality has a gate of its own that sees all of them. An absent modality is zero in what the gates see, and
    its own term is left out.
    """

    def build_fusion(self, num_modalities):
        self.gates = [layers.Dense(self.width, activation="sigmoid", name=f"gate_{i}") for i in range(num_modalities)]
        for gate in self.gates:
            gate.build((None, num_modalities * self.width))

    def fuse(self, features, present):
        everything = ops.concatenate(features, axis=-1)
        # tanh(0) is 0: the term of an absent modality vanishes by itself.
        return sum(gate(everything) * ops.tanh(x) for gate, x in zip(self.gates, features, strict=True))
