"""A linear map that is found after training."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class Projection(keras.layers.Layer):
    """`(x - mean) @ matrix` of `(batch, dim)`: the identity until `set` is called, and never trained.

    Example:

    >>> layer = Projection()
    >>> layer(np.ones((1, 2))).numpy().tolist()
    [[1.0, 1.0]]
    """

    def build(self, x_shape):
        dim = x_shape[-1]
        self.mean = self.add_weight(name="mean", shape=(dim,), initializer="zeros", trainable=False)
        self.matrix = self.add_weight(name="matrix", shape=(dim, dim), initializer="identity", trainable=False)

    def call(self, x):
        return ops.matmul(x - self.mean, self.matrix)

    def set(self, mean, matrix):
        """Makes these the mean `(dim,)` and the matrix `(dim, dim)`."""
        self.mean.assign(mean)
        self.matrix.assign(matrix)


def canonical_directions(a, b, regularization=1e-4):
    """Two views `(rows, dim)` to a mean and a matrix each, whose projections correlate best (CCA, Hotelling 1936).

    The columns are in falling order of their correlations, and multiplied with them: what does not correlate does not
    count.

    Returns:
        `(mean, matrix)` of `a`, and of `b`.
    """
    whitenings, means, whitened = [], [], []
    for x in (a, b):
        mean = x.mean(axis=0, dtype="float64")
        covariance = np.cov((x - mean).T, bias=True).reshape(x.shape[1], x.shape[1])
        values, vectors = np.linalg.eigh(covariance)
        shift = regularization * values.mean() + 1e-9
        whitening = vectors / np.sqrt(np.maximum(values, 0) + shift) @ vectors.T
        whitenings.append(whitening)
        means.append(mean)
        whitened.append((x - mean) @ whitening)
    left, correlations, right = np.linalg.svd(whitened[0].T @ whitened[1] / len(a))
    directions = [whitenings[0] @ left * correlations, whitenings[1] @ right.T * correlations]
    return tuple(zip(means, directions, strict=True))
