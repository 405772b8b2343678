"""Generated pictures compared with real ones, over features or class probabilities of a classifier."""

import numpy as np
from numpy.typing import ArrayLike


def frechet_distance(real: ArrayLike, generated: ArrayLike) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features `(rows, dim)` (FID, Heusel 2017).

    With Inception features it is the FID of the literature; over our own classifier's features it compares runs of
    one data set only.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> abs(frechet_distance(x, x)) < 1e-9
    True
    """
    real, generated = np.asarray(real, "float64"), np.asarray(generated, "float64")
    _check_rows(real, generated)
    gap = real.mean(axis=0) - generated.mean(axis=0)
    a, b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, generated))
    root = _square_root(a)
    # The trace of sqrt(a b) is that of sqrt(sqrt(a) b sqrt(a)), which is symmetric.
    cross = np.linalg.eigvalsh(root @ b @ root).clip(0)
    return float(gap @ gap + np.trace(a) + np.trace(b) - 2 * np.sqrt(cross).sum())


def kernel_distance(real: ArrayLike, generated: ArrayLike) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel `(x . y / dim + 1)^3` (KID, Binkowski 2018)."""
    real, generated = np.asarray(real, "float64"), np.asarray(generated, "float64")
    _check_rows(real, generated)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def without_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    within = without_diagonal(kernel(real, real)) + without_diagonal(kernel(generated, generated))
    return float(within - 2 * kernel(real, generated).mean())


def inception_score(probabilities: ArrayLike) -> float:
    """exp of the mean KL divergence of the class probabilities `(rows, classes)` from their mean (Salimans 2016).

    It lies between 1 (all alike or all unsure) and the number of classes.
    """
    p = np.asarray(probabilities, "float64").clip(1e-12)
    return float(np.exp((p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=-1).mean()))


def _check_rows(*sets):
    if min(map(len, sets)) < 2:
        raise ValueError(f"Expected two rows or more of each set. Received: {' and '.join(str(len(x)) for x in sets)}.")


def _square_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
