"""Token embeddings, positions, unit length, and the learned scale of a similarity."""

import math

import keras
from keras import ops

from mmkeras.layers import replicas

_FAR = -3e4  # less than any cosine times any scale, and a number in half precision


@keras.saving.register_keras_serializable(package="mmkeras")
class TokenEmbedding(keras.layers.Layer):
    """Token ids `(batch, length)` to vectors `(batch, length, dim)`, with a mask over padding (id 0).

    The first position is never masked, so that no row is masked entirely: cuDNN's LSTM fails on such rows, and
    a mean over nothing is not a number.

    Args:
        vocabulary_size: number of ids.
        dim: size of a vector.

    Example:

    >>> TokenEmbedding(10, 4)(np.array([[5, 7, 0]])).shape
    TensorShape([1, 3, 4])
    """

    def __init__(self, vocabulary_size, dim, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.dim = dim
        self.supports_masking = True

    def build(self, input_shape):
        self.table = self.add_weight(name="table", shape=(self.vocabulary_size, self.dim), initializer="uniform")

    def call(self, ids):
        return ops.take(self.table, ops.cast(ids, "int32"), axis=0)

    def compute_mask(self, ids, mask=None):
        first = ops.arange(ops.shape(ids)[1]) == 0
        return ops.logical_or(ops.not_equal(ids, 0), first[None])

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.dim)

    def get_config(self):
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "dim": self.dim}


@keras.saving.register_keras_serializable(package="mmkeras")
class QueuedSimilarity(keras.layers.Layer):
    """Unit vectors `(batch, dim)` of two modalities to cosines `(batch, size)` of the first with earlier second ones.

    In training the second ones of rows that have them, by their presence `(batch,)`, enter the queue when it has been
    looked at, and the oldest leave it (cross-batch memory, Wang 2020; MoCo, He 2020, without a second encoder).
    Otherwise, and where the queue is not filled, the cosines are so small that they count for nothing.

    Args:
        size: of the queue.
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, queries_shape, keys_shape, presence_shape):
        shape = (self.size, keys_shape[-1])
        self.queue = self.add_weight(name="queue", shape=shape, initializer="zeros", trainable=False)

    def call(self, queries, keys, presence, training=None):
        queue = ops.convert_to_tensor(self.queue)
        cosines = ops.matmul(queries, ops.transpose(queue))
        counts = ops.any(queue != 0, axis=-1) if training else ops.zeros((self.size,), "bool")
        cosines = ops.where(counts[None], cosines, ops.full_like(cosines, _FAR))
        if training:
            keys = ops.where(presence[:, None] > 0, keys, ops.zeros_like(keys))  # zeros do not count
            entered = ops.concatenate([ops.stop_gradient(replicas.gathered(keys)), queue])
            self.queue.assign(entered[: self.size])
        return cosines

    def compute_output_shape(self, queries_shape, keys_shape, presence_shape):
        return (queries_shape[0], self.size)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="mmkeras")
class AddPosition(keras.layers.Layer):
    """Tokens `(batch, length, width)` plus a learned vector for each position."""

    def __init__(self, length, **kwargs):
        super().__init__(**kwargs)
        self.length = length
        self.supports_masking = True

    def build(self, input_shape):
        self.positions = self.add_weight(name="positions", shape=(self.length, input_shape[-1]), initializer="uniform")

    def call(self, x):
        return x + ops.cast(self.positions, x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "length": self.length}


@keras.saving.register_keras_serializable(package="mmkeras")
class AddSinusoids(keras.layers.Layer):
    """Tokens `(batch, length, width)` plus sines and cosines of their positions (Vaswani 2017); of any length.

    Example:

    >>> print(AddSinusoids()(np.zeros((1, 2, 4)))[0, :, :2].numpy().round(2))
    [[0.   0.  ]
     [0.84 0.01]]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        width = x.shape[-1]
        half = (width + 1) // 2
        positions = ops.arange(ops.shape(x)[1], dtype="float32")[:, None]
        angles = positions / ops.power(10000.0, ops.arange(half, dtype="float32") / half)
        waves = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)[:, :width]
        return x + ops.cast(waves, x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="mmkeras")
