"""Losses that bring the embeddings of two modalities together."""

from keras import ops


def pair_distance(a, b):
    """Squared distance between the embeddings of a row: two `(batch, dim)` to `(batch,)`."""
    return ops.sum(ops.square(a - b), axis=-1)


def correlation(a, b, weights=None):
    """Sum over the dimensions of the correlation between two views over the batch: two `(batch, dim)` to a number.

    It lies between -dim and dim. Correlational networks (Chandar 2016) maximise it.

    Args:
        a, b: `(batch, dim)`.
        weights: `(batch,)`; rows of weight zero do not count.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    >>> round(float(correlation(x, 2 * x)), 4)
    3.0
    """
    weights = ops.ones_like(a[:, 0]) if weights is None else ops.cast(weights, a.dtype)
    weights = weights[:, None] / ops.maximum(ops.sum(weights), 1.0)
    a = a - ops.sum(weights * a, axis=0)
    b = b - ops.sum(weights * b, axis=0)
    covariance = ops.sum(weights * a * b, axis=0)
    variances = ops.sum(weights * a * a, axis=0) * ops.sum(weights * b * b, axis=0)
    return ops.sum(covariance * ops.rsqrt(variances + 1e-12))
