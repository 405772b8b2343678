"""What is in a source, in lines: for people who look at their data before they train on them."""

from collections.abc import Mapping

from mmkeras.data.check import check_usable, reviewed
from mmkeras.data.duplicates import near_duplicates
from mmkeras.data.manifest import plain_cell
from mmkeras.data.source import ENCODED, MODALITIES, TARGETS, DataError, Source
from mmkeras.data.stored import opened

_MOST_NAMED = 20  # bad rows of a split


def report(source: Source, modalities: Mapping[str, str] | None = None) -> tuple[list[str], int]:
    """What is in a source: lines about rows, bad rows, absent modalities and turned pictures, and how many are bad.

    Lines, too, about rows of other splits that are in the training split as well; these are not counted as bad.

    Args:
        source: a Source.
        modalities: `{column: kind}`; all columns of a known kind if None.

    Raises:
        DataError: if no column is of a known kind, or a split has no usable row.
    """
    lines, num_bad, kept = [], 0, {}
    widths: dict[str, int] = {}
    _check_kinds(source, modalities)
    for name, split in sorted(source.splits.items(), key=lambda item: item[0] != "train"):  # the others, by its measure
        chosen = modalities or {column: kind for column, kind in split.kinds.items() if kind in MODALITIES}
        good, bad = reviewed(split, chosen, decode=True, widths=widths)
        check_usable(name, good, bad)
        kept[name] = good
        vectors = [column for column, kind in chosen.items() if kind == "vector" and any(good.cells(column))]
        widths = {**{column: max(map(len, good.cells(column))) for column in vectors}, **widths}
        num_bad += len(bad)
        lines += [f"{name}: {len(split)} rows, {len(bad)} bad", *(f"  {line}" for line in bad[:_MOST_NAMED])]
        if len(bad) > _MOST_NAMED:
            lines.append(f"  and {len(bad) - _MOST_NAMED} more")
        for column in (column for column, kind in split.kinds.items() if kind in TARGETS):
            empty = sum(plain_cell(split.kinds[column], cell, None) in ("", []) for cell in good.cells(column))
            if empty:
                lines.append(f"  {column}: empty in {empty} rows, which cannot be trained on where it is predicted")
            unseen = _labels(good, column) - _labels(source.splits.get("train", good), column)
            if unseen:
                num_bad += len(unseen)
                example = f"such as {min(unseen)!r}"
                lines.append(f"  {column}: {len(unseen)} values that do not occur in the training split, {example}")
        for column, kind in chosen.items():
            cells = good.cells(column)
            absent = sum(cell in ("", b"", []) for cell in cells)
            if absent:
                lines.append(f"  {column}: absent in {absent} rows")
            if kind == "image":
                paths = [c for c in cells if c and isinstance(c, str)]
                turned = [path for path in paths if _is_turned(path)]
                if turned:
                    example = f"decoding ignores, such as {turned[0]}"
                    lines.append(f"  {column}: {len(turned)} pictures are turned by EXIF, which {example}")
            if kind in ENCODED and not all(isinstance(c, (str, bytes)) for c in cells):
                lines.append(f"  {column}: neither paths nor bytes")
    train = kept.pop("train", None)
    if train is None:
        return lines, num_bad
    for name, good in kept.items():
        kinds = {column: kind for column, kind in (modalities or good.kinds).items() if column in train.kinds}
        pairs = near_duplicates(good, train, {column: kind for column, kind in kinds.items() if kind in MODALITIES})
        if pairs:
            here, there = (one.where(i) for one, i in zip((good, train), pairs[0], strict=True))
            example = f"such as {here}, which is {there}"
            lines.append(f"{name}: {len(pairs)} rows are in the training split as well, or nearly so, {example}")
    return lines, num_bad


def _check_kinds(source, modalities):
    split = next(iter(source.splits.values()))
    if not modalities and not set(split.kinds.values()) & set(MODALITIES):
        raise DataError(
            f"{source.spec} has the columns {', '.join(split.kinds)}, none of which is called after its kind. Say what "
            "they are: --columns photo=image,title=text,kind=label."
        )


def _labels(split, column):
    """The values of a column of labels or tags."""
    cells = [plain_cell(split.kinds[column], cell, None) for cell in split.cells(column)]
    return {str(value) for cell in cells for value in (cell if isinstance(cell, list) else [cell])} - {""}


def _is_turned(path):
    from PIL import Image

    with Image.open(opened(path)) as image:
        return image.getexif().get(0x0112, 1) != 1
