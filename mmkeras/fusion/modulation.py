"""One modality changed by the others."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import FeatureFusion, with_one
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

    least_modalities = 2

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
        gamma, beta = ops.split(change[:, None], 2, axis=-1)
        x = (1 + gamma) * x + beta
        real = masks.get(name)
        if real is not None:  # the mask of an absent modality says nothing either
            real = ops.logical_or(real, ops.logical_not(present[:, main : main + 1]))
        return masked_mean(ops.relu(x), real)

    def get_config(self):
        return {**super().get_config(), "modulated": self.modulated}


@keras.saving.register_keras_serializable(package="mmkeras")
class Multiplicative(FeatureFusion):
    """`z W x + U z + V x + b`: the others, `z`, make the matrix that one modality, `x`, is multiplied with.

    Multiplicative interactions (Jayakumar 2020), of which FiLM is the diagonal case. `z` is the sum of the others that
    are present.

    Args:
        width: size of the fused vector.
        context_width: size of `z`.
        main: name of the modality `x`; the first by name if None.
    """

    least_modalities = 2

    def __init__(self, width, context_width=16, main=None, **kwargs):
        super().__init__(width, **kwargs)
        self.context_width = context_width
        self.main = main

    def build_fusion(self, num_modalities):
        if self.main is not None and self.main not in self.names:
            raise ValueError(f"Expected main to be one of {self.names}. Received: main={self.main!r}")
        self.contexts = [layers.Dense(self.context_width, name=f"context_{i}") for i in range(num_modalities - 1)]
        for context in self.contexts:
            context.build((None, self.width))
        shape = (self.context_width + 1, self.width + 1, self.width)  # a one beside z and x gives U, V and b
        self.interactions = self.add_weight(name="interactions", shape=shape, initializer="glorot_uniform")

    def fuse(self, features, present):
        main = self.names.index(self.main or self.names[0])
        others = [i for i in range(len(features)) if i != main]
        z = ops.zeros((ops.shape(features[0])[0], self.context_width), dtype=features[0].dtype)
        for i, context in zip(others, self.contexts, strict=True):
            said = context(features[i])
            z = z + ops.where(present[:, i : i + 1], said, ops.zeros_like(said))
        return ops.einsum("bz,bx,zxo->bo", with_one(z), with_one(features[main]), self.interactions)

    def get_config(self):
        return {**super().get_config(), "context_width": self.context_width, "main": self.main}
