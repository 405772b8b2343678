"""Files written beside their place and renamed, so that nobody ever reads half of one."""

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path to write to, which becomes `path` at the end of the block; what was written is removed if it fails.

    A file is on the disk before it has its name, so that a power cut leaves no empty one.

    Example:

    >>> with replaced("numbers.txt") as beside:
    ...     _ = beside.write_text("1 2 3")
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}-{path.name}")  # the suffix stays: Keras and Matplotlib look at it
    try:
        yield beside
        if path.is_dir():
            shutil.rmtree(path)
        if beside.is_file():
            _flush(beside)
        beside.replace(path)
        _flush(path.parent)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        beside.unlink(missing_ok=True)


def _flush(path):
    """Has the system write a file, or the names in a folder, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def is_beside(path):
    """Whether a path is what `replaced` wrote to when its process was killed."""
    return re.match(r"\.\d+-", path.name) is not None


def remove_beside(folder: str | os.PathLike[str]) -> None:
    """Removes what processes that were killed left in a folder and the folders in it; this one writes nothing yet."""
    for path in filter(is_beside, list(pathlib.Path(folder).rglob(".*-*"))):
        number = int(path.name[1:].partition("-")[0])
        if number == os.getpid() or not _lives(number):  # in a container every process that trains is number 1
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a value as indented JSON."""
    with replaced(path) as beside:
        beside.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=True) + "\n", encoding="utf-8")
