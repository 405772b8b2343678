"""Raw values as users give them, paths, bytes, texts and numbers, to what a signature takes, and back."""

import pathlib

import numpy as np
import tensorflow as tf

from mmkeras import data as sources
from mmkeras.data.check import FAULTS


def asked(run, function, specs, raw):
    """What a function of raw values gives, those that are left out filled in as absent.

    Args:
        run: whose modalities they are.
        function: of `{name: tensor}`.
        specs: `{name: tf.TensorSpec}` of what it takes.
        raw: `{name: list of values}`, as for `Run.predict`.

    Raises:
        ValueError: on a name, a number of rows or a value that cannot be taken.
    """
    unknown = sorted(set(raw) - set(specs))
    if unknown or not raw:
        raise ValueError(f"Expected values for some of {sorted(specs)}. Received: {sorted(raw)}.")
    for name, values in raw.items():
        if isinstance(values, (str, bytes, pathlib.Path)):
            raise ValueError(f"Expected a list of values for `{name}`, one a row. Received: {values!r:.60}.")
    filled = {}
    examples = [n for n in specs if n.startswith("support_") and "support_label" in specs]  # of few_shot
    for names in (examples, [n for n in specs if n not in examples]):
        num_rows = {name: len(raw[name]) for name in names if name in raw}
        if names and len(set(num_rows.values())) != 1:
            raise ValueError(f"Expected as many values for each of {', '.join(names)}. Received: {num_rows}.")
        for name in names:
            kind = run.config.modalities.get(name.removeprefix("support_"))
            filled[name] = _values(name, kind, raw.get(name), specs[name], max(num_rows.values()))
    tensors = {name: tf.convert_to_tensor(value, specs[name].dtype) for name, value in filled.items()}
    try:
        return function(tensors)
    except tf.errors.InvalidArgumentError as error:
        raise _undecodable(run, filled) or error from None


def _undecodable(run, raw):
    """The ValueError of the first encoded value that cannot be decoded, or None."""
    for name, kind in run.config.modalities.items():
        for i, value in enumerate(raw.get(name, ()) if kind in sources.ENCODED else ()):
            fault = FAULTS[kind](value) if value else None
            if fault:
                return ValueError(f"The value of `{name}` in row {i + 1} cannot be used: {fault}.")
    return None


def _values(name, kind, values, spec, num_rows):
    """Raw values of one input, files read, absent ones filled in."""
    if spec.dtype == tf.string:
        values = [""] * num_rows if values is None else values
        return [contents(name, kind, value) for value in values] if kind in sources.ENCODED else list(values)
    if values is None:
        return np.full((num_rows, *spec.shape[1:]), np.nan if spec.dtype.is_floating else 0)
    array = np.array(values)
    if array.dtype.kind not in "if" or array.shape[1:] != tuple(spec.shape[1:]):
        raise ValueError(f"Expected numbers of shape {tuple(spec.shape[1:])} for `{name}`. Received: {values!r:.60}.")
    return array


def contents(name, kind, value):
    """A picture, sound or clip, a path or its bytes, as bytes."""
    if not isinstance(value, (str, bytes, pathlib.Path)):
        raise ValueError(f"Expected a path or encoded bytes for `{name}`. Received: {type(value).__name__}.")
    value = str(value) if isinstance(value, pathlib.Path) else value
    fault = FAULTS[kind](value, decode=False) if value else None
    if fault:
        raise ValueError(f"The value of `{name}` cannot be used: {fault}.")
    return sources.encoded(value)


def as_text(values):
    """Byte strings as text where they are text; pictures stay bytes."""
    try:
        return np.vectorize(lambda value: value.decode("utf-8"), otypes=[object])(values)
    except UnicodeDecodeError:
        return values
