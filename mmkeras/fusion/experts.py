"""Fusions of experts: each modality a distribution, or several networks of which a gate chooses."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import FeatureFusion
from mmkeras.layers import gaussian_product


@keras.saving.register_keras_serializable(package="mmkeras")
class ProductOfExperts(FeatureFusion):
    """The mean of a product of Gaussians, one a modality, and of the standard one (product of experts, Hinton 2002).

    A modality gives a mean and a logarithm of the variance; the surer it is, the more its mean counts. With all of
    them absent the standard Gaussian remains: zero.
    """

    @property
    def feature_width(self):
        return 2 * self.width

    def fuse(self, features, present):
        means, log_variances = zip(*(ops.split(x, 2, axis=-1) for x in features), strict=True)
        mean, _ = gaussian_product(ops.stack(means, axis=1), ops.stack(log_variances, axis=1), present)
        return ops.cast(mean, self.compute_dtype)


@keras.saving.register_keras_serializable(package="mmkeras")
class MixtureOfExperts(FeatureFusion):
    """`sum_e softmax(G x)_e relu(W_e x)` of the features beside each other, absent ones zero (Jacobs 1991).

    Args:
        width: size of the fused vector.
        num_experts: number of networks.
    """

    def __init__(self, width, num_experts=4, **kwargs):
        super().__init__(width, **kwargs)
        self.num_experts = num_experts

    def build_fusion(self, num_modalities):
        shape = (None, num_modalities * self.width)
        self.gate = layers.Dense(self.num_experts, activation="softmax", name="gate")
        self.gate.build(shape)
        self.experts = layers.Dense(self.num_experts * self.width, activation="relu", name="experts")
        self.experts.build(shape)

    def fuse(self, features, present):
        x = ops.concatenate(features, axis=-1)
        said = ops.reshape(self.experts(x), (-1, self.num_experts, self.width))
        return ops.sum(self.gate(x)[..., None] * said, axis=1)

    def get_config(self):
        return {**super().get_config(), "num_experts": self.num_experts}
