"""Retrieval: how high the right answers stand in a ranking by similarity."""

from collections.abc import Callable

import numpy as np

_CHUNK = 1024  # queries ranked at once, so that 100,000 against 100,000 fit into memory


def retrieval(
    queries: np.ndarray, gallery: np.ndarray, relevant: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """Recall at 1, 5 and 10, median rank, mean reciprocal rank and mean average precision.

    Args:
        queries: embeddings `(queries, dim)`; the similarity is their product with the gallery's.
        gallery: embeddings `(items, dim)`.
        relevant: function from query numbers `(n,)` to a bool array `(n, items)`: which items answer each query.

    Returns:
        A dict of numbers. Recall, `mrr` and `map` lie in 0..1; `median_rank` counts from one. Equal similarities
        count against the query, so that a model whose embeddings have collapsed does not look perfect.

    Example:

    >>> eye = np.eye(3)
    >>> retrieval(eye, eye, lambda i: i[:, None] == np.arange(3))["recall@1"]
    1.0
    """
    bests, averages = [], []
    for start in range(0, len(queries), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(queries)))
        best, average = ranks(queries[rows] @ gallery.T, relevant(rows))
        bests.append(best)
        averages.append(average)
    first, precision = np.concatenate(bests), np.concatenate(averages)
    recall = {f"recall@{k}": float(np.mean(first <= k)) for k in (1, 5, 10)}
    return {
        **recall,
        "median_rank": float(np.median(first)),
        "mrr": float(np.mean(1 / first)),
        "map": float(np.mean(precision)),
    }


def recall_by_chance(relevant: np.ndarray, items: int, k: int) -> float:
    """Recall at k of a random order: the share of queries with one of their relevant items among the first k.

    Args:
        relevant: how many items answer each query, `(queries,)`.
        items: how many there are.
        k: places that are looked at.

    Example:

    >>> recall_by_chance(np.array([1, 2]), 4, 1)
    0.375
    """
    relevant, k = np.asarray(relevant), min(k, items)
    missed = np.ones(len(relevant))
    for place in range(k):
        missed *= np.clip(items - relevant - place, 0, None) / (items - place)
    return float(np.mean(1 - missed))


def ranks(similarity: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of the best relevant item (from one) and average precision of each query.

    Args:
        similarity: `(queries, items)`.
        relevant: bool `(queries, items)`; every query needs one relevant item.

    Returns:
        Two arrays `(queries,)`.

    Raises:
        ValueError: if a query has no relevant item.
    """
    if not relevant.any(axis=1).all():
        missing = int(np.flatnonzero(~relevant.any(axis=1))[0])
        raise ValueError(f"Expected every query to have a relevant item in the gallery. Query {missing} has none.")
    # Sorted by falling similarity; among equals the irrelevant come first.
    order = np.lexsort((relevant, -similarity), axis=-1)
    hits = np.take_along_axis(relevant, order, axis=-1)
    place = np.arange(1, hits.shape[1] + 1)
    precision = np.cumsum(hits, axis=-1) / place
    return hits.argmax(axis=-1) + 1, (precision * hits).sum(axis=-1) / hits.sum(axis=-1)
