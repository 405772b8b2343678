"""Fusions by factorised bilinear maps: every product of two features counts, the weights of the products are few."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import FeatureFusion, product

_HALF = ("float16", "bfloat16")


@keras.saving.register_keras_serializable(package="mmkeras")
class Bilinear(FeatureFusion):
    """`P (tanh(x_1) * tanh(x_2) * ..) + b`: low-rank bilinear pooling (MLB, Kim 2017), an absent factor being one.

    Args:
        width: size of the fused vector.
        rank: size of the product.
    """

    least_modalities = 2

    def __init__(self, width, rank=None, **kwargs):
        super().__init__(width, **kwargs)
        self.rank = rank or 2 * width

    @property
    def feature_width(self):
        return self.rank

    def build_fusion(self, num_modalities):
        self.output_projection = layers.Dense(self.width, name="output_projection")
        self.output_projection.build((None, self.rank))

    def fuse(self, features, present):
        return self.output_projection(product([ops.tanh(x) for x in features], present))

    def get_config(self):
        return {**super().get_config(), "rank": self.rank}


@keras.saving.register_keras_serializable(package="mmkeras")
class FactorizedBilinear(FeatureFusion):
    """Products of wide features, summed `factors` by `factors` (multi-modal factorised bilinear pooling, Yu 2017).

    Then the signed square root and division by the length of the vector. An absent factor is one.

    Args:
        width: size of the fused vector.
        factors: number of products that are summed.
    """

    least_modalities = 2

    def __init__(self, width, factors=5, **kwargs):
        super().__init__(width, **kwargs)
        self.factors = factors

    @property
    def feature_width(self):
        return self.width * self.factors

    def fuse(self, features, present):
        products = ops.reshape(product(features, present), (-1, self.width, self.factors))
        return power_normalized(ops.sum(products, axis=-1))

    def get_config(self):
        return {**super().get_config(), "factors": self.factors}


@keras.saving.register_keras_serializable(package="mmkeras")
class Tucker(FeatureFusion):
    """`P core(x_1, x_2, ..)`: a Tucker decomposition of the tensor of all products (Ben-younes 2017).

    A learned vector stands in for an absent modality.

    Args:
        width: size of the fused vector.
        core_width: size of a feature, and of the core's output; the core has `core_width ** (modalities + 1)` weights.

    Raises:
        ValueError: if the core would have more than ten million weights.
    """

    least_modalities = 2

    def __init__(self, width, core_width=16, **kwargs):
        super().__init__(width, **kwargs)
        self.core_width = core_width

    @property
    def feature_width(self):
        return self.core_width

    def build_fusion(self, num_modalities):
        size = self.core_width ** (num_modalities + 1)
        if size > 10_000_000:
            raise ValueError(
                f"Expected a core of at most ten million weights. Received: {num_modalities} modalities of core_width="
                f"{self.core_width}, {size:,} weights. Take a smaller core_width, or Mutan."
            )
        shape = (num_modalities, self.core_width)
        self.stand_ins = self.add_weight(name="stand_ins", shape=shape, initializer="glorot_uniform")
        self.core = layers.Dense(self.core_width, use_bias=False, name="core")
        self.core.build((None, size // self.core_width))
        self.output_projection = layers.Dense(self.width, name="output_projection")
        self.output_projection.build((None, self.core_width))

    def fuse(self, features, present):
        outer = None
        for i, x in enumerate(features):
            x = ops.where(present[:, i : i + 1], x, ops.cast(self.stand_ins[i], x.dtype))
            size = self.core_width**i
            outer = x if outer is None else ops.reshape(outer[:, :, None] * x[:, None], (-1, size * self.core_width))
        return self.output_projection(self.core(outer))

    def get_config(self):
        return {**super().get_config(), "core_width": self.core_width}


@keras.saving.register_keras_serializable(package="mmkeras")
class Mutan(FeatureFusion):
    """`P sum_r prod_i M_i^r tanh(x_i)`: Tucker fusion with a core of low rank (MUTAN, Ben-younes 2017).

    An absent factor is one.

    Args:
        width: size of the fused vector.
        rank: number of terms.
    """

    least_modalities = 2

    def __init__(self, width, rank=5, **kwargs):
        super().__init__(width, **kwargs)
        self.rank = rank

    def build_fusion(self, num_modalities):
        shape = (num_modalities, self.rank, self.width, self.width)
        self.factors = self.add_weight(name="factors", shape=shape, initializer="glorot_uniform")
        self.output_projection = layers.Dense(self.width, name="output_projection")
        self.output_projection.build((None, self.width))

    def fuse(self, features, present):
        terms = [ops.einsum("bi,rio->bro", ops.tanh(x), self.factors[i]) for i, x in enumerate(features)]
        return self.output_projection(ops.sum(product(terms, present), axis=1))

    def get_config(self):
        return {**super().get_config(), "rank": self.rank}


@keras.saving.register_keras_serializable(package="mmkeras")
class Block(FeatureFusion):
    """Features cut into chunks, each chunk fused by products of its own rank (BLOCK, Ben-younes 2019).

    `z_c = sum_r prod_i M_ic^r x_ic`, then the signed square root and division by the chunk's length; the chunks
    through one dense layer. An absent factor is one.

    Args:
        width: size of the fused vector, divisible by `num_chunks`.
        num_chunks: number of chunks.
        rank: number of terms.
    """

    least_modalities = 2

    def __init__(self, width, num_chunks=4, rank=5, **kwargs):
        super().__init__(width, **kwargs)
        if width % num_chunks:
            raise ValueError(
                f"Expected a width divisible by num_chunks. Received: width={width}, num_chunks={num_chunks}."
            )
        self.num_chunks = num_chunks
        self.rank = rank

    def build_fusion(self, num_modalities):
        size = self.width // self.num_chunks
        shape = (num_modalities, self.num_chunks, self.rank, size, size)
        self.factors = self.add_weight(name="factors", shape=shape, initializer="glorot_uniform")
        self.output_projection = layers.Dense(self.width, name="output_projection")
        self.output_projection.build((None, self.width))

    def fuse(self, features, present):
        chunks = [ops.reshape(x, (-1, self.num_chunks, self.width // self.num_chunks)) for x in features]
        terms = [ops.einsum("bci,crio->bcro", x, self.factors[i]) for i, x in enumerate(chunks)]
        fused = power_normalized(ops.sum(product(terms, present), axis=2))
        return self.output_projection(ops.reshape(fused, (-1, self.width)))

    def get_config(self):
        return {**super().get_config(), "num_chunks": self.num_chunks, "rank": self.rank}


@keras.saving.register_keras_serializable(package="mmkeras")
class CompactBilinear(FeatureFusion):
    """A count sketch of the outer product of all features (compact bilinear pooling, Gao 2016; MCB, Fukui 2016).

    Each feature is sketched (every number added, with a random sign, at a random place); the circular convolution of
    the sketches is the sketch of the outer product. Then the signed square root, division by the length, and a dense
    layer. An absent modality is the sketch that a convolution leaves as it is.

    Args:
        width: size of the fused vector.
        sketch_width: size of a sketch.
        seed: of the places and signs; they are saved with the weights.
    """

    least_modalities = 2

    def __init__(self, width, sketch_width=None, seed=0, **kwargs):
        super().__init__(width, **kwargs)
        self.sketch_width = sketch_width or 8 * width
        self.seed = seed

    def build_fusion(self, num_modalities):
        shape = (num_modalities, self.width, self.sketch_width)
        self.sketches = self.add_weight(name="sketches", shape=shape, initializer=self._sketches, trainable=False)
        self.output_projection = layers.Dense(self.width, name="output_projection")
        self.output_projection.build((None, self.sketch_width))

    def _sketches(self, shape, dtype):
        places = keras.random.randint(shape[:2], 0, shape[2], seed=self.seed)
        signs = 2 * keras.random.randint(shape[:2], 0, 2, seed=self.seed + 1) - 1
        return ops.cast(ops.one_hot(places, shape[2]) * ops.cast(signs, "float32")[..., None], dtype)

    def fuse(self, features, present):
        real, imaginary = 1.0, 0.0
        for i, x in enumerate(features):
            sketched = ops.matmul(x, self.sketches[i])
            half = self.compute_dtype in _HALF  # of which no Fourier transform is known
            a, b = ops.rfft(ops.cast(sketched, "float32") if half else sketched)
            here = present[:, i : i + 1]
            a, b = ops.where(here, a, ops.ones_like(a)), ops.where(here, b, ops.zeros_like(b))
            real, imaginary = real * a - imaginary * b, real * b + imaginary * a
        joined = ops.cast(ops.irfft((real, imaginary), self.sketch_width), self.compute_dtype)
        return self.output_projection(power_normalized(joined))

    def get_config(self):
        return {**super().get_config(), "sketch_width": self.sketch_width, "seed": self.seed}


def power_normalized(x):
    """The signed square root of each number, then the vector divided by its length.

    The root is shifted by 1e-4: by itself it has an infinite slope at zero, and makes 1e-4 of a rounding error of 1e-8.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    x = ops.cast(x, "float32") if dtype in _HALF else x  # to which 1e-8 is nothing
    x = ops.sign(x) * (ops.sqrt(ops.abs(x) + 1e-4) - 1e-2)
    return ops.cast(x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-8), dtype)