class AddCoordinates(keras.layers.Layer):
    """Tokens of a picture `(batch, rows * columns, width)` with two more numbers: their place, each from -1 to 1.

    Args:
        grid: (rows, columns).

    Example:

    >>> AddCoordinates((2, 1))(np.zeros((1, 2, 3)))[0, :, 3].numpy().tolist()
    [-1.0, 1.0]
    """

    def __init__(self, grid, **kwargs):
        super().__init__(**kwargs)
        self.grid = tuple(grid)

    def call(self, x):
        rows, columns = (ops.linspace(-1.0, 1.0, n) if n > 1 else ops.zeros((1,)) for n in self.grid)
        rows = ops.repeat(rows, self.grid[1])
        columns = ops.tile(columns, [self.grid[0]])
        places = ops.cast(ops.stack([rows, columns], axis=-1), x.dtype)[None]
        return ops.concatenate([x, ops.broadcast_to(places, (ops.shape(x)[0], *places.shape[1:]))], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + 2)

    def get_config(self):
        return {**super().get_config(), "grid": self.grid}


@keras.saving.register_keras_serializable(package="mmkeras")
class L2Normalize(keras.layers.Layer):
    """Vectors `(..., dim)` to vectors of length one; zero stays zero, with a finite gradient."""

    def call(self, x):
        half = self.compute_dtype in ("float16", "bfloat16")
        exact = ops.cast(x, "float32") if half else x  # squares overflow, and so would the gradient at zero
        squares = ops.sum(ops.square(exact), axis=-1, keepdims=True)
        return ops.cast(exact * ops.rsqrt(ops.maximum(squares, 1e-7 if half else 1e-12)), x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="mmkeras")
class AtMost(keras.constraints.Constraint):
    """Keeps a weight from exceeding `value`: set back after the step, so that its gradient is never lost."""

    def __init__(self, value):
        self.value = value

    def __call__(self, weight):
        return ops.minimum(weight, self.value)

    def get_config(self):
        return {"value": self.value}


@keras.saving.register_keras_serializable(package="mmkeras")
class SimilarityScale(keras.layers.Layer):
    """Anything `(batch, ...)` to `(batch, 2)`: the learned scale and bias of a similarity, one row as the other.

    `logits = scale * cosine + bias`. The scale is learned as its logarithm and never exceeds 100 (CLIP, Radford
    2021); the bias is learned for the sigmoid loss (SigLIP, Zhai 2023) and stays zero otherwise.

    Args:
        initial_scale: the scale to begin with, e.g. 1 / 0.07.
        initial_bias: the bias to begin with, or None for none at all.
    """

    def __init__(self, initial_scale, initial_bias=None, **kwargs):
        super().__init__(**kwargs)
        self.initial_scale = initial_scale
        self.initial_bias = initial_bias

    def build(self, input_shape):
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(),
            initializer=keras.initializers.Constant(math.log(min(self.initial_scale, 100.0))),
            constraint=AtMost(math.log(100.0)),
        )
        self.bias = None
        if self.initial_bias is not None:
            self.bias = self.add_weight(
                name="bias", shape=(), initializer=keras.initializers.Constant(self.initial_bias)
            )

    def call(self, x):
        scale = ops.exp(self.log_scale)
        bias = ops.zeros_like(scale) if self.bias is None else self.bias + 0.0  # in a graph, stack takes no variable
        return ops.broadcast_to(ops.stack([scale, bias])[None], (ops.shape(x)[0], 2))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2)

    def get_config(self):
        return {**super().get_config(), "initial_scale": self.initial_scale, "initial_bias": self.initial_bias}
