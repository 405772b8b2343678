"""Episodes of few-shot learning: which classes are new, and which rows make an episode."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmkeras.data.source import DataError, Split


def divide_classes(splits: Mapping[str, Split], column: str) -> Mapping[str, Split]:
    """The splits, each with classes of its own: one in five for tests, one in five for validation, the rest to train.

    A class is drawn by a hash of its name. The rows of a class that is new to testing are gathered from all splits:
    none of them is ever trained on. Splits whose classes differ already are left as they are.

    Args:
        splits: `{name: Split}`.
        column: of the classes.
    """
    classes = {name: {str(cell) for cell in split.cells(column)} - {""} for name, split in splits.items()}
    others = set().union(*(found for name, found in classes.items() if name != "train"))
    if "train" not in splits or not classes["train"] & others:
        return splits
    parts = {name: _part(name) for name in set().union(*classes.values())}
    divided = {}
    for name, split in splits.items():
        pooled = split
        for other in splits.values():
            pooled = pooled if other is split else pooled.append(other)
        wanted = name if name in ("train", "validation") else "test"
        rows = [i for i, cell in enumerate(pooled.cells(column)) if parts.get(str(cell)) == wanted]
        if wanted == "test" and name != "test":  # a test split beside `test` keeps to its own rows
            rows = [i for i in rows if i < len(split)]
        divided[name] = pooled.take(rows)
    return divided


def _part(name):
    fifth = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 5
    return {0: "test", 1: "validation"}.get(fifth, "train")


def episodes(
    classes: Iterable[Any], count: int, ways: int, rows_a_class: int, random: np.random.Generator
) -> np.ndarray:
    """Rows of episodes, `(count, ways, rows_a_class)`: of each so many classes, of each class so many of its rows.

    Args:
        classes: class of every row.
        count: number of episodes.
        ways: classes an episode.
        rows_a_class: rows of each.
        random: a NumPy generator.

    Raises:
        DataError: if there are too few classes with so many rows.
    """
    names, numbers = np.unique([str(name) for name in classes], return_inverse=True)
    of_class = [np.flatnonzero(numbers == i) for i, name in enumerate(names) if name]
    usable = [rows for rows in of_class if len(rows) >= rows_a_class]
    if len(usable) < ways:
        raise DataError(
            f"Expected {ways} classes or more of {rows_a_class} rows or more each for an episode. Found {len(usable)} "
            f"among {len(of_class)} classes. Ask for fewer --ways, --shots or --queries, or another --class-column."
        )
    drawn = np.empty((count, ways, rows_a_class), dtype="int64")
    for i in range(count):
        for j, k in enumerate(random.choice(len(usable), ways, replace=False)):
            drawn[i, j] = random.choice(usable[k], rows_a_class, replace=False)
    return drawn
