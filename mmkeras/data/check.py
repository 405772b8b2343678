"""Rows looked at before training begins: what is missing, broken or of the wrong type."""

import collections
import functools
import os
import re
import struct
import warnings
import wave
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from mmkeras.data.manifest import and_more, plain_cell
from mmkeras.data.source import DataError, Split
from mmkeras.data.stored import contents, missing, opened
from mmkeras.layers import DecodeAudio, DecodeImage, DecodeVideo
from mmkeras.layers.decode_video import PACKED, unpacked
from mmkeras.layers.picture_headers import MOST_PIXELS, walk_packed


def checked(
    split: Split,
    modalities: Mapping[str, str],
    targets: Sequence[str] = (),
    skip_bad: bool = False,
    decode: bool = False,
    known: Mapping[str, Collection[str]] | None = None,
    widths: Mapping[str, int] | None = None,
) -> Split:
    """The split with its cells made plain, without its bad rows.

    Args:
        split, modalities, targets, known, widths: see `reviewed`.
        skip_bad: whether bad rows are left out instead of being an error.
        decode: whether pictures are decoded whole, as they are with `skip_bad`; otherwise their headers are read.

    Raises:
        DataError: naming the first bad row; or if no labels are known.
    """
    good, bad = reviewed(split, modalities, targets, decode or skip_bad, known, widths)
    if bad and not skip_bad:
        raise DataError(bad[0] + and_more(bad))
    if bad:
        print(f"{split.name}: {len(bad)} bad rows left out, {len(good)} kept. The first: {bad[0]}")
    check_usable(split.name, good, bad)
    return good


def check_usable(name, good, bad):
    if not len(good):
        raise DataError(f"The split `{name}` has no usable row. The first: {bad[0] if bad else 'it is empty.'}")


def reviewed(
    split: Split,
    modalities: Mapping[str, str],
    targets: Sequence[str] = (),
    decode: bool = False,
    known: Mapping[str, Collection[str]] | None = None,
    widths: Mapping[str, int] | None = None,
) -> tuple[Split, list[str]]:
    """The split with its cells made plain, without its bad rows, and a line for each of these.

    Args:
        split: a Split.
        modalities: `{column: kind}` of the model's inputs; a row needs one of them.
        targets: columns a row needs besides.
        decode: whether pictures are decoded whole; otherwise their headers are read.
        known: `{target: labels}` seen in training; another label is bad.
        widths: `{vector: numbers}` that a row has to have; of others as many as most rows have.

    Raises:
        DataError: if no labels are known.
    """
    for target, labels in (known or {}).items():
        if not labels:
            raise DataError(
                f"The preprocessor knows no value of `{target}`. Fit it on training rows first: "
                "mmkeras.data.adapt(preprocessor, source.train)."
            )
    kinds = {**modalities, **{target: split.kinds.get(target, target) for target in targets}}
    raw = {column: split.cells(column) for column in kinds}
    plain = {column: [None] * len(split) for column in kinds}
    reasons: list[str | None] = [None] * len(split)
    for i in range(len(split)):
        try:
            for column, kind in kinds.items():
                plain[column][i] = plain_cell(kind, raw[column][i], split.folders[column])
            row = {column: plain[column][i] for column in kinds}
            _check_row(row, modalities, targets, known or {})
        except ValueError as error:
            reasons[i] = str(error)
    _check_widths(plain, kinds, reasons, widths or {})
    for column, kind in kinds.items():
        if kind in FAULTS:
            _check_files(plain[column], kind, reasons, decode)
    bad = [f"{split.where(i)}: {reason}." for i, reason in enumerate(reasons) if reason]
    good = [i for i, reason in enumerate(reasons) if not reason]
    plain = {column: [cells[i] for i in good] for column, cells in plain.items()}
    return split.take(good).replace(plain, kinds), bad


def _check_row(row, modalities, targets, known):
    if not any(row[column] not in ("", b"", []) for column in modalities):
        raise ValueError(f"expected at least one of {', '.join(modalities)}, got none: every modality is absent")
    for target in targets:
        value = row[target]
        if value in ("", b"", None, []):
            raise ValueError(f"the target `{target}` is empty")
        labels = value if isinstance(value, list) else [value]
        if target in known:
            unseen = [label for label in labels if label not in known[target]]
            if unseen:
                what = "tag" if target == "tags" else target
                raise ValueError(f"the {what} {unseen[0]!r} does not occur in the training split")


def _check_widths(plain, kinds, reasons, widths):
    for column, kind in kinds.items():
        if kind == "vector":
            sizes = [len(v or ()) for v in plain[column]]
            most_frequent = collections.Counter(filter(None, sizes)).most_common(1) or [(0, 0)]
            expected = widths.get(column) or most_frequent[0][0]
            for i, size in enumerate(sizes):
                if size not in (0, expected) and not reasons[i]:
                    reasons[i] = f"expected {expected} numbers in `{column}`, got {size}"


