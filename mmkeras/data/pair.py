"""Sources made of others: two joined row by row, and pictures cut in halves."""

import collections
import io
import itertools

import numpy as np

from mmkeras.data.check import picture_fault
from mmkeras.data.manifest import plain_cell
from mmkeras.data.source import MODALITIES, DataError, Source, Split
from mmkeras.data.stored import opened


def pair(a: Source, b: Source, on: str | None = None, seed: int = 0) -> Source:
    """Joins two sources split by split, a row of one beside a row of the other.

    Args:
        a, b: Sources. Columns of `b` that `a` has too are left out, unless they are modalities: then both get a
            number (`image`, `image2`).
        on: a column both have: rows with equal values meet, each row of `a` once, those of `b` in turn. None joins
            by a seeded order, and the shorter one sets the length.
        seed: seed of the order.

    Raises:
        DataError: if they have no split in common, or no equal value.
    """
    names = [name for name in a.splits if name in b.splits]
    if not names:
        raise DataError(f"{a.spec} and {b.spec} have no split in common: {list(a.splits)} and {list(b.splits)}.")
    splits = {name: _pair_split(a.splits[name], b.splits[name], on, seed) for name in names}
    how = f"by equal `{on}`" if on else "in a seeded order"
    return Source(f"{a.spec}+{b.spec}", splits, f"rows paired within each split {how}, seed {seed}")


def _pair_split(a, b, on, seed):
    random = np.random.default_rng(seed)
    if on is None:
        size = min(len(a), len(b))
        left, right = random.permutation(len(a))[:size], random.permutation(len(b))[:size]
    else:
        rows = collections.defaultdict(list)
        for i in random.permutation(len(b)):
            rows[str(b.cells(on)[i])].append(i)
        left = [i for i, value in enumerate(a.cells(on)) if str(value) in rows]
        if not left:
            raise DataError(f"No row of the two splits `{a.name}` has an equal `{on}`.")
        turns = collections.Counter()
        right = []
        for i in left:
            value = str(a.cells(on)[i])
            right.append(rows[value][turns[value] % len(rows[value])])
            turns[value] += 1
    first, second = a.take(left), b.take(right)
    columns, kinds, folders = {}, {}, {}
    for split in (first, second):
        for column, kind in split.kinds.items():
            if column in columns and kind not in MODALITIES:
                continue
            numbered = itertools.chain([column], (f"{column}{n}" for n in itertools.count(2)))
            name = next(name for name in numbered if name not in columns)
            columns[name] = _later(split, column)
            kinds[name], folders[name] = kind, split.folders[column]
    return Split(a.name, columns, kinds, len(left), lambda i: f"{first.where(i)} with {second.where(i)}", folders)


def _later(split, column):
    return lambda: split.cells(column)


def halves(source: Source, column: str = "image") -> Source:
    """The left and the right half of every picture as two modalities, `left` and `right`, both images.

    Correlational networks are trained on the halves of MNIST's digits (Chandar 2016).
    """

    def cut(split, which):
        def cells():
            plain = [plain_cell("image", cell, split.folders[column]) for cell in split.cells(column)]
            return [_half(cell, which, split.where(i)) for i, cell in enumerate(plain)]

        return cells

    kinds = {"left": "image", "right": "image"}
    splits = {
        name: split.replace({"left": cut(split, 0), "right": cut(split, 1)}, kinds)
        for name, split in source.splits.items()
    }
    return Source(f"halves:{source.spec}", splits, source.rule)


def _half(cell, which, where):
    from PIL import Image

    if not cell:
        return b""
    fault = picture_fault(cell)
    if fault:
        raise DataError(f"{where}: {fault}. Correct the file.")
    with Image.open(opened(cell)) as image:
        middle = image.width // 2
        box = (0, 0, middle, image.height) if which == 0 else (middle, 0, image.width, image.height)
        buffer = io.BytesIO()
        cut = image.crop(box)
        # PNG has no CMYK, which some JPEG files are in.
        cut = cut.convert("RGB") if cut.mode in ("CMYK", "YCbCr", "LAB", "HSV") else cut
        cut.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
