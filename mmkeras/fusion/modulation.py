"""Feature-wise modulation."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import FeatureFusion
from mmkeras.layers.pooling import masked_mean


@keras.saving.register_keras_serializable(package="mmkeras")
class FiLM(FeatureFusion):
    """`relu((1 + gamma) * tokens + beta)` of one modality, gamma and beta from the others (FiLM, Perez 2018), averaged.

    A learned token stands in for the modulated modality where it is absent. Gamma and beta are the sums over those of
    the others that are present.

    Args:
        width: size of the fused vector.
        modulated: name of the modality that is modulated; the first by name if None.
    """

    def __init__(self, width, modulated=None, **kwargs):
        super().__init__(width, **kwargs)
        self.modulated = modulated

    def build_fusion(self, num_modalities):
        if self.modulated is not None and self.modulated not in self.names:
            raise ValueError(f"Expected modulated to be one of {self.names}. Received: modulated={self.modulated!r}")
        self.stand_in = self.add_weight(name="stand_in", shape=(self.width,), initializer="zeros")
        self.modulations = [layers.Dense(2 * self.width, name=f"modulation_{i}") for i in range(num_modalities - 1)]
        for modulation in self.modulations:
            modulation.build((None, self.width))

    def call(self, tokens, presence=None, tokens_mask=None, mask=None):
        tokens, present, masks = self.inputs(tokens, presence, tokens_mask or mask)
        main = self.names.index(self.modulated or self.names[0])
        modulations = iter(self.modulations)
        change = 0.0
        for i, name in enumerate(self.names):
            if i != main:
                condition = next(modulations)(self.projections[i](masked_mean(tokens[name], masks.get(name))))
                change = change + ops.where(present[:, i : i + 1], condition, ops.zeros_like(condition))
        name = self.names[main]
        x = self.projections[main](tokens[name])
        x = ops.where(present[:, main : main + 1, None], x, ops.cast(self.stand_in, x.dtype))
        if self.modulations:
            gamma, beta = ops.split(change[:, None], 2, axis=-1)
            x = (1 + gamma) * x + beta
        real = masks.get(name)
        if real is not None:  # the mask of an absent modality says nothing either
            real = ops.logical_or(real, ops.logical_not(present[:, main : main + 1]))
        return masked_mean(ops.relu(x), real)

    def get_config(self):
        return {**super().get_config(), "modulated": self.modulated}
