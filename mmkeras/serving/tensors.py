"""Requests in JSON to arrays, and arrays to answers in JSON, in rows and in columns (TensorFlow Serving's predict).

A signature's inputs are `{name: dtype}`, the dtype a name of TensorFlow's: `"float32"`, `"string"` …
"""

import base64
import binascii
import functools
import re

import numpy as np

from mmkeras.serving.errors import ServingError, echoed, invalid
from mmkeras.serving.json_text import shown, type_name

# What errors and the original call the types that a request can be of.
_NAMES = {
    "float32": "float", "float64": "double", "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint32": "uint32", "uint64": "uint64", "bool": "bool", "string": "string", "half": "half",
    "float16": "half", "bfloat16": "bfloat16", "uint16": "uint16", "complex64": "complex64", "complex128": "complex128",
}  # fmt: skip
_READ = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool", "string")
_WRITTEN = _READ
_SPACE = re.compile(r"\s+")


def read_predict(request, inputs):
    """The inputs of a predict request, and how its answer is to be written.

    Args:
        request: the parsed body, an object.
        inputs: the signature's, `{name: dtype}`.

    Returns:
        `({name: array}, rows)`: whether the request came in rows (`instances`).

    Raises:
        ServingError: in the original's words.

    Example:

    >>> read_predict({"instances": [[1, 2], [3, 4]]}, {"x": "float32"})
    ({'x': array([[1., 2.],
           [3., 4.]], dtype=float32)}, True)
    """
    if "instances" in request:
        if "inputs" in request:
            raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
        return _from_rows(request["instances"], inputs), True
    if "inputs" in request:
        return _from_columns(request["inputs"], inputs), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_rows(rows, inputs):
    if not isinstance(rows, list):
        raise invalid("Expecting 'instances' to be an list/array")
    if not rows:
        raise invalid("No values in 'instances' array")
    if not _is_named(rows[0]):
        if len(inputs) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                "tensorinfo_map"
            )
        (name, dtype), *_ = inputs.items()
        return {name: _stacked(rows, dtype, lambda i: "", objects=False)}
    columns = {name: [] for name in inputs}
    for i, row in enumerate(rows):
        if not _is_named(row):
            raise invalid(f"Expecting object but got list at item {i} of input list")
        for name in row:
            if name not in inputs:
                raise invalid(
                    f"Failed to process element: {i} key: {echoed(name, 128)} of 'instances' list. Error: "
                    f"INVALID_ARGUMENT: JSON object: does not have named input: {echoed(name, 128)}"
                )
        if len(row) != len(inputs):
            raise invalid(
                f"Failed to process element: {i} of 'instances' list. JSON object: {shown(row)} keys must be equal "
                f"to: {','.join(sorted(inputs))}"
            )
        for name, value in row.items():
            columns[name].append(value)
    return {n: _stacked(cells, inputs[n], lambda i, n=n: f" key: {n}") for n, cells in columns.items()}


def _is_named(value):
    return isinstance(value, dict) and not is_base64(value)


def is_base64(value):
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _stacked(rows, dtype, title, objects=True):
    """Values of one input, a row each, as an array; each has the shape of the first."""
    array = _at_once(rows, dtype)
    if array is not None:
        return array
    shape, found = None, []
    for i, row in enumerate(rows):
        if not objects and _is_named(row):
            raise invalid(f"Expecting value/list but got object at item {i} of input list")
        try:
            own = _shape(row)
            if shape is not None and own != shape:
                raise invalid(f"Expecting shape {_written(shape)} but got: {_written(own)}")
            shape = own
            found.append(_flat(row, shape, dtype))
        except ServingError as error:  # by rows every fault is one of the request
            raise invalid(
                f"Failed to process element: {i}{title(i)} of 'instances' list. Error: {error.code}: {error.message}"
            ) from None
    return _array([value for values in found for value in values], dtype, (len(rows), *shape))


def _from_columns(columns, inputs):
    if not _is_named(columns):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        (name, dtype), *_ = inputs.items()
        return {name: _column(columns, dtype)}
    found = {}
    for name in sorted(inputs):
        if name not in columns:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        found[name] = _column(columns[name], inputs[name])
    return found


def _column(value, dtype):
    array = _at_once(value, dtype) if isinstance(value, list) else None
    if array is not None:
        return array
    shape = _shape(value)
    return _array(_flat(value, shape, dtype), dtype, shape)


