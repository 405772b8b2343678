"""Fusions by the tensor of all products of features, whole and of low rank."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import FeatureFusion, with_one


@keras.saving.register_keras_serializable(package="mmkeras")
class Tensor(FeatureFusion):
    """The outer product of all `[x_i; 1]`, through one dense layer (tensor fusion network, Zadeh 2017).

    It holds the product of every subset of features. An absent modality is `[0; 1]`: only the products without it
    remain.

    Args:
        width: size of the fused vector.
        tensor_width: size of a feature in the product; the product has `(tensor_width + 1) ** modalities` numbers.

    Raises:
        ValueError: if the product would have more than a million numbers.
    """

    least_modalities = 2

    def __init__(self, width, tensor_width=15, **kwargs):
        super().__init__(width, **kwargs)
        self.tensor_width = tensor_width

    @property
    def feature_width(self):
        return self.tensor_width

    def build_fusion(self, num_modalities):
        size = (self.tensor_width + 1) ** num_modalities
        if size > 1_000_000:
            raise ValueError(
                f"Expected an outer product of at most a million numbers. Received: {num_modalities} modalities of "
                f"tensor_width={self.tensor_width}, {size:,} numbers. Take a smaller tensor_width, or LowRankTensor."
            )
        self.output_projection = layers.Dense(self.width, name="output_projection")
        self.output_projection.build((None, size))

    def fuse(self, features, present):
        product = with_one(features[0])
        for x in features[1:]:
            product = ops.reshape(product[:, :, None] * with_one(x)[:, None], (ops.shape(x)[0], -1))
        size = self.output_projection.kernel.shape[0]
        return self.output_projection(ops.reshape(product, (-1, size)))

    def get_config(self):
        return {**super().get_config(), "tensor_width": self.tensor_width}


@keras.saving.register_keras_serializable(package="mmkeras")
class LowRankTensor(FeatureFusion):
    """`sum_r prod_i W_i^r [x_i; 1]`: tensor fusion with a weight tensor of low rank (Liu 2018).

    Args:
        width: size of the fused vector.
        rank: number of terms.
    """

    least_modalities = 2

    def __init__(self, width, rank=4, **kwargs):
        super().__init__(width, **kwargs)
        self.rank = rank

    def build_fusion(self, num_modalities):
        shape = (num_modalities, self.rank, self.width + 1, self.width)
        self.factors = self.add_weight(name="factors", shape=shape, initializer="glorot_uniform")
        self.rank_weights = self.add_weight(name="rank_weights", shape=(self.rank,), initializer="ones")
        self.bias = self.add_weight(name="bias", shape=(self.width,), initializer="zeros")

    def fuse(self, features, present):
        product = None
        for i, x in enumerate(features):
            factor = ops.einsum("bi,rio->bro", with_one(x), self.factors[i])  # (batch, rank, width)
            product = factor if product is None else product * factor
        return ops.einsum("bro,r->bo", product, self.rank_weights) + self.bias

    def get_config(self):
        return {**super().get_config(), "rank": self.rank}
