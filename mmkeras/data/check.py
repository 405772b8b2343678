"""Rows looked at before training begins: what is missing, broken or of the wrong type."""

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

from mmkeras.data.manifest import and_more, plain_cell
from mmkeras.data.source import ENCODED, TARGETS, DataError

MAX_PIXELS = 64_000_000  # a larger picture is refused from its header


def checked(split, modalities, targets=(), skip_bad=False, decode=False, known=None):
    """The split with its cells made plain, without its bad rows.

    Args:
        split: a Split.
        modalities: `{column: kind}` of the model's inputs; a row needs one of them.
        targets: columns a row needs besides.
        skip_bad: whether bad rows are left out instead of being an error.
        decode: whether pictures are decoded whole; otherwise their headers are read.
        known: `{target: labels}` seen in training; another label is bad.

    Raises:
        DataError: naming the first bad row.
    """
    kinds = {**modalities, **{target: split.kinds.get(target, target) for target in targets}}
    raw = {column: split.cells(column) for column in kinds}
    plain = {column: [None] * len(split) for column in kinds}
    reasons = [None] * len(split)
    for i in range(len(split)):
        try:
            for column, kind in kinds.items():
                plain[column][i] = plain_cell(kind, raw[column][i], split.folders[column])
            row = {column: plain[column][i] for column in kinds}
            _check_row(row, modalities, targets, known or {})
        except ValueError as error:
            reasons[i] = str(error)
    _check_widths(plain, modalities, reasons)
    for column, kind in kinds.items():
        if kind == "image":
            _check_pictures(plain[column], reasons, decode or skip_bad)
    bad = [f"{split.where(i)}: {reason}." for i, reason in enumerate(reasons) if reason]
    if bad and not skip_bad:
        raise DataError(bad[0] + and_more(bad))
    good = [i for i, reason in enumerate(reasons) if not reason]
    if bad:
        print(f"{split.name}: {len(bad)} bad rows left out, {len(good)} kept. The first: {bad[0]}")
    if not good:
        raise DataError(f"The split `{split.name}` has no usable row. The first: {bad[0] if bad else 'it is empty.'}")
    plain = {column: [cells[i] for i in good] for column, cells in plain.items()}
    return split.take(good).replace(plain, kinds)


def _check_row(row, modalities, targets, known):
    if not any(row[column] not in ("", b"", []) for column in modalities):
        raise ValueError(f"expected at least one of {', '.join(modalities)}, got none: every modality is absent")
    for target in targets:
        value = row[target]
        if value in ("", None) or (target in TARGETS and value == []):
            raise ValueError(f"the target `{target}` is empty")
        labels = value if isinstance(value, list) else [value]
        if target in known:
            unseen = [label for label in labels if label not in known[target]]
            if unseen:
                raise ValueError(f"the {target} {unseen[0]!r} does not occur in the training split")


def _check_widths(plain, modalities, reasons):
    for column, kind in modalities.items():
        if kind == "vector":
            sizes = [len(v or ()) for v in plain[column]]
            expected = next((s for s in sizes if s), 0)
            for i, size in enumerate(sizes):
                if size not in (0, expected) and not reasons[i]:
                    reasons[i] = f"expected {expected} numbers in `{column}`, got {size}"


def _check_pictures(cells, reasons, decode):
    todo = [i for i, cell in enumerate(cells) if cell and isinstance(cell, str) and not reasons[i]]
    with ThreadPoolExecutor(4) as pool:
        for i, reason in zip(todo, pool.map(lambda i: picture_fault(cells[i], decode), todo), strict=True):
            reasons[i] = reason


def picture_fault(picture, decode=True):
    """What is wrong with a picture, a path or encoded bytes, in words, or None."""
    from PIL import Image, UnidentifiedImageError

    path = picture if isinstance(picture, str) else f"the picture of {len(picture):,} bytes"
    if isinstance(picture, str) and not os.path.exists(path):
        return f"there is no file {path}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; they are refused below
            with Image.open(picture if isinstance(picture, str) else io.BytesIO(picture)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    return f"{path} has {width} x {height} pixels, more than the {MAX_PIXELS:,} that are decoded"
                if image.format not in ("PNG", "JPEG", "GIF", "BMP"):
                    return f"{path} is a {image.format} file; expected PNG, JPEG, GIF or BMP"
                if decode:
                    image.load()
    except UnidentifiedImageError:
        return f"{path} is no picture"
    except Image.DecompressionBombError:
        return f"{path} has too many pixels, more than the {MAX_PIXELS:,} that are decoded"
    except (OSError, SyntaxError, ValueError) as error:
        return f"{path} is broken ({error})"
    return None


def report(source, modalities):
    """Lines that tell what is in a source: rows, bad rows, absent modalities, turned pictures."""
    for name, split in source.splits.items():
        good = checked(split, modalities, skip_bad=True, decode=True)
        yield f"{name}: {len(split)} rows, {len(split) - len(good)} bad"
        for column, kind in modalities.items():
            cells = good.cells(column)
            absent = sum(cell in ("", b"", []) for cell in cells)
            if absent:
                yield f"  {column}: absent in {absent} rows"
            if kind == "image":
                paths = [c for c in cells if c and isinstance(c, str)]
                turned = [path for path in paths if _is_turned(path)]
                if turned:
                    example = f"decoding ignores, such as {turned[0]}"
                    yield f"  {column}: {len(turned)} pictures are turned by EXIF, which {example}"
            if kind in ENCODED and not all(isinstance(c, (str, bytes)) for c in cells):
                yield f"  {column}: neither paths nor bytes"


def _is_turned(path):
    from PIL import Image

    with Image.open(path) as image:
        return image.getexif().get(0x0112, 1) != 1
