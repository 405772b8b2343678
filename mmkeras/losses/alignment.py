"""Losses that bring the embeddings of two modalities together, or hold them apart."""

from keras import ops

from mmkeras.types import Tensor


def pair_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance between the embeddings of a row: two `(batch, dim)` to `(batch,)`."""
    return ops.sum(ops.square(a - b), axis=-1)


def correlation(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over the dimensions of the correlation between two views over the batch: two `(batch, dim)` to a number.

    It lies between -dim and dim; a dimension that varies by less than 1e-3 counts less. Correlational networks (Chandar
    2016) maximise it.

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


def moment_discrepancy(a: Tensor, b: Tensor, weights: Tensor | None = None, order: int = 5) -> Tensor:
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


def overlap(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """What two sets of features have in common: the mean squared cosine between their columns over the batch.

    Zero where every feature of `a` is orthogonal to every one of `b` (domain separation networks, Bousmalis 2016).

    Args:
        a, b: `(batch, dim)`.
        weights: `(batch,)`; rows of weight zero do not count.
    """
    views, _ = _centred((a, b), weights)
    unit = [x * ops.rsqrt(ops.sum(ops.square(x), axis=0) + 1e-6) for x in views]
    return ops.mean(ops.square(ops.matmul(ops.transpose(unit[0]), unit[1])))


def canonical_correlations(a: Tensor, b: Tensor, weights: Tensor | None = None, regularization: float = 1e-4) -> Tensor:
    """The correlations of the best-correlated directions of two views (CCA, Hotelling 1936): numbers `(dim,)`, falling.

    Minus their sum is the loss of deep CCA (Andrew 2013). It wants more rows than dimensions: with fewer any two views
    can be made to correlate.

    Args:
        a, b: `(batch, dim)`.
        weights: `(batch,)`; rows of weight zero do not count.
        regularization: added to the variances, as a share of their mean.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
    >>> canonical_correlations(x, x[:, ::-1] * 3).numpy().round(2).tolist()
    [1.0, 1.0]
    """
    (a, b), count = _centred((a, b), weights)
    whitened = []
    for x in (a, b):
        covariance = ops.matmul(ops.transpose(x), x) / count
        shift = regularization * ops.mean(ops.diagonal(covariance)) + 1e-9
        root = ops.linalg.cholesky(covariance + shift * ops.eye(x.shape[-1], dtype=x.dtype))
        whitened.append(ops.linalg.solve_triangular(root, ops.transpose(x), lower=True))
    return ops.linalg.svd(ops.matmul(whitened[0], ops.transpose(whitened[1])) / count, compute_uv=False)


def cca(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """Minus the sum of the canonical correlations of two views `(batch, dim)` (deep CCA, Andrew 2013)."""
    return -ops.sum(canonical_correlations(a, b, weights))


def barlow_twins(a: Tensor, b: Tensor, weights: Tensor | None = None, off_diagonal: float = 5e-3) -> Tensor:
    """How far the correlations between two views' features are from the identity (Barlow twins, Zbontar 2021).

    Args:
        a, b: `(batch, dim)`.
        weights: `(batch,)`; rows of weight zero do not count.
        off_diagonal: weight of the correlations between different features.
    """
    (a, b), count = _centred((a, b), weights)
    a, b = (x * ops.rsqrt(ops.sum(ops.square(x), axis=0) / count + 1e-6) for x in (a, b))
    correlations = ops.matmul(ops.transpose(a), b) / count
    own = ops.diagonal(correlations)
    others = ops.sum(ops.square(correlations)) - ops.sum(ops.square(own))
    return ops.sum(ops.square(1 - own)) + off_diagonal * others


def vicreg(
    a: Tensor,
    b: Tensor,
    weights: Tensor | None = None,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Tensor:
    """Views near each other, each feature spread out, different features unlike (VICReg, Bardes 2022).

    Args:
        a, b: `(batch, dim)`, of about unit variance.
        weights: `(batch,)`; rows of weight zero do not count.
        invariance, variance, covariance: weights of the three.
    """
    rows = ops.ones_like(a[:, 0]) if weights is None else ops.cast(weights, a.dtype)
    apart = ops.sum(rows * ops.mean(ops.square(a - b), axis=-1)) / ops.maximum(ops.sum(rows), 1.0)
    (a, b), count = _centred((a, b), weights)
    spread, common = 0.0, 0.0
    for x in (a, b):
        matrix = ops.matmul(ops.transpose(x), x) / ops.maximum(count - 1, 1.0)
        own = ops.diagonal(matrix)
        spread = spread + ops.mean(ops.relu(1 - ops.sqrt(own + 1e-4)))
        common = common + (ops.sum(ops.square(matrix)) - ops.sum(ops.square(own))) / x.shape[-1]
    return invariance * apart + variance * spread / 2 + covariance * common


def _centred(views, weights):
    """The views less their means, rows of weight zero being zero, and the number of the others."""
    weights = ops.ones_like(views[0][:, 0]) if weights is None else ops.cast(weights, views[0].dtype)
    count, weights = ops.maximum(ops.sum(weights), 1.0), weights[:, None]
    return [weights * (x - ops.sum(weights * x, axis=0) / count) for x in views], count


# Names by which two outputs are compared, each `(a, b, weights)` to a number.
ALIGNMENT_LOSSES = {
    "moments": moment_discrepancy,
    "overlap": overlap,
    "cca": cca,
    "barlow_twins": barlow_twins,
    "vicreg": vicreg,
}
