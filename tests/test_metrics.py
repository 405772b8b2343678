"""Metrics against scikit-learn, SciPy, sacrebleu and brute force."""

import sys

import numpy as np
import pytest
import sacrebleu
import scipy.linalg
import scipy.special
import sklearn.metrics as sk

from mmkeras import metrics


def retrieval_by_hand(similarity, relevant):
    """Every rank counted one by one; an item that ties with a relevant one stands before it."""
    first, precisions = [], []
    for scores, wanted in zip(similarity, relevant, strict=True):
        items = sorted(range(len(scores)), key=lambda j: (-scores[j], wanted[j]))
        places = [place for place, j in enumerate(items, 1) if wanted[j]]
        first.append(places[0])
        precisions.append(np.mean([(n + 1) / place for n, place in enumerate(places)]))
    first = np.array(first)
    return {
        **{f"recall@{k}": np.mean(first <= k) for k in (1, 5, 10)},
        "median_rank": np.median(first),
        "mrr": np.mean(1 / first),
        "map": np.mean(precisions),
    }


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("chunk", [7, 1024])
def test_retrieval_equals_brute_force(levels, chunk, monkeypatch):
    # The package's `retrieval` is the function, which hides the module of that name.
    monkeypatch.setattr(sys.modules["mmkeras.metrics.retrieval"], "_CHUNK", chunk)
    rng = np.random.default_rng(levels)
    # Whole numbers multiply exactly: with two levels nearly all similarities tie.
    queries, gallery = rng.integers(0, levels, (23, 3)), rng.integers(0, levels, (31, 3))
    relevant = rng.random((23, 31)) < 0.1
    relevant[np.arange(23), rng.integers(0, 31, 23)] = True
    values = metrics.retrieval(queries.astype("float64"), gallery.astype("float64"), lambda i: relevant[i])
    expected = retrieval_by_hand(queries @ gallery.T, relevant)
    assert values == pytest.approx(expected)
    best, average = metrics.ranks(queries @ gallery.T, relevant)
    assert (1 / best).mean() == pytest.approx(expected["mrr"])
    assert average.mean() == pytest.approx(expected["map"])


def test_average_precision_of_a_query_equals_scikit_learns():
    rng = np.random.default_rng(0)
    similarity, relevant = rng.normal(size=(9, 20)), rng.random((9, 20)) < 0.3
    relevant[:, 0] = True
    expected = [sk.average_precision_score(r, s) for r, s in zip(relevant, similarity, strict=True)]
    np.testing.assert_allclose(metrics.ranks(similarity, relevant)[1], expected)


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_collapsed_embeddings_stand_last(value):
    same = np.full((50, 4), value)
    values = metrics.retrieval(same, same, lambda i: i[:, None] == np.arange(50))
    assert values == pytest.approx(
        {"recall@1": 0, "recall@5": 0, "recall@10": 0, "median_rank": 50, "mrr": 1 / 50, "map": 1 / 50}
    )


def test_a_query_without_an_answer_is_refused():
    relevant = np.array([[True, False], [False, False]])
    with pytest.raises(ValueError, match="Query 1 has none"):
        metrics.ranks(np.zeros((2, 2)), relevant)


def probabilities_and_labels(seed, rows=200, classes=8, missing=True):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), rows).round(2) + 1e-3  # rounded, so that some tie
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    labels = np.array([rng.choice(classes, p=p) for p in probabilities])
    if missing:  # a class that occurs nowhere in the labels
        labels[labels == 3] = 4
    return labels, probabilities


@pytest.mark.parametrize("missing", [False, True])
def test_classification_equals_scikit_learn(missing):
    labels, probabilities = probabilities_and_labels(1, missing=missing)
    values = metrics.classification(labels, probabilities)
    predicted = probabilities.argmax(axis=-1)
    occurring = np.unique(labels)
    top5 = [sum(q >= p[y] for q in p) <= 5 for y, p in zip(labels, probabilities, strict=True)]
    assert values == pytest.approx(
        {
            "accuracy": sk.accuracy_score(labels, predicted),
            "top5": np.mean(top5),
            "macro_f1": sk.f1_score(labels, predicted, labels=occurring, average="macro"),
            "micro_f1": sk.f1_score(labels, predicted, average="micro"),
            "auroc": np.mean([sk.roc_auc_score(labels == c, probabilities[:, c]) for c in occurring]),
            "ece": ece_by_loop(labels, probabilities),
        }
    )
    if not missing:
        assert values["auroc"] == pytest.approx(
            sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
        )
    np.testing.assert_array_equal(
        metrics.confusion(labels, predicted, 8), sk.confusion_matrix(labels, predicted, labels=range(8))
    )


