"""JSONL and CSV files, and folders of them or of pictures."""

import csv
import json
import math
import pathlib

from mmkeras.data.source import ENCODED, KINDS, DataError, Split, divide

KINDS_FILE = "columns.json"
_SPLITS = ("train", "validation", "test")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")


def open_file(path, skip_bad=False):
    """A source from one JSONL or CSV file, a row an example, paths relative to the file.

    Raises:
        DataError: if the file is empty or a row cannot be read; with `skip_bad` such rows are left out.
    """
    return divide(path.name, {"train": read_split(path, "train", skip_bad)})


def open_folder(folder, skip_bad=False):
    """A source from a folder: a file a split (`train.jsonl`, `validation.csv`, `test_style.jsonl`), or pictures.

    Pictures lie in a folder a class, with or without a folder a split around them; a text file of a picture's name
    is its text.

    Raises:
        DataError: if there is neither.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix in (".jsonl", ".csv"))
    names = {_split_name(p.stem): p for p in files if _split_name(p.stem).startswith(_SPLITS)}
    if names:
        splits = {name: read_split(path, name, skip_bad) for name, path in names.items()}
        if (folder / KINDS_FILE).is_file():  # what `zoo data pack` wrote says of what kind its columns are
            kinds = json.loads((folder / KINDS_FILE).read_text())
            splits = {name: split.replace({}, kinds) for name, split in splits.items()}
        return divide(folder.name, splits)
    if len(files) == 1:
        return divide(folder.name, {"train": read_split(files[0], "train", skip_bad)})
    inside = {_split_name(p.name): p for p in sorted(folder.iterdir()) if p.is_dir()}
    splits = {n: _pictures(inside[n], n, skip_bad) for n in _SPLITS if n in inside}
    splits = splits or {"train": _pictures(folder, "train", skip_bad)}
    if not any(len(split) for split in splits.values()):
        raise DataError(
            f"{folder} holds nothing to read. Expected train.jsonl or train.csv (validation and test beside it), or a "
            "folder of pictures a class."
        )
    return divide(folder.name, splits)


def _split_name(name):
    return "validation" if name == "val" else name


def read_split(path, name, skip_bad=False):
    """One file as a split."""
    read = {".jsonl": _read_jsonl, ".csv": _read_csv}.get(path.suffix)
    if read is None:
        raise DataError(f"{path} is neither .jsonl nor .csv.")
    rows, numbers, bad = read(path)
    if bad and not skip_bad:
        raise DataError(f"{bad[0]}{and_more(bad)}")
    for message in bad:
        print(f"skipped: {message}")
    if not rows:
        raise DataError(f"{path} is empty: expected an example a row. Fill it, or give another file.")
    names = {column: None for row in rows for column in row}
    columns = {column: [row.get(column) for row in rows] for column in names}
    # Paths are relative to the file. What will be a path is known only once the kinds are declared.
    kinds = {column: column for column in names if column in KINDS}
    return Split(name, columns, kinds, len(rows), lambda i: f"{path.name}, row {numbers[i]}", path.parent.absolute())


def and_more(bad):
    """How many more there are, and what to do."""
    others = f" ({len(bad) - 1} more rows are bad.)" if len(bad) > 1 else ""
    return f"{others} Correct the file, or leave such rows out with --skip-bad."


def _read_jsonl(path):
    rows, numbers, bad = [], [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:  # UnicodeDecodeError is one too
                bad.append(f"{path.name}, row {number}: expected a JSON object, got {_short(line)} ({error}).")
                continue
            if not isinstance(row, dict):
                bad.append(f"{path.name}, row {number}: expected a JSON object, got {_short(line)}.")
                continue
            if b"\\ud" in line.lower() and not _is_text(json.dumps(row, ensure_ascii=False)):
                bad.append(f"{path.name}, row {number}: expected text, got half of a \\u pair in {_short(line)}.")
                continue
            rows.append(row)
            numbers.append(number)
    return rows, numbers, bad


def _read_csv(path):
    rows, numbers, bad = [], [], []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        csv.field_size_limit(2**31 - 1)  # a long text is a text; Python allows 131,072 characters
        # Strict: a quote that nobody closes would make one cell of all rows up to the next quote.
        records = _records(csv.reader(file, strict=True))
        header, fault = next(records, ([], None))
        if not fault and not _is_text(header):
            fault = f"expected UTF-8, got other bytes in {_readable(header)}"
        if fault:
            raise DataError(f"{path.name}, row 1: {fault}.")
        twice = [column for column in header if header.count(column) > 1]
        if twice:
            raise DataError(f"{path.name}, row 1: two columns are called {twice[0]!r}. Give them different names.")
        for number, (fields, fault) in enumerate(records, 2):
            if fault:
                bad.append(f"{path.name}, row {number}: {fault}.")
                continue
            if not fields:
                continue
            if len(fields) != len(header):
                bad.append(f"{path.name}, row {number}: expected {len(header)} fields, got {len(fields)}.")
                continue
            if not _is_text(fields):
                bad.append(f"{path.name}, row {number}: expected UTF-8, got other bytes in {_readable(fields)}.")
                continue
            rows.append(dict(zip(header, fields, strict=True)))
            numbers.append(number)
    return rows, numbers, bad


def _records(reader):
    """`(fields, what is wrong with their quotes or None)` of every record."""
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            lines = f"line {first}" if reader.line_num == first else f"lines {first} to {reader.line_num}"
            yield [], f"expected quotes that close before a comma; in {lines} a field has others ({error})"
            continue
        if fields is None:
            return
        yield fields, None


def _is_text(fields):
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8 stand as surrogates
        return False
    return True


def _readable(fields):
    return _short(",".join(fields).encode("utf-8", "surrogateescape"))


def _short(line):
    text = line.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _pictures(folder, name, skip_bad):
    paths, texts = [], []
    for path in sorted(p for p in folder.glob("*/*") if p.suffix.lower() in _PICTURES):
        beside = path.with_suffix(".txt")
        try:
            texts.append(beside.read_text(encoding="utf-8").strip() if beside.exists() else None)
        except UnicodeDecodeError:
            message = f"{beside}: expected a text in UTF-8, got other bytes."
            if not skip_bad:
                raise DataError(message + and_more([message])) from None
            print(f"skipped: {message}")
            continue
        paths.append(path)
    columns = {"image": [str(p) for p in paths], "label": [p.parent.name for p in paths]}
    kinds = {"image": "image", "label": "label"}
    if any(text is not None for text in texts):
        columns["text"] = [text or "" for text in texts]
        kinds["text"] = "text"
    return Split(name, columns, kinds, len(paths), lambda i: str(paths[i].relative_to(folder) if paths else folder))


def plain_cell(kind, cell, folder):
    """A cell as it stands in a file, as `Split` wants it: absent ones empty, paths whole, lists read from CSV texts.

    Raises:
        ValueError: if the cell is of another type than its kind needs.
    """
    if kind in ENCODED:
        if cell is None or isinstance(cell, (str, bytes)):
            is_path = isinstance(cell, str) and cell.strip()
            return str(pathlib.Path(folder or ".", cell)) if is_path else (cell if isinstance(cell, bytes) else "")
        raise ValueError(f"expected a path to a file, got {cell!r}")
    if kind == "text":
        cell = "" if cell is None else cell
        if isinstance(cell, str) or (isinstance(cell, list) and cell and all(isinstance(t, str) for t in cell)):
            return cell
        raise ValueError(f"expected a text or a list of texts, got {cell!r}")
    if kind == "vector":
        return _numbers(cell)
    if kind == "tags":
        if isinstance(cell, str):
            cell = json.loads(cell) if cell.startswith("[") else [t.strip() for t in cell.replace("|", ";").split(";")]
        if cell is None or (isinstance(cell, list) and all(isinstance(t, (str, int)) for t in cell)):
            return [str(t) for t in cell or () if str(t)]
        raise ValueError(f"expected a list of tags, got {cell!r}")
    if kind == "label":
        if cell is None or isinstance(cell, (str, int, float)):
            return "" if cell is None else str(cell).strip()
        raise ValueError(f"expected a label, got {cell!r}")
    if kind == "number":
        if cell is None or cell == "":
            return ""
        try:
            number = float(cell)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"expected a number, got {cell!r}")
        return str(number)
    return cell


def _numbers(cell):
    if isinstance(cell, str):
        try:
            cell = json.loads(cell) if cell.startswith("[") else [float(v) for v in cell.replace(";", " ").split()]
        except ValueError:
            raise ValueError(f"expected numbers, got {cell[:40]!r}") from None
    if cell is None:
        return []
    if isinstance(cell, list) and all(isinstance(v, (int, float)) for v in cell):
        return [float(v) for v in cell]
    raise ValueError(f"expected a list of numbers, got {cell!r}")
