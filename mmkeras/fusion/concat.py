"""Concatenation, sums and products: the fusions every comparison begins with."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import FeatureFusion, masked_softmax, product


@keras.saving.register_keras_serializable(package="mmkeras")
class Concat(FeatureFusion):
    """The features beside each other, through one dense layer. A learned vector stands in for an absent modality.

    Example:

    >>> fusion = Concat(width=8)
    >>> fusion({"image": np.ones((2, 9, 4)), "text": np.ones((2, 5, 6))}).shape
    TensorShape([2, 8])
    """

    def build_fusion(self, num_modalities):
        self.stand_ins = self.add_weight(name="stand_ins", shape=(num_modalities, self.width), initializer="zeros")
        self.output_projection = layers.Dense(self.width, name="output_projection")
        self.output_projection.build((None, num_modalities * self.width))

    def fuse(self, features, present):
        filled = [ops.where(present[:, i : i + 1], x, self.stand_ins[i]) for i, x in enumerate(features)]
        return self.output_projection(ops.concatenate(filled, axis=-1))


@keras.saving.register_keras_serializable(package="mmkeras")
class Sum(FeatureFusion):
    """The sum of the features that are present."""

    def fuse(self, features, present):
        return sum(features)


@keras.saving.register_keras_serializable(package="mmkeras")
class WeightedSum(FeatureFusion):
    """A convex combination of the features; one learned weight a modality, shared out among those present."""

    def build_fusion(self, num_modalities):
        self.scores = self.add_weight(name="scores", shape=(num_modalities,), initializer="zeros")

    def fuse(self, features, present):
        weights = masked_softmax(ops.broadcast_to(self.scores, ops.shape(present)), present)
        return sum(weights[:, i : i + 1] * x for i, x in enumerate(features))


@keras.saving.register_keras_serializable(package="mmkeras")
class Product(FeatureFusion):
    """The element-wise product of the features; an absent one counts as ones."""

    def fuse(self, features, present):
        return product(features, present)


@keras.saving.register_keras_serializable(package="mmkeras")
class DeepSets(FeatureFusion):
    """`rho(sum_i phi(x_i))`: one network for every feature, their sum, one network for it (deep sets, Zaheer 2017)."""

    def build_fusion(self, num_modalities):
        self.each = layers.Dense(2 * self.width, activation="relu", name="each")
        self.each.build((None, self.width))
        self.output_projection = layers.Dense(self.width, name="output_projection")
        self.output_projection.build((None, 2 * self.width))

    def fuse(self, features, present):
        seen = [self.each(x) for x in features]
        total = sum(ops.where(present[:, i : i + 1], x, ops.zeros_like(x)) for i, x in enumerate(seen))
        return self.output_projection(total)
