"""What a data source is: splits, and each split a table of cells."""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # these import this file
    import tensorflow as tf

    from mmkeras.data.pipeline import Preprocessor

MODALITIES = ("image", "text", "vector", "audio", "video")
TARGETS = ("label", "tags")
KINDS = (*MODALITIES, *TARGETS, "other")
ENCODED = ("image", "audio", "video")  # cells are paths (str) or file contents (bytes)


class DataError(ValueError):
    """A fault in the user's data, told in one line: file, row, what is wrong and what to do."""


class Split:
    """A table of cells: one column a modality, a target, or anything else, one row an example.

    A cell is a path or the encoded bytes for image, audio and video; a text, or a list of texts of which training
    takes one at random; a list of numbers for a vector; a text for a label; a list of texts for tags. An empty path,
    text or list means that the modality is absent.

    Args:
        name: `"train"`, `"validation"`, `"test"` …
        columns: `{name: list of cells}`; a function without arguments gives its list when it is first needed.
        kinds: `{name: kind}` for the columns whose kind is known; the rest are `"other"`.
        num_rows: number of rows.
        where: function from a row's number to words that lead the user there, such as `"shoes.csv, row 7"`.
        folder: where relative paths in cells begin, or `{column: folder}`.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Sequence[Any] | Callable[[], Sequence[Any]]],
        kinds: Mapping[str, str],
        num_rows: int,
        where: Callable[[int], str],
        folder: str | os.PathLike[str] | dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.folders = folder if isinstance(folder, dict) else dict.fromkeys(columns, folder)
        self.kinds = {column: kinds.get(column, "other") for column in columns}
        self.where = where
        self.arrays: dict[
            object, Any
        ] = {}  # what `batches` has kept of this split, by the fit of the preprocessor that made it
        self._columns: dict[str, Any] = dict(columns)
        self._num_rows = num_rows
        self._checked: dict[object, Split] = {}

    def __repr__(self) -> str:
        return f"<Split {self.name}: {len(self):,} rows; {self.told()}>"

    def told(self) -> str:
        """Its columns, in words: `image (image), text (text), id`."""
        return ", ".join(name if kind == "other" else f"{name} ({kind})" for name, kind in self.kinds.items())

    def __len__(self) -> int:
        return self._num_rows

    def cells(self, column: str) -> Sequence[Any]:
        """The cells of a column.

        Raises:
            DataError: if there is no such column.
        """
        if column not in self._columns:
            raise DataError(
                f"{self.where(0).rsplit(', row', 1)[0]} has no column `{column}`. It has: {', '.join(self._columns)}."
                f"{near(column, self._columns)} Say which column is which with --columns {column}=NAME."
            )
        if callable(self._columns[column]):
            self._columns[column] = self._columns[column]()
        return self._columns[column]

    def take(self, rows: Sequence[int] | np.ndarray, name: str | None = None) -> "Split":
        """The split of these rows, in this order."""
        rows = np.asarray(rows, dtype="int64")

        def pick(column):
            return lambda: [self.cells(column)[i] for i in rows]

        columns = {column: pick(column) for column in self._columns}
        where = (lambda i: self.where(int(rows[i]))) if len(rows) else self.where
        return Split(name or self.name, columns, self.kinds, len(rows), where, self.folders)

    def append(self, other: "Split") -> "Split":
        """The rows of this split and then those of another; of the columns those that both have."""
        columns = [column for column in self._columns if column in other._columns]

        def join(column):
            return lambda: [*self.cells(column), *other.cells(column)]

        def where(i):
            return self.where(i) if i < len(self) else other.where(i - len(self))

        kinds = {column: self.kinds[column] for column in columns}
        return Split(self.name, {c: join(c) for c in columns}, kinds, len(self) + len(other), where, self.folders)

    def replace(
        self, columns: Mapping[str, Sequence[Any] | Callable[[], Sequence[Any]]], kinds: Mapping[str, str]
    ) -> "Split":
        """The split with other cells in some of its columns, `{name: list of cells}`, or with more columns."""
        merged = {**self._columns, **columns}
        folders = {**dict.fromkeys(merged), **self.folders}
        return Split(self.name, merged, {**self.kinds, **kinds}, len(self), self.where, folders)

    def rename(self, columns: Mapping[str, str] | None) -> "Split":
        """The split with columns renamed and declared, see `mmkeras.data.open`."""
        names, kinds, targets = dict.fromkeys(self._columns), dict(self.kinds), {}
        for left, right in (columns or {}).items():
            if right in self._columns and (left in KINDS or left not in self._columns or right not in KINDS):
                names[right] = left  # image=photo: that column is called so from now on
                kinds[right] = left if left in KINDS else kinds[right]
            elif left in self._columns and right in KINDS:  # photo=image: this column is of that kind
                names[left] = left
                kinds[left] = right
                if right in TARGETS:  # kind=label: and is called so, too, as most models call their target
                    targets[right] = left
            else:
                self.cells(left if right in KINDS else right)
        taken = {new for new in names.values() if new}
        renamed = {new or old: old for old, new in names.items() if new or old not in taken} | targets

        def pick(column):
            return lambda: self.cells(column)

        return Split(
            self.name,
            {new: pick(old) for new, old in renamed.items()},
            {new: kinds[old] for new, old in renamed.items()},
            len(self),
            self.where,
            {new: self.folders[old] for new, old in renamed.items()},
        )

    def batches(self, preprocessor: "Preprocessor", batch_size: int = 64, **options: Any) -> "tf.data.Dataset":
        """A `tf.data.Dataset` of batches for `fit`, the rows checked; see `mmkeras.data.batches`.

        Raises:
            DataError: naming the first bad row.
        """
        from mmkeras.data.check import checked  # late: these import this file
        from mmkeras.data.pipeline import batches

        if preprocessor.fitted not in self._checked:
            names, targets = preprocessor.input_names, preprocessor.target_names
            known = {
                name: set(preprocessor.reader(name).vocabulary) for name in targets if self.kinds.get(name) in TARGETS
            }
            read = {name: kind for name, kind in preprocessor.target_kinds.items() if kind}
            plain = self.replace({}, {name: kind for name, kind in read.items() if self.kinds.get(name) == "other"})
            kinds = {name: self.kinds.get(name, "other") for name in names}
            rows = checked(plain, kinds, targets, known=known, widths=preprocessor.widths)
            self._checked[preprocessor.fitted] = rows
        return batches(self._checked[preprocessor.fitted], preprocessor, batch_size, **options)


class Source:
    """Splits under one name.

    Args:
        spec: how the source was named.
        splits: `{name: Split}`.
        rule: how the rows were divided among the splits, in words; None where the source came divided.

    Example:

    >>> import mmkeras
    >>> len(mmkeras.data.open("scenes:80").validation)
    10
    """

    def __init__(self, spec: str, splits: Mapping[str, Split], rule: str | None = None) -> None:
        self.spec = spec
        self.splits = splits
        self.rule = rule

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        return f"<Source {self.spec}: {rows} rows; {next(iter(self.splits.values())).told()}>"

    def __getattr__(self, name: str) -> Split:
        if name in self.__dict__.get("splits", ()):
            return self.splits[name]
        raise AttributeError(
            f"The source {self.__dict__.get('spec')!r} has no split `{name}`. It has: {', '.join(self.splits)}."
        )

    def split(self, name: str) -> Split:
        """The split of that name.

        Raises:
            DataError: if there is none.
        """
        if name not in self.splits:
            few = len(self.splits["train"]) < 10 if "train" in self.splits else False
            why = " Fewer than 10 rows are not divided: add rows, or a file for each split." if few else ""
            raise DataError(
                f"{self.spec} has no split `{name}`. It has: {', '.join(self.splits)}.{near(name, self.splits)}{why}"
            )
        return self.splits[name]

    def rename(self, columns: Mapping[str, str] | None) -> "Source":
        """The source with columns renamed and declared, see `mmkeras.data.open`."""
        return Source(self.spec, {name: split.rename(columns) for name, split in self.splits.items()}, self.rule)


def near(name, names):
    """`" Did you mean `x`?"`, or nothing."""
    found = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean `{found[0]}`?" if found else ""


def divide(spec, splits, seed=0):
    """A source with train, validation and test, the missing ones taken from the training split by a seeded rule."""
    if "train" not in splits:
        if len(splits) != 1:
            raise DataError(f"{spec} has no split `train`. It has: {', '.join(splits) or 'none'}.")
        splits = {"train": next(iter(splits.values()))}
    missing = [name for name in ("validation", "test") if not any(s.startswith(name) for s in splits)]
    train = splits["train"]
    share = len(train) // 10
    if not missing or share == 0:
        return Source(spec, splits)
    order = np.random.default_rng(seed).permutation(len(train))
    divided = dict(splits)
    for i, name in enumerate(missing):
        divided[name] = train.take(np.sort(order[i * share : (i + 1) * share]), name)
    divided["train"] = train.take(np.sort(order[len(missing) * share :]), "train")
    return Source(spec, divided, f"{' and '.join(missing)}: a tenth of the training rows each, drawn with seed {seed}")
