"""Reconstruction losses, and the divergence of variational models: one value a row."""

import keras
from keras import ops

from mmkeras.types import Tensor


def pixel_mse(pixels: Tensor, reconstruction: Tensor) -> Tensor:
    """Squared error, summed over channels and averaged over places: `(batch, ..., channels)` to `(batch,)`."""
    squares = ops.sum(ops.square(pixels - reconstruction), axis=-1)
    return ops.mean(squares, axis=tuple(range(1, len(squares.shape))))


def pixel_bce(pixels: Tensor, reconstruction: Tensor) -> Tensor:
    """Binary cross-entropy in nats, averaged over the pixels: `(batch, ...)` to `(batch,)`."""
    p = ops.clip(reconstruction, 1e-6, 1 - 1e-6)
    loss = pixels * ops.log(p) + (1 - pixels) * ops.log(1 - p)
    return -ops.mean(loss, axis=tuple(range(1, len(loss.shape))))


def token_nll(ids: Tensor, logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, summed over the tokens, padding (0) left out.

    Args:
        ids: of the tokens, `(batch, length)`.
        logits: `(batch, length, ids)`.
        label_smoothing: share of the target spread evenly over the vocabulary (Szegedy 2016).
    """
    loss = keras.losses.sparse_categorical_crossentropy(ids, logits, from_logits=True)
    if label_smoothing:
        uniform = -ops.mean(ops.log_softmax(logits, axis=-1), axis=-1)
        loss = (1 - label_smoothing) * loss + label_smoothing * uniform
    return ops.sum(ops.where(ops.not_equal(ids, 0), loss, ops.zeros_like(loss)), axis=-1)


@keras.saving.register_keras_serializable(package="mmkeras")
def token_cross_entropy(ids: Tensor, logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """`token_nll` a token: ids `(batch, length)`, logits `(batch, length, ids)`.

    Example:

    >>> loss = token_cross_entropy(np.array([[1, 0]]), np.zeros((1, 2, 4), "float32"))
    >>> bool(abs(loss[0] - np.log(4)) < 1e-6)  # padding does not count
    True
    """
    num_tokens = ops.sum(ops.cast(ops.not_equal(ids, 0), logits.dtype), axis=-1)
    return token_nll(ids, logits, label_smoothing) / ops.maximum(num_tokens, 1.0)


def vector_mse(vectors: Tensor, reconstruction: Tensor) -> Tensor:
    """Squared error, averaged over the features: `(batch, ...)` to `(batch,)`."""
    squares = ops.square(vectors - reconstruction)
    return ops.mean(squares, axis=tuple(range(1, len(squares.shape))))


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence from a standard normal, summed over the dimensions: two `(batch, dim)` to `(batch,)`."""
    return 0.5 * ops.sum(ops.square(mean) + ops.exp(log_variance) - 1 - log_variance, axis=-1)
