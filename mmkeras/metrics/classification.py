"""Classification: one label a row, or several."""

import itertools

import numpy as np


def classification(labels, probabilities):
    """Accuracy, top-5, macro and micro F1, AUROC and calibration error for one label a row.

    Args:
        labels: class numbers `(rows,)`.
        probabilities: `(rows, classes)`, each row summing to one.

    Returns:
        A dict of numbers in 0..1. `macro_f1` and `auroc` are averaged over the classes that occur in `labels`.

    Example:

    >>> classification(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))["accuracy"]
    1.0
    """
    predicted = probabilities.argmax(axis=-1)
    own = probabilities[np.arange(len(labels)), labels]
    # Equal probabilities count against the label, and so do those that are not a number.
    rank = (~(probabilities < own[:, None])).sum(axis=-1)
    matrix = confusion(labels, predicted, probabilities.shape[-1])
    occurring = np.unique(labels)
    one_hot = labels[:, None] == np.arange(probabilities.shape[-1])
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "top5": float(np.mean(rank <= 5)),
        "macro_f1": float(np.mean(_f1(matrix)[occurring])),
        "micro_f1": float(np.mean(predicted == labels)),  # for one label a row the two are the same number
        "auroc": _mean_auroc(one_hot, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
    }


def multilabel(labels, probabilities, threshold=0.5):
    """Micro, macro and sample F1, AUROC and mean average precision for several labels a row.

    Args:
        labels: zeros and ones `(rows, classes)`.
        probabilities: `(rows, classes)`.
        threshold: a label is predicted from this probability on.

    Returns:
        A dict of numbers in 0..1; the averages over classes take those that occur.
    """
    labels, predicted = labels.astype(bool), probabilities >= threshold
    true = (labels & predicted).sum(axis=0)
    total = labels.sum(axis=0) + predicted.sum(axis=0)
    per_row = 2 * (labels & predicted).sum(axis=1) / np.maximum(labels.sum(axis=1) + predicted.sum(axis=1), 1)
    occurring = labels.any(axis=0)
    return {
        "micro_f1": float(2 * true.sum() / max(total.sum(), 1)),
        "macro_f1": float(np.mean((2 * true / np.maximum(total, 1))[occurring])),
        "sample_f1": float(np.mean(per_row)),
        "auroc": _mean_auroc(labels, probabilities),
        "map": float(
            np.mean([_average_precision(labels[:, c], probabilities[:, c]) for c in np.flatnonzero(occurring)])
        ),
    }


def confusion(labels, predicted, num_classes):
    """Counts `(classes, classes)`: true class down, predicted class across."""
    matrix = np.zeros((num_classes, num_classes), dtype="int64")
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def expected_calibration_error(labels, probabilities, num_bins=15):
    """Gap between confidence and accuracy, averaged over equal bins of confidence (Guo 2017)."""
    confidence = probabilities.max(axis=-1)
    correct = probabilities.argmax(axis=-1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    error = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return float(error)


def _f1(matrix):
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    return 2 * matrix.diagonal() / np.maximum(total, 1)


def _mean_auroc(one_hot, scores):
    """The mean over classes with both kinds of rows; not a number where there is no such class."""
    values = [
        _auroc(one_hot[:, c], scores[:, c])
        for c in range(one_hot.shape[1])
        if one_hot[:, c].any() and not one_hot[:, c].all()
    ]
    return float(np.mean(values)) if values else float("nan")


def _auroc(positive, scores):
    """Probability that a positive scores above a negative, half for equals (Mann and Whitney 1947)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # equal scores share the mean of their ranks
    num_positive = positive.sum()
    above = rank[positive].sum() - num_positive * (num_positive + 1) / 2
    return above / (num_positive * (len(positive) - num_positive))


def _average_precision(positive, scores):
    """Area under precision over recall, stepwise, equal scores taken together."""
    order = np.argsort(-scores, kind="stable")
    positive, scores = positive[order], scores[order]
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True))  # the last row of each run of equal scores
    true = np.cumsum(positive)[last]
    gained = np.diff(np.append(0, true))
    return float((gained * true / (last + 1)).sum() / max(positive.sum(), 1))