def ece_by_loop(labels, probabilities, num_bins=15):
    bins = [[] for _ in range(num_bins)]
    for label, p in zip(labels, probabilities, strict=True):
        bins[int(np.ceil(p.max() * num_bins)) - 1].append((p.max(), p.argmax() == label))
    gaps = [len(b) * abs(np.mean([c for c, _ in b]) - np.mean([right for _, right in b])) for b in bins if b]
    return sum(gaps) / len(labels)


def test_calibration_error_known_values():
    sure = np.tile([[1.0, 0.0]], (10, 1))
    labels = np.array([0] * 7 + [1] * 3)
    assert metrics.expected_calibration_error(labels, sure) == pytest.approx(0.3)  # confidence 1, right in 7 of 10
    assert metrics.expected_calibration_error(labels, np.tile([[0.7, 0.3]], (10, 1))) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("value", [1 / 8, np.nan])
def test_probabilities_that_say_nothing_are_not_among_the_top_five(value):
    labels = np.arange(8)
    values = metrics.classification(labels, np.full((8, 8), value))
    assert values["top5"] == 0
    assert values["accuracy"] == (0 if np.isnan(value) else 1 / 8)
    assert values["auroc"] == 0.5


def test_auroc_is_not_a_number_where_only_one_class_occurs():
    assert np.isnan(metrics.classification(np.zeros(4, int), np.ones((4, 1)))["auroc"])


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_multilabel_equals_scikit_learn(threshold):
    rng = np.random.default_rng(0)
    labels = (rng.random((90, 6)) < 0.3).astype(int)
    labels[:, 2] = 0  # a class that never occurs
    labels[:5] = 0  # rows without a label
    probabilities = np.clip(labels * 0.3 + rng.random((90, 6)) * 0.7, 0, 1).round(1)
    predicted = probabilities >= threshold
    occurring = labels.any(axis=0)

    def f1(average, columns=slice(None)):
        return sk.f1_score(labels[:, columns], predicted[:, columns], average=average, zero_division=0)

    assert metrics.multilabel(labels, probabilities, threshold) == pytest.approx(
        {
            "micro_f1": f1("micro"),
            "macro_f1": f1("macro", occurring),
            "sample_f1": f1("samples"),
            "auroc": sk.roc_auc_score(labels[:, occurring], probabilities[:, occurring], average="macro"),
            "map": sk.average_precision_score(labels[:, occurring], probabilities[:, occurring], average="macro"),
        }
    )


@pytest.mark.parametrize(("order", "expected"), [(1, 80.0), (2, 63.2455), (3, 51.08729)])
def test_bleu_known_values(order, expected):
    value = metrics.bleu(["this is a good test"], [["this is a test", "this is also a test"]], order)
    assert value == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_bleu_equals_sacrebleu(order):
    hypotheses = ["a red circle left of a blue square", "the small ring", "a green cross above a cross", "两 个 圆"]
    references = [
        ["a red circle beside a blue square", "a circle left of a square", "red left of blue"],
        ["the small ring above"],
        ["a green cross above another cross", "the cross above a green cross"],
        ["两 个 大 圆"],
    ]
    by_rank = [[r[i] if i < len(r) else None for r in references] for i in range(3)]
    expected = sacrebleu.BLEU(tokenize="none", max_ngram_order=order).corpus_score(hypotheses, by_rank).score
    assert 0 < expected < 100
    assert metrics.bleu(hypotheses, references, order) == pytest.approx(expected)
    # A reference more can only add matches; the order of the references says nothing.
    assert metrics.bleu(hypotheses, [r[::-1] for r in references], order) == pytest.approx(expected)
    assert metrics.bleu(hypotheses, [[h, *r] for h, r in zip(hypotheses, references, strict=True)], order) > expected


def test_exact_match():
    assert metrics.exact_match(["a", "b", "c", "D"], [["x", "a"], ["a"], ["c"], ["d"]]) == 0.5
    assert metrics.exact_match([], []) == 0


