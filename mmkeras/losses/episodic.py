"""Logits of few-shot learning: queries classified by some examples of each class, their features alone."""

from keras import ops

from mmkeras.types import Tensor


def prototypical(support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """Minus the squared distance to the mean of each class (prototypical networks, Snell 2017).

    Args:
        support: features of the examples `(..., examples, dim)`.
        labels: zeros and ones `(..., examples, classes)`.
        queries: features `(..., queries, dim)`.

    Returns:
        Logits `(..., queries, classes)`.

    Example:

    >>> prototypical(np.array([[0.0], [2.0]]), np.eye(2), np.array([[0.5]])).numpy().tolist()
    [[-0.25, -2.25]]
    """
    counts = ops.maximum(ops.sum(labels, axis=-2), 1e-9)[..., None]
    means = ops.matmul(ops.swapaxes(labels, -1, -2), support) / counts
    squares = ops.sum(ops.square(queries), axis=-1)[..., None] + ops.sum(ops.square(means), axis=-1)[..., None, :]
    return 2 * ops.matmul(queries, ops.swapaxes(means, -1, -2)) - squares


def matching(support: Tensor, labels: Tensor, queries: Tensor, scale: float = 10.0) -> Tensor:
    """Logarithm of the attention paid to each class, by the cosine to every example (matching networks, Vinyals 2016).

    Args:
        support, labels, queries: as for `prototypical`.
        scale: of the cosines.

    Returns:
        Logits `(..., queries, classes)`.
    """
    support, queries = ops.normalize(support, axis=-1), ops.normalize(queries, axis=-1)
    attention = ops.softmax(scale * ops.matmul(queries, ops.swapaxes(support, -1, -2)), axis=-1)
    return ops.log(ops.matmul(attention, labels) + 1e-9)


EPISODIC_LOGITS = {"prototypical": prototypical, "matching": matching}
