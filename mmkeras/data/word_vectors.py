"""Pretrained word vectors."""

import os
from collections.abc import Sequence

import numpy as np

from mmkeras.data.source import DataError


def read_word_vectors(path: str | os.PathLike[str], vocabulary: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of a vocabulary's words from a file in GloVe's format: a word and its numbers a line.

    Args:
        path: of the file.
        vocabulary: words, in the order of the rows wanted.

    Returns:
        `(words, dim)` float32, rows of words that the file lacks being zero, and a bool array `(words,)`: found.

    Raises:
        DataError: if a line has another number of numbers than the first, or no word is found.
    """
    rows = {word: i for i, word in enumerate(vocabulary)}
    vectors, found = None, np.zeros(len(rows), dtype=bool)
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            parts = line.rstrip().split(" ")
            if number == 1 and len(parts) == 2:
                continue  # word2vec's text format begins with a line of two counts
            if vectors is None:
                vectors = np.zeros((len(rows), len(parts) - 1), dtype="float32")
            dim = vectors.shape[1]
            word, values = " ".join(parts[:-dim]), parts[-dim:]  # a few of GloVe's words hold spaces: ". . ."
            if len(parts) <= dim or any(_is_number(part) for part in parts[1:-dim]):
                raise DataError(f"{path}, row {number}: expected {dim} numbers, got {len(parts) - 1}.")
            if word in rows:
                vectors[rows[word]] = np.array(values, dtype="float32")
                found[rows[word]] = True
    if vectors is None or not found.any():
        raise DataError(f"{path} holds none of the {len(rows)} words of the training texts.")
    return vectors, found


def _is_number(part):
    return part.replace(".", "", 1).lstrip("-").isdigit()
