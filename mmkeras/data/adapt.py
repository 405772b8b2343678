"""What is learned from the training split before a model is: vocabularies, labels, the scale of features."""

import collections
import re

import numpy as np

from mmkeras.data.manifest import plain_cell
from mmkeras.data.pipeline import Preprocessor
from mmkeras.data.source import ENCODED, DataError, Split
from mmkeras.layers import EncodeLabel, StandardizeVector, TokenizeText
from mmkeras.layers.tokenize_text import SPECIAL

_CHUNK = 4096  # texts counted at once


def adapt(preprocessor: Preprocessor, split: Split, vocabulary_size: int | None = None) -> None:
    """Fits a Preprocessor on the training split: words, labels, mean and deviation of features.

    All texts of a preprocessor share one vocabulary: the most frequent words, equals in alphabetical order.

    Args:
        preprocessor: a Preprocessor, changed in place.
        split: the training split.
        vocabulary_size: most tokens kept, the four special ones counted; the preprocessor's own if None.

    Raises:
        DataError: if a column is missing or there is no text or label at all.
    """
    vocabulary_size = vocabulary_size or preprocessor.vocabulary_size
    split = _plain(split, preprocessor.input_names + preprocessor.target_names)
    tokenizers: dict[TokenizeText, list[str]] = {}
    for name in preprocessor.input_names + preprocessor.target_names:
        layer = preprocessor.reader(name)
        if isinstance(layer, TokenizeText):
            tokenizers.setdefault(layer, []).extend(texts_of(split, name))
        elif isinstance(layer, StandardizeVector):
            rows = [cell for cell in split.cells(name) if len(cell)]
            layer.fit(np.array(rows, dtype="float64"))
        elif isinstance(layer, EncodeLabel):
            layer.set_vocabulary(labels_of(split, name))
    if tokenizers:
        words = count_words(next(iter(tokenizers)), [t for texts in tokenizers.values() for t in texts])
        for layer in tokenizers:
            layer.set_vocabulary(words[: None if vocabulary_size is None else max(vocabulary_size - 4, 1)])
    preprocessor.fitted = object()  # what was kept of an earlier fit is no longer right


def _plain(split, names):
    """The split with the cells of these columns as `Split` wants them, whatever file they come from."""
    columns = {}
    for name in names:
        kind = split.kinds.get(name)
        if kind not in ENCODED:
            columns[name] = [_plain_cell(split, name, kind, cell, i) for i, cell in enumerate(split.cells(name))]
    return split.replace(columns, {})


def _plain_cell(split, name, kind, cell, i):
    try:
        return plain_cell(kind, cell, split.folders.get(name))
    except ValueError as error:
        raise DataError(f"{split.where(i)}: {error}.") from None


def texts_of(split: Split, name: str) -> list[str]:
    """All texts of a column, those of rows with several one after the other."""
    return [text for cell in split.cells(name) for text in (cell if isinstance(cell, list) else [cell])]


def count_words(tokenizer, texts):
    """The words of the texts, the most frequent first, equals in alphabetical order."""
    counts = collections.Counter()
    for start in range(0, len(texts), _CHUNK):
        counts.update(tokenizer.count(texts[start : start + _CHUNK]))
    if not counts:
        raise DataError("The training split holds no text at all: expected a text in at least one row.")
    return sorted(counts.keys() - set(SPECIAL), key=lambda word: (-counts[word], word))  # a text may say "[UNK]"


def labels_of(split: Split, name: str) -> list[str]:
    """The labels that occur in a column, numbers by their value, others in alphabetical order."""
    cells = split.cells(name)
    labels = {str(label) for cell in cells for label in (cell if isinstance(cell, list) else [cell])} - {""}
    if not labels:
        raise DataError(f"The column `{name}` of the training split holds no label.")
    is_number = all(re.fullmatch(r"-?\d+(\.\d+)?", label) for label in labels)
    return sorted(labels, key=float if is_number else None)