@pytest.mark.parametrize("dim", [1, 3, 12])
def test_frechet_distance_equals_scipys_square_root(dim):
    rng = np.random.default_rng(dim)
    real = rng.normal(size=(60, dim)) @ rng.normal(size=(dim, dim))
    generated = rng.normal(size=(50, dim)) @ rng.normal(size=(dim, dim)) + 1.5
    a, b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, generated))
    gap = real.mean(axis=0) - generated.mean(axis=0)
    expected = gap @ gap + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert metrics.frechet_distance(real, generated) == pytest.approx(expected, rel=1e-7)
    assert metrics.frechet_distance(generated, real) == pytest.approx(expected, rel=1e-7)


def test_frechet_distance_of_scaled_features_has_a_closed_form():
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    variances = x.astype("float64").var(axis=0, ddof=1)
    # Features three times as wide, shifted by two: |gap|^2 + sum (3 s - s)^2.
    gap = 2 * x.astype("float64").mean(axis=0) + 2
    assert metrics.frechet_distance(x, 3 * x + 2) == pytest.approx(gap @ gap + 4 * variances.sum(), rel=1e-5)
    fewer = x[:3]  # fewer rows than features: the covariance is singular
    assert metrics.frechet_distance(fewer, fewer) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(fewer, fewer + 1) == pytest.approx(4, rel=1e-5)


def test_kernel_distance_equals_its_loop():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(9, 5)), rng.normal(0.5, 1, size=(7, 5))

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / 5 + 1) ** 3

    def within(rows):
        return np.mean([kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j])

    across = np.mean([kernel(x, y) for x in real for y in generated])
    assert metrics.kernel_distance(real, generated) == pytest.approx(within(real) + within(generated) - 2 * across)


def test_inception_score():
    assert metrics.inception_score(np.eye(6)) == pytest.approx(6)  # sure of each picture, every class as often
    assert metrics.inception_score(np.eye(6)[[2] * 9]) == pytest.approx(1)  # all alike
    assert metrics.inception_score(np.full((9, 6), 1 / 6)) == pytest.approx(1)  # all unsure
    p = np.random.default_rng(0).dirichlet(np.ones(5), 30)
    divergences = [scipy.special.rel_entr(row, p.mean(axis=0)).sum() for row in p]
    assert metrics.inception_score(p) == pytest.approx(np.exp(np.mean(divergences)))


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_recall_by_chance_is_that_of_random_orders(k):
    relevant, items = np.array([1, 3, 6]), 6
    random = np.random.default_rng(0)
    hits = [[random.permutation(items)[:k].min() < m for m in relevant] for _ in range(4000)]
    assert metrics.recall_by_chance(relevant, items, k) == pytest.approx(np.mean(hits), abs=0.01)


def test_probabilities_that_are_no_numbers_are_wrong():
    probabilities = np.array([[0.9, 0.1], [np.nan, np.nan], [np.nan, 0.2]])
    found = metrics.classification(np.array([0, 0, 1]), probabilities)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["macro_f1"] == pytest.approx(1 / 3)  # two thirds, and nothing of class 1
    assert metrics.classification(np.zeros(2, int), np.full((2, 1), np.nan))["accuracy"] == 0  # of one class, too


def test_a_polarity_without_signs_has_no_f1():
    assert np.isnan(metrics.polarity(np.zeros(3), np.array([1.0, -1.0, 0.0]))["f1"])


def test_a_threshold_between_neighbouring_numbers_leaves_the_lower_one_out():
    high = np.float32(0.3)
    low = np.nextafter(high, np.float32(0))
    scores = np.array([[high], [low]])
    for pair in (scores, scores + np.float32(0.4)):
        (threshold,) = metrics.best_thresholds(np.array([[1], [0]]), pair)
        assert pair[1, 0] < threshold <= pair[0, 0]


@pytest.mark.parametrize("distance", [metrics.frechet_distance, metrics.kernel_distance])
def test_a_distance_is_of_two_rows_or_more(distance):
    with pytest.raises(ValueError, match="Expected two rows or more of each set. Received: 1 and 5"):
        distance(np.zeros((1, 3)), np.zeros((5, 3)))


def test_a_text_without_references_is_named():
    with pytest.raises(ValueError, match="Received: none of text 1"):
        metrics.bleu(["a", "b"], [["a"], []])