def _check_files(cells, kind, reasons, decode):
    todo = [i for i, cell in enumerate(cells) if cell and isinstance(cell, str) and not reasons[i]]
    if decode and todo:
        _decoding_fault(kind, b"")  # traced here, once, not in every thread
    with ThreadPoolExecutor(4) as pool:
        for i, reason in zip(todo, pool.map(lambda i: FAULTS[kind](cells[i], decode), todo), strict=True):
            reasons[i] = reason


def picture_fault(picture: str | bytes, decode: bool = True) -> str | None:
    """What is wrong with a picture, a path or encoded bytes, in words, or None."""
    return _still_fault("image", picture, decode)


def _still_fault(kind, picture, decode):
    """Of a picture; or, if the kind is "video", of all frames of a GIF."""
    from PIL import Image, UnidentifiedImageError

    path = picture if isinstance(picture, str) else f"the picture of {len(picture):,} bytes"
    if missing(picture):
        return missing(picture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; they are refused below
            with Image.open(opened(picture)) as image:
                width, height = image.size
                frames = getattr(image, "n_frames", 1) if kind == "video" else 1
                if width * height * frames > MOST_PIXELS:
                    times = f" x {frames} frames" if frames > 1 else ""
                    size = f"{width} x {height} pixels{times}"
                    return f"{path} has {size}, more than the {MOST_PIXELS:,} that are decoded"
                if image.format not in ("PNG", "JPEG", "GIF", "BMP"):
                    return f"{path} is a {image.format} file; expected PNG, JPEG, GIF or BMP"
                fault = _decoding_fault(kind, picture) if decode else None
                if fault:
                    image.load()  # if it fails as well, it says more
                    return f"{path} {fault}"
    except UnidentifiedImageError:
        return f"{path} is no picture"
    except Image.DecompressionBombError:
        return f"{path} has too many pixels, more than the {MOST_PIXELS:,} that are decoded"
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error) as error:
        return f"{path} is broken ({error})"
    return None


def _decoding_fault(kind, cell):
    """What the layer that reads such cells in training says of one, or None."""
    try:
        _readers()[kind](tf.constant([contents(cell)]))
    except tf.errors.InvalidArgumentError as error:
        said = re.search(r"in row 0 ([^'\"\n\]]*)", str(error))
        return said[1] if said else "cannot be decoded"
    return None


@functools.cache
def _readers():
    layers = {"image": DecodeImage((1, 1)), "video": DecodeVideo(1, (1, 1)), "audio": DecodeAudio(seconds=0.1)}
    signature = [tf.TensorSpec([None], tf.string)]
    return {kind: tf.function(layer, input_signature=signature, autograph=False) for kind, layer in layers.items()}


def sound_fault(sound: str | bytes, decode: bool = True) -> str | None:
    """What is wrong with a sound, a path or encoded bytes, in words, or None."""
    path = sound if isinstance(sound, str) else f"the sound of {len(sound):,} bytes"
    if missing(sound):
        return missing(sound)
    try:
        with wave.open(opened(sound)) as file:
            if file.getsampwidth() != 2:
                return f"{path} has {8 * file.getsampwidth()} bits a sample; expected a WAV file of 16-bit PCM"
            if file.getnframes() == 0:
                return f"{path} holds no sound: its length is zero"
    except (wave.Error, EOFError, RuntimeError, OSError, struct.error) as error:
        return f"{path} is no WAV file of 16-bit PCM ({error or 'it ends too early'})"
    fault = _decoding_fault("audio", sound) if decode else None
    return f"{path} {fault}: it is cut off, or its header is wrong" if fault else None


def clip_fault(clip: str | bytes, decode: bool = True) -> str | None:
    """What is wrong with a clip, in words, or None.

    Args:
        clip: a GIF or a picture, a path or bytes; a folder of frames, or what `mmkeras.data.encoded` makes of it.
        decode: whether it is decoded.
    """
    if not isinstance(clip, str) or not os.path.isdir(clip):
        if missing(clip) or contents(clip)[: len(PACKED)] != PACKED:
            return _still_fault("video", clip, decode)
        return _packed_fault(contents(clip)) if decode else None
    faults = (picture_fault(path, decode) for path in frame_paths(clip))
    return next((fault for fault in faults if fault), None if frame_paths(clip) else f"{clip} holds no pictures")


def _packed_fault(clip):
    if walk_packed(tf.constant([clip])).numpy() == 0:
        return f"the clip of {len(clip):,} bytes is cut off, or holds no frame"
    return next(filter(None, map(picture_fault, unpacked(tf.constant(clip)).numpy())), None)


def frame_paths(clip):
    """The files of a clip: the pictures in a folder in natural order (`2.png` before `10.png`), or the file itself."""
    if not os.path.isdir(clip):
        return [clip]
    names = [name for name in os.listdir(clip) if name.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".bmp"))]
    names.sort(key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
    return [os.path.join(clip, name) for name in names]


FAULTS = {"image": picture_fault, "audio": sound_fault, "video": clip_fault}
