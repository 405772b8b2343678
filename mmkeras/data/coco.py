"""COCO captions and Flickr30k in the form they are downloaded in."""

import collections
import csv
import json
import pathlib

from mmkeras.data.manifest import and_more
from mmkeras.data.source import DataError, Split, divide


def open_coco(path):
    """A source from a file of COCO captions, such as `annotations/captions_train2014.json`.

    The pictures are looked for in `train2014/` (the last part of the file's name) or `images/`, beside the file and
    up to two folders above. `captions_val2014.json` beside it is the split `validation`, if its pictures are there.
    Columns: `image` (path), `text` (list of captions), `id` (number of the picture).

    Raises:
        DataError: if the file is broken or there is no folder of pictures.
    """
    splits = {"train": _read_coco(path, "train")}
    beside = path.with_name(path.name.replace("train", "val"))
    if beside != path and beside.is_file() and _find_folder(beside, _coco_folders(beside)):
        splits["validation"] = _read_coco(beside, "validation")
    return divide(f"coco:{path}", splits)


def _coco_folders(path):
    year = path.stem.rpartition("_")[2]
    return year, f"images/{year}", "images"


def _read_coco(path, name):
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as COCO captions: {error}.") from None
    try:
        texts = collections.defaultdict(list)
        for annotation in content["annotations"]:
            texts[annotation["image_id"]].append(annotation["caption"].strip())
        pictures = [(picture["id"], picture["file_name"]) for picture in content["images"]]
    except (AttributeError, KeyError, TypeError) as error:
        lacks = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path} is no file of COCO captions: {lacks}. Expected "
            '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}.'
        ) from None
    folder = _folder(path, _coco_folders(path))
    columns = {
        "image": [str(folder / file_name) for _, file_name in pictures],
        "text": [texts.get(number, "") for number, _ in pictures],
        "id": [number for number, _ in pictures],
    }
    kinds = {"image": "image", "text": "text"}
    return Split(name, columns, kinds, len(pictures), lambda i: f"{path.name}, row {i + 1} (image {pictures[i][0]})")


def open_flickr30k(path, skip_bad=False):
    """A source from Flickr30k's captions in any of the forms that are about.

    `results_20130124.token` (`1000092795.jpg#0<tab>caption` a line), Kaggle's `results.csv` (`name| number| caption`)
    or Karpathy's table (columns `filename`, `raw`, `split`), which alone says what belongs to which split. The
    pictures are looked for in `flickr30k-images/`, `flickr30k_images/` or `images/`, beside the file or one folder
    above. Columns: `image` (path), `text` (list of captions), `id` (name of the file).

    Raises:
        DataError: if a row is malformed (with `skip_bad` it is left out), or there is no folder of pictures.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            header = file.readline()
            file.seek(0)
            is_table = "filename" in header and "raw" in header
            rows, bad = _read_table(file, path) if is_table else _read_lines(file, path, "|" in header)
    except OSError as error:
        raise DataError(f"{path} cannot be read as captions of Flickr30k: {error}.") from None
    if bad and not skip_bad:
        raise DataError(bad[0] + and_more(bad))
    for message in bad:
        print(f"skipped: {message}")
    if not rows:
        raise DataError(f"{path} holds no caption: expected `name.jpg#0<tab>caption` or `name.jpg| 0| caption` a line.")
    folder = _folder(path, ("flickr30k-images", "flickr30k_images", "images"))
    pictures = collections.defaultdict(lambda: collections.defaultdict(list))
    for split, name, captions in rows:
        pictures[split][name] += captions
    splits = {split: _flickr_split(path, split, folder, texts) for split, texts in pictures.items()}
    return divide(f"flickr30k:{path}", splits)


def _flickr_split(path, split, folder, texts):
    names = list(texts)
    columns = {"image": [str(folder / name) for name in names], "text": list(texts.values()), "id": names}
    kinds = {"image": "image", "text": "text"}
    return Split(split, columns, kinds, len(names), lambda i: f"{path.name}, row of {names[i]}")


def _read_lines(file, path, is_kaggle):
    """Rows (split, name, captions) of the token file or Kaggle's, and what is wrong with the others."""
    rows, bad = [], []
    for number, line in enumerate(file, 1):
        if not line.strip() or (is_kaggle and number == 1):
            continue
        name, _, rest = line.partition("|" if is_kaggle else "#")
        count, found, text = rest.partition("|" if is_kaggle else "\t")
        if found and text.strip() and count.strip().isdigit():
            rows.append(("train", name.strip(), [text.strip()]))
        else:
            form = "name| number| caption" if is_kaggle else "name#number<tab>caption"
            bad.append(f"{path.name}, row {number}: expected `{form}`, got {line.strip()[:60]!r}.")
    return rows, bad


def _read_table(file, path):
    """Rows (split, name, captions) of Karpathy's table, and what is wrong with the others."""
    rows, bad = [], []
    for number, row in enumerate(csv.DictReader(file), 2):
        try:
            split = {"val": "validation", None: "train"}.get(row.get("split"), row.get("split"))
            rows.append((split, row["filename"], [text.strip() for text in json.loads(row["raw"])]))
        except (AttributeError, TypeError, ValueError) as error:
            bad.append(f"{path.name}, row {number}: expected a JSON list of captions in `raw` ({error}).")
    return rows, bad


def _folder(path, names):
    """The folder of pictures that belongs to a file of captions."""
    folder = _find_folder(path, names)
    if folder is None:
        wanted = ", ".join(f"{name}/" for name in names)
        raise DataError(f"There is no folder of pictures for {path}: looked for {wanted} beside it and above.")
    return folder


def _find_folder(path, names):
    above = pathlib.Path(path).absolute().parents[:3]
    return next((folder / name for name in names for folder in above if (folder / name).is_dir()), None)
