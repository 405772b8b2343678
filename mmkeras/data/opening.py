"""A source by its name."""

import os
import pathlib
from collections.abc import Mapping

from mmkeras.data.coco import open_coco, open_flickr30k
from mmkeras.data.manifest import open_file, open_folder
from mmkeras.data.pair import halves, pair
from mmkeras.data.scenes import scenes
from mmkeras.data.source import DataError, Source
from mmkeras.data.tfds import open_tfds


def open(name: str | os.PathLike[str], columns: Mapping[str, str] | None = None, skip_bad: bool = False) -> Source:
    """The source of that name.

    Args:
        name: `scenes` or `scenes:ROWS` (generated); a `.jsonl` or `.csv` file; a folder of them or of pictures;
            `tfds:NAME`; `coco:captions_train2014.json`; `flickr30k:results.token`; `A+B`, two of them joined by a
            seeded order, or `A+B@COLUMN`, by equal values of a column; `halves:A`, the left and right half of
            every picture of A.
        columns: `{"photo": "image", "kind": "label"}` says of what kind a column is (labels and tags are also
            called so from then on); `{"image": "photo"}` gives the column `photo` the name `image`.
        skip_bad: whether rows that cannot be read are left out instead of being an error.

    Returns:
        A Source.

    Raises:
        DataError: if there is no such source, or a row cannot be read.

    Example:

    >>> import mmkeras
    >>> list(mmkeras.data.open("scenes:16").splits)
    ['train', 'validation', 'test']
    """
    source = _open(str(name), skip_bad)
    source.spec = str(name)
    return source.rename(columns) if columns else source


def _open(name, skip_bad):
    path = pathlib.Path(name.removeprefix("path:"))
    if path.is_dir():
        return open_folder(path, skip_bad)
    if path.is_file():
        return open_file(path, skip_bad)
    scheme, _, rest = name.partition(":")
    if "+" in name:
        names, _, on = name.partition("@")
        first, *others = (_open(part, skip_bad) for part in names.split("+"))
        for other in others:
            first = pair(first, other, on or None)
        return first
    if scheme == "halves":
        return halves(_open(rest, skip_bad))
    if scheme == "scenes":
        if rest and not rest.isdigit():
            raise DataError(f"Expected scenes:ROWS with a number of rows. Received: {name!r}.")
        return scenes(int(rest) if rest else None)
    if scheme == "tfds" and rest:
        return open_tfds(rest)
    if scheme == "coco" and rest:
        return open_coco(pathlib.Path(rest))
    if scheme == "flickr30k" and rest:
        return open_flickr30k(pathlib.Path(rest), skip_bad)
    raise DataError(
        f"There is no data source {name!r}. Expected `scenes`, a .jsonl or .csv file, a folder of them, `tfds:NAME`, "
        f"`coco:FILE` or `flickr30k:FILE`{'; that file does not exist' if path.suffix else ''}."
    )
