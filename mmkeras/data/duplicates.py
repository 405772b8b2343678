"""Rows of one split that are in the training split as well: whoever is tested on them is asked what it was told."""

import hashlib
import re
from collections.abc import Mapping

import numpy as np

from mmkeras.data.check import frame_paths
from mmkeras.data.source import Split
from mmkeras.data.stored import contents, opened

_SIDE = 16  # pixels of what is left of a picture to compare
_RMS, _MOST = 0.025, 0.12  # drawings saved anew as JPEG differ by .013 in the middle; other drawings by .014 and more
_ROWS = 1000  # compared with all others at a time


def near_duplicates(split: Split, other: Split, modalities: Mapping[str, str]) -> list[tuple[int, int]]:
    """Rows of a split that are nearly the same as rows of another: pairs of row numbers `(here, there)`.

    Pictures are the same if they look so: saved anew, or in another size. Sounds and clips are if their bytes are.
    Texts do not matter in rows that have one of these, which are often told in several ways; in the others all texts
    (case and punctuation aside) and vectors must be equal. Each row is told once.

    Args:
        split, other: Splits whose cells are plain, see `mmkeras.data.checked`.
        modalities: `{column: kind}`, columns of both.

    Example:

    >>> import mmkeras
    >>> train = mmkeras.data.open("scenes:16").train
    >>> near_duplicates(train.take([3, 5]), train, {"image": "image", "text": "text"})
    [(0, 3), (1, 5)]
    """
    pictures = [column for column, kind in modalities.items() if kind == "image"]
    keys, others = (_keys(one, modalities) for one in (split, other))
    pairs = _equal(keys, others)
    if pictures:
        here, there = (np.hstack([_thumbnails(one.cells(c)) for c in pictures]) for one in (split, other))
        pairs |= {i: j for i, j in _alike(here, there).items() if keys[i] == others[j]}
    return sorted(pairs.items())


def _keys(split, modalities):
    """What has to be equal besides pictures, of each row: `(whether it has one, hashes or texts and numbers)`."""
    columns, keys = {column: split.cells(column) for column in modalities}, []
    for i in range(len(split)):
        row = {column: cells[i] for column, cells in columns.items()}
        pictured = any(modalities[c] == "image" and cell not in ("", b"") for c, cell in row.items())
        files = tuple(_digest(row[c]) for c, kind in modalities.items() if kind in ("audio", "video"))
        rest = tuple(_plain(row[c]) for c, kind in modalities.items() if kind in ("text", "vector"))
        keys.append((pictured, files if pictured or any(files) else rest))
    return keys


def _plain(cell):
    """A text, or texts, without case and punctuation; numbers as they are."""
    if isinstance(cell, str):
        return tuple(re.findall(r"\w+", cell.casefold()))
    return tuple(_plain(value) if isinstance(value, str) else value for value in cell)


def _equal(keys, others):
    """`{row: row of the others}` with an equal key, of those without a picture."""
    first = {}
    for j, key in enumerate(others):
        first.setdefault(key, j)
    return {i: first[key] for i, key in enumerate(keys) if key in first and not key[0]}


def _digest(cell):
    """A hash of the bytes of a sound or a clip; None where there is none."""
    if cell in ("", b""):
        return None
    parts = [cell] if isinstance(cell, bytes) else frame_paths(cell)
    return hashlib.sha256(b"".join(map(contents, parts))).digest()


def _thumbnails(cells):
    """Pictures made small `(rows, 16 * 16 * 3)` on white, from 0 to 1; -1 where there is none."""
    from PIL import Image

    small = np.full((len(cells), 3 * _SIDE**2), -1, "float32")
    for i, cell in enumerate(cells):
        if cell in ("", b""):
            continue
        with Image.open(opened(cell)) as picture:
            picture.draft("RGB", (4 * _SIDE, 4 * _SIDE))  # a JPEG need not be decoded whole
            shown = picture.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        shown = Image.alpha_composite(white, shown).convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        small[i] = np.asarray(shown, "float32").ravel() / 255
    return small


def _alike(these, others):
    """`{row: row of the others}` that looks the same, of those with a picture."""
    found, squares = {}, (others**2).sum(axis=1)
    for start in range(0, len(these), _ROWS):
        x = these[start : start + _ROWS]
        nearest = (squares - 2 * x @ others.T).argmin(axis=1)
        apart = np.abs(x - others[nearest])
        same = ((apart**2).mean(axis=1) < _RMS**2) & (apart.max(axis=1) < _MOST) & (x.max(axis=1) >= 0)
        found |= {start + int(i): int(nearest[i]) for i in np.flatnonzero(same)}
    return found