def _at_once(values, dtype):
    """A regular list of plain numbers as an array, by NumPy itself; None where it has to be looked at one by one."""
    if dtype not in _READ or dtype in ("bool", "string"):
        return None
    try:
        array = np.array(values)
    except ValueError:  # not regular
        return None
    if array.dtype.kind == "i":
        limits = np.iinfo("int32" if dtype in ("int8", "int16", "uint8") else dtype) if dtype[0] != "f" else None
        if limits and array.size and not (limits.min <= array.min() and array.max() <= limits.max):
            return None
        fits = True
    else:
        fits = array.dtype.kind == "f" and dtype[0] == "f"
    # A list of numbers among which there is a true or false becomes numbers too: these have to be looked for.
    if not fits or _has_truth(values):
        return None
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _has_truth(values):
    if isinstance(values, list):
        if values and not isinstance(values[0], list):
            return bool in set(map(type, values))
        return any(map(_has_truth, values))
    return isinstance(values, bool)


def _shape(value):
    """The shape of a value by its first elements."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _written(shape):
    return f"[{','.join(map(str, shape))}]"


def _flat(value, shape, dtype, level=0):
    """The leaves of a value, checked against its shape and type."""
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at "
                f"level: {len(shape)}"
            )
        return [_leaf(value, dtype)]
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    return [leaf for item in value for leaf in _flat(item, shape, dtype, level + 1)]


def _leaf(value, dtype):
    """One value of a tensor, or the error of one that is of another type."""
    if dtype not in _READ:
        message = f"Conversion of JSON Value: {shown(value)} to type: {_NAMES.get(dtype, dtype)}"
        raise ServingError("UNIMPLEMENTED", message)
    if dtype == "string":
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict):
            return decoded(value)
    elif dtype == "bool":
        if isinstance(value, bool):
            return value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if dtype[0] == "f":
            return value
        limits = np.iinfo("int32" if dtype in ("int8", "int16", "uint8") else dtype)
        if isinstance(value, int) and limits.min <= value <= limits.max:
            return value
    raise invalid(f"JSON Value: {shown(value)} Type: {type_name(value)} is not of expected type: {_NAMES[dtype]}")


def decoded(value):
    if not is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = _SPACE.sub("", value["b64"]).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _array(leaves, dtype, shape):
    if dtype == "string":
        array = np.empty(len(leaves), object)
        array[:] = leaves
        return array.reshape(shape)
    if dtype in ("int8", "int16", "uint8"):  # the original checks these as int32 and lets them wrap
        return np.array(leaves, "int64").astype(dtype).reshape(shape)
    with np.errstate(over="ignore"):
        return np.array(leaves, dtype if dtype[0] != "f" else "float64").astype(dtype).reshape(shape)


def write_predict(outputs, rows):
    """The answer to a predict request.

    Args:
        outputs: `{name: array}`.
        rows: whether the request came in rows.

    Raises:
        ServingError: if an output cannot be written so.

    Example:

    >>> write_predict({"y": np.array([1.5]), "n": np.array([2])}, rows=True)
    {'predictions': [{'y': np.float64(1.5), 'n': 2}]}
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if not rows:
        columns = {name: _cells(name, array) for name, array in outputs.items()}
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    size = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        size = len(array) if size is None else size
        if len(array) != size:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}")
    columns = {name: _cells(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    names = list(columns)
    listed = (c.tolist() if isinstance(c, np.ndarray) and c.dtype.kind != "f" else c for c in columns.values())
    return {"predictions": [dict(zip(names, row, strict=True)) for row in zip(*listed, strict=True)]}


@functools.cache
def _name(dtype):
    return dtype.name  # which NumPy puts together anew each time


def _cells(name, array):
    """An output as it is written: an array of numbers, or lists of texts or of `{"b64": ..}`."""
    if array.dtype == object or array.dtype.kind in "SU":
        write = _encoded if name.endswith("_bytes") else _text
        return _mapped(array.tolist(), write, name)
    name_of_type = _name(array.dtype)
    if name_of_type not in _WRITTEN:
        raise invalid(f"Failed to write JSON value for tensor type: {_NAMES.get(name_of_type, name_of_type)}")
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _mapped(value, write, name):
    return [_mapped(item, write, name) for item in value] if isinstance(value, list) else write(value, name)


def _encoded(value, name):
    return {"b64": base64.b64encode(value).decode()}


def _text(value, name):
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ServingError("INTERNAL", f"The output `{name}` holds bytes that are no text.") from None
