"""Contrastive losses over the pairs of a batch.

Each takes the cosine similarities `(batch, batch)` of a row's first view (down) with every row's second (across), the
pairs that belong together, `(batch, batch)`, bool, the rows that take part, `(batch,)`, bool, and a scale and bias,
and gives one number. Pairs of a batch that belong together are never negatives; what is queued from
earlier batches always is.
"""

from collections.abc import Sequence
from typing import Literal

from keras import ops

from mmkeras.types import Tensor

_FAR = -1e9
NEGATIVES = ("sum", "hardest", "semi_hard", "soft")


def clip(
    similarity: Tensor,
    positive: Tensor,
    valid: Tensor,
    scale: Tensor,
    bias: Tensor,
    queued: Sequence[Tensor | None] = (None, None),
) -> Tensor:
    """Cross-entropy of the softmax over each row and column (CLIP, Radford 2021).

    Where several belong together the target is shared evenly among them (UniCL, Yang 2022).

    Args:
        similarity, positive, valid, scale, bias: as above; the bias is not used.
        queued: cosines `(batch, size)` of the first views with second ones of earlier batches, and of the second with
            first ones: negatives besides (MoCo, He 2020); or None.
    """
    across = _softmax_loss(similarity * scale, positive, valid, queued[0], scale)
    down = _softmax_loss(ops.transpose(similarity) * scale, ops.transpose(positive), valid, queued[1], scale)
    return (across + down) / 2


def supcon(similarity: Tensor, positive: Tensor, valid: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Cross-entropy of the softmax over all other views, of either modality (supervised contrast, Khosla 2020).

    Args:
        similarity: of all views of both modalities, `(2 * batch, 2 * batch)`.
        positive, valid, scale, bias: as above, of all views; the bias is not used.
    """
    other = ops.logical_not(ops.eye(ops.shape(similarity)[0], dtype="bool"))
    logits = ops.where(other, similarity * scale, _FAR)
    return _softmax_loss(logits, ops.logical_and(positive, other), valid)


def _softmax_loss(logits, positive, valid, queued=None, scale=1.0):
    return _mean(softmax_rows(logits, positive, valid, queued, scale), valid)


def softmax_rows(logits, positive, valid, queued=None, scale=1.0):
    """The cross-entropies of `clip` before their mean, `(rows,)`, of logits and positives `(rows, batch)`."""
    logits = ops.where(valid[None, :], logits, _FAR)
    target = ops.cast(ops.logical_and(positive, valid[None, :]), logits.dtype)
    target = target / ops.maximum(ops.sum(target, axis=-1, keepdims=True), 1.0)
    if queued is not None:
        logits = ops.concatenate([logits, queued * scale], axis=-1)
        target = ops.concatenate([target, ops.zeros_like(queued)], axis=-1)
    # Not by log_softmax: of a large batch every matrix more is felt in memory.
    return ops.sum(target, axis=-1) * ops.logsumexp(logits, axis=-1) - ops.sum(target * logits, axis=-1)


def siglip(similarity: Tensor, positive: Tensor, valid: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Every pair on its own: the sigmoid loss, summed over a row and averaged over rows (SigLIP, Zhai 2023)."""
    logits = similarity * scale + bias
    sign = ops.where(positive, 1.0, -1.0)
    both = ops.logical_and(valid[:, None], valid[None, :])
    loss = ops.where(both, ops.softplus(-sign * logits), 0.0)
    return _mean(ops.sum(loss, axis=-1), valid)


def triplet(
    similarity: Tensor,
    positive: Tensor,
    valid: Tensor,
    scale: Tensor,
    bias: Tensor,
    margin: float = 0.2,
    negatives: Literal["sum", "hardest", "semi_hard", "soft"] = "hardest",
) -> Tensor:
    """`max(0, margin + negative - positive)` in both directions (VSE++, Faghri 2018).

    Args:
        similarity, positive, valid, scale, bias: as above; scale and bias are not used.
        margin: of the cosine.
        negatives: `"sum"` over all, the `"hardest"`, `"semi_hard"` (the hardest of those less similar than the
            positive; where there is none, none counts), or `"soft"`: a soft maximum with temperature 0.05.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"Expected negatives to be one of {', '.join(NEGATIVES)}. Received: {negatives!r}.")
    usable = ops.logical_and(ops.logical_not(positive), ops.logical_and(valid[:, None], valid[None, :]))
    own = ops.diagonal(similarity)
    across = _triplet_loss(similarity, usable, own, margin, negatives)
    down = _triplet_loss(ops.transpose(similarity), ops.transpose(usable), own, margin, negatives)
    return _mean(across + down, valid)


def _triplet_loss(similarity, usable, own, margin, negatives):
    if negatives == "sum":
        loss = ops.maximum(margin + similarity - own[:, None], 0.0)
        return ops.sum(ops.where(usable, loss, 0.0), axis=-1)
    if negatives == "semi_hard":
        usable = ops.logical_and(usable, similarity < own[:, None])
    candidates = ops.where(usable, similarity, _FAR)
    if negatives == "soft":
        hardest = 0.05 * ops.logsumexp(candidates / 0.05, axis=-1)
    else:
        hardest = ops.max(candidates, axis=-1)
    return ops.where(ops.any(usable, axis=-1), ops.maximum(margin + hardest - own, 0.0), 0.0)


def l2(similarity, positive, valid, scale, bias):
    """Squared distance of the unit vectors of a row, `2 - 2 cosine`; nothing holds different rows apart."""
    return _mean(2 - 2 * ops.diagonal(similarity), valid)


def _mean(loss, valid):
    """The mean over the rows that take part."""
    return ops.sum(ops.where(valid, loss, 0.0)) / ops.maximum(ops.sum(ops.cast(valid, loss.dtype)), 1.0)


CONTRASTIVE_LOSSES = {"clip": clip, "siglip": siglip, "triplet": triplet, "l2": l2, "supcon": supcon}
