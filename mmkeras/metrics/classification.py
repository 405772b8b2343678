"""Classification: one label a row, or several."""

import itertools

import numpy as np


def classification(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
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
    unsaid, count = np.isnan(probabilities).any(axis=-1), probabilities.shape[-1]
    predicted = np.where(unsaid, count, probabilities.argmax(axis=-1))  # what is no number is none of the classes
    probabilities = np.where(unsaid[:, None], -1.0, probabilities)
    own = probabilities[np.arange(len(labels)), labels]
    # Equal probabilities count against the label, and so do those that are not a number.
    rank = (~(probabilities < own[:, None])).sum(axis=-1)
    matrix = confusion(labels, predicted, count + 1)
    occurring = np.unique(labels)
    one_hot = labels[:, None] == np.arange(count)
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "top5": float(np.mean(rank <= 5)),
        "macro_f1": float(np.mean(_f1(matrix)[occurring])),
        "micro_f1": float(np.mean(predicted == labels)),  # for one label a row the two are the same number
        "auroc": _mean_auroc(one_hot, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
    }


def multilabel(labels: np.ndarray, probabilities: np.ndarray, threshold: float | np.ndarray = 0.5) -> dict[str, float]:
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


def polarity(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Numbers below and above zero, compared as in multimodal sentiment analysis (Zadeh 2018).

    Args:
        true, predicted: `(rows,)`.

    Returns:
        `mae`; `pearson` (0 where one of them does not vary); `acc2`, the share of equal signs, and `f1` of the positive
        rows and the negative ones, averaged by their number, both over the rows whose true value is not zero (not a
        number where there are none).

    Example:

    >>> polarity(np.array([-1.0, 0.0, 2.0]), np.array([-0.5, 0.1, 2.0]))["acc2"]
    1.0
    """
    varies = true.std() > 0 and predicted.std() > 1e-12
    told = true != 0
    signs, said = (true[told] > 0).astype(int), (predicted[told] > 0).astype(int)
    shares = np.bincount(signs, minlength=2) / max(len(signs), 1)
    return {
        "mae": float(np.abs(true - predicted).mean()),
        "pearson": float(np.corrcoef(true, predicted)[0, 1]) if varies else 0.0,
        "acc2": float(np.mean(signs == said)) if told.any() else float("nan"),
        "f1": float(shares @ _f1(confusion(signs, said, 2))) if told.any() else float("nan"),
    }


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray, min_count: int = 1) -> np.ndarray:
    """The threshold of each label that gives it the highest F1.

    A label that occurs too rarely for one of its own gets the threshold that gives all labels together the highest F1.

    Args:
        labels, probabilities: as for `multilabel`.
        min_count: rows that a label needs for a threshold of its own, at least 1.

    Returns:
        Probabilities `(classes,)`.

    Example:

    >>> best_thresholds(np.array([[0], [1], [1]]), np.array([[0.1], [0.3], [0.9]])).round(2).tolist()
    [0.2]
    """
    common = _best_threshold(labels.ravel(), probabilities.ravel())
    return np.array([
        _best_threshold(labels[:, c], probabilities[:, c]) if labels[:, c].sum() >= max(min_count, 1) else common
        for c in range(labels.shape[1])
    ])  # fmt: skip


def _best_threshold(positive, scores):
    """Half-way between the lowest score that counts and the next lower one, where F1 is highest."""
    order = np.argsort(-scores, kind="stable")
    positive, scores = positive[order] > 0, scores[order]
    f1 = 2 * np.cumsum(positive) / (np.arange(1, len(scores) + 1) + positive.sum())
    last = np.append(np.diff(scores) != 0, True)  # equal scores are predicted together
    best = int(np.argmax(np.where(last, f1, -1)))
    lower = scores[best + 1] if best + 1 < len(scores) else 0.0
    middle = (scores[best] + lower) / 2
    return float(middle if middle > lower else scores[best])  # between neighbouring numbers there is none


def linear_probe(
    features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray, penalty: float = 1.0
) -> float:
    """Accuracy of a linear classifier on features that were learned without labels.

    Ridge regression of the labels' one-hot vectors on the standardised features, which has one solution, and no seed.

    Args:
        features, labels: `(rows, dim)` and class numbers `(rows,)` that it learns from.
        test_features, test_labels: what it is asked about.
        penalty: of the weights.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-8
    x, test = (features - mean) / deviation, (test_features - mean) / deviation
    y = np.eye(int(max(labels.max(), test_labels.max())) + 1)[labels]
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))
    return float(np.mean((test @ weights + y.mean(axis=0)).argmax(axis=-1) == test_labels))


def confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts `(classes, classes)`: true class down, predicted class across."""
    matrix = np.zeros((num_classes, num_classes), dtype="int64")
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> float:
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
