"""Where the bytes of a picture, a sound or a clip are: in a cell, in a file, or in a slice of one.

A slice is written `train-00000-of-00004.tfrecord#120+4711+99`: the bytes before it, its own, and those after it.
`zoo data pack` makes them.
"""

import io
import os
import re

import tensorflow as tf

_SLICE = re.compile(r"(.+)#(\d+)\+(\d+)\+(\d+)")


def is_slice(cell):
    """Whether a cell is a slice of a file."""
    return isinstance(cell, str) and _SLICE.fullmatch(cell) is not None


def missing(cell):
    """What is not there of a cell's file, in words; or None."""
    if isinstance(cell, bytes):
        return None
    found = _SLICE.fullmatch(cell)
    path = found[1] if found else cell
    if not os.path.exists(path):
        return f"there is no file {path}"
    if found:
        size, expected = os.path.getsize(path), sum(map(int, found.groups()[1:]))
        if size != expected:
            return f"{path} has {size:,} bytes, not the {expected:,} that were packed; pack it again"
    return None


def contents(cell):
    """The bytes of a cell: itself, a file's path, or a slice.

    Example:

    >>> with open("three.bin", "wb") as file:
    ...     _ = file.write(b"abcdef")
    >>> contents("three.bin#2+3+1")
    b'cde'
    """
    if isinstance(cell, bytes):
        return cell
    found = _SLICE.fullmatch(cell)
    with open(found[1] if found else cell, "rb") as file:
        if not found:
            return file.read()
        file.seek(int(found[2]))
        return file.read(int(found[3]))


def opened(cell: str | bytes) -> str | io.BytesIO:
    """What Pillow and `wave` read a cell from: a path, or a file of its bytes."""
    return io.BytesIO(contents(cell)) if isinstance(cell, bytes) or is_slice(cell) else cell


def read_file(path):
    """A path, or an empty string, to the file's bytes, in a graph."""
    return tf.cond(tf.equal(path, ""), lambda: tf.constant(b""), lambda: tf.io.read_file(path))


def read_slice(path):
    """A path or a slice, or an empty string, to its bytes, in a graph that any process can run."""

    def read():
        file = tf.strings.regex_replace(path, "#[^#]*$", "")
        numbers = tf.strings.split(tf.strings.regex_replace(path, "^.*#", ""), "+")
        before, own, after = tf.unstack(tf.strings.to_number(numbers, tf.int64), 3)
        # The one record of a file that has nothing but it between a header and a footer.
        return tf.data.FixedLengthRecordDataset(file, own, before, after, 2**16).get_single_element()

    return tf.cond(tf.strings.regex_full_match(path, _SLICE.pattern), read, lambda: read_file(path))
