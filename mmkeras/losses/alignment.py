"""Losses that bring the embeddings of two modalities together, or hold them apart."""

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


def moment_discrepancy(a, b, weights=None, order=5):
    """Distance of two distributions by their central moments (CMD, Zellinger 2017): two `(batch, dim)` to a number.

    Args:
        a, b: `(batch, dim)`, features in -1..1.
        weights: `(batch,)`; rows of weight zero do not count.
        order: the highest moment.

    Example:

    >>> x = np.random.default_rng(0).uniform(-1, 1, size=(8, 3)).astype("float32")
    >>> float(moment_discrepancy(x, x[::-1])) < 1e-3
    True
    """
    weights = ops.ones_like(a[:, 0]) if weights is None else ops.cast(weights, a.dtype)
    weights = weights[:, None] / ops.maximum(ops.sum(weights), 1.0)

    def length(x):
        return ops.sqrt(ops.sum(ops.square(x)) + 1e-12)

    means = [ops.sum(weights * x, axis=0) for x in (a, b)]
    total = length(means[0] - means[1])
    for k in range(2, order + 1):
        moments = [ops.sum(weights * (x - mean) ** k, axis=0) for x, mean in zip((a, b), means, strict=True)]
        total = total + length(moments[0] - moments[1])
    return total


def overlap(a, b, weights=None):
    """What two sets of features have in common: the mean squared cosine between their columns over the batch.

    Zero where every feature of `a` is orthogonal to every one of `b` (domain separation networks, Bousmalis 2016).

    Args:
        a, b: `(batch, dim)`.
        weights: `(batch,)`; rows of weight zero do not count.
    """
    weights = ops.ones_like(a[:, 0]) if weights is None else ops.cast(weights, a.dtype)
    weights = weights[:, None]
    total = ops.maximum(ops.sum(weights), 1.0)
    unit = []
    for x in (a, b):
        x = weights * (x - ops.sum(weights * x, axis=0) / total)
        unit.append(x * ops.rsqrt(ops.sum(ops.square(x), axis=0) + 1e-6))
    return ops.mean(ops.square(ops.matmul(ops.transpose(unit[0]), unit[1])))
