"""JSON as TensorFlow Serving reads and writes it, which is a little more than JSON.

Read: a byte-order mark and text after the value are passed over, NaN, Inf and Infinity are numbers, the first of equal
keys counts. Written: a float always shows a point or an exponent, and what is not finite is bare.

orjson reads and writes what it can, which is nearly all; the rest goes through the standard library, ten times slower.
"""

import json
import math
import re

import numpy as np
import orjson

from mmkeras.serving.errors import echoed, invalid

DEEPEST = 64  # levels of nesting; the original dies of a few ten thousand

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?P<fraction>\.\d+)?(?P<exponent>[eE][+-]?\d+)?")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_KEY = re.compile(rb'"[ \t\n\r]*:')
_SPACE = re.compile(r"[ \t\n\r]*")
_CONSTANTS = {
    "true": True, "false": False, "null": None, "NaN": math.nan, "Infinity": math.inf, "Inf": math.inf,
    "-NaN": math.nan, "-Infinity": -math.inf, "-Inf": -math.inf,
}  # fmt: skip
_CONSTANT = re.compile("|".join(sorted(_CONSTANTS, key=len, reverse=True)))


def loads(body):
    """The value of a JSON text.

    Args:
        body: bytes.

    Raises:
        ServingError: as TensorFlow Serving words it, with the offset.

    Example:

    >>> loads(b'{"instances": [1, NaN], "instances": []} and more')
    {'instances': [1, nan]}
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    if not _is_deep(body):
        try:
            value = orjson.loads(body)
            if len(_KEY.findall(body)) == _num_keys(value, body):  # otherwise a key may have come twice
                return value
        except orjson.JSONDecodeError:
            pass
    try:
        text = body.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    return _Reader(text).read()


def _is_deep(body):
    """Whether a text may be nested more deeply than is read; text in strings may make it look so."""
    return body.count(b"[") + body.count(b"{") > DEEPEST and _depth(body) > DEEPEST


def _depth(body):
    marks = np.frombuffer(body, "uint8")
    steps = ((marks == 0x5B) | (marks == 0x7B)).astype("int32") - ((marks == 0x5D) | (marks == 0x7D))
    return int(np.cumsum(steps).max(initial=0))


def _num_keys(value, body):
    """The keys of all objects of a value; of one that is the only object without a walk through its lists."""
    if isinstance(value, dict) and body.count(b"{") == 1:
        return len(value)
    if isinstance(value, dict):
        return len(value) + sum(_num_keys(item, body) for item in value.values() if isinstance(item, (dict, list)))
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        return sum(_num_keys(item, body) for item in value if isinstance(item, (dict, list)))
    return 0


class _Reader:
    """Reads what orjson does not, and says what is wrong with it."""

    def __init__(self, text):
        self.text = text

    def read(self):
        value, _ = self.value(_SPACE.match(self.text).end(), 0)
        return value

    def fault(self, what, at):
        offset = len(self.text[:at].encode("utf-8"))
        return invalid(f"JSON Parse error: {what} at offset: {offset}")

    def value(self, at, depth):
        """(value, where it ends)."""
        text = self.text
        mark = text[at : at + 1]
        if mark in ("[", "{"):
            if depth == DEEPEST:
                raise self.fault(f"Nested more deeply than {DEEPEST} levels.", at)
            return (self.array if mark == "[" else self.object)(at + 1, depth + 1)
        if mark == '"':
            return self.string(at)
        constant = _CONSTANT.match(text, at)
        if constant:
            return _CONSTANTS[constant[0]], constant.end()
        return self.number(at)

    def array(self, at, depth):
        items, at = [], self.after_space(at)
        while self.text[at : at + 1] != "]":
            if items:
                if self.text[at : at + 1] != ",":
                    raise self.fault("Missing a comma or ']' after an array element.", at)
                at = self.after_space(at + 1)
            item, at = self.value(at, depth)
            items.append(item)
            at = self.after_space(at)
        return items, at + 1

    def object(self, at, depth):
        members, at = {}, self.after_space(at)
        while self.text[at : at + 1] != "}":
            if members:
                if self.text[at : at + 1] != ",":
                    raise self.fault("Missing a comma or '}' after an object member.", at)
                at = self.after_space(at + 1)
            if self.text[at : at + 1] != '"':
                raise self.fault("Missing a name for object member.", at)
            name, at = self.string(at)
            at = self.after_space(at)
            if self.text[at : at + 1] != ":":
                raise self.fault("Missing a colon after a name of object member.", at)
            item, at = self.value(self.after_space(at + 1), depth)
            members.setdefault(name, item)
            at = self.after_space(at)
        return members, at + 1

    def string(self, at):
        found = _STRING.match(self.text, at)
        if not found:
            raise self.fault(self.string_fault(at), at)
        value = json.loads(found[0])
        if re.search("[\ud800-\udfff]", value):
            raise self.fault("The surrogate pair in string is invalid.", at)
        return value, found.end()

    def string_fault(self, at):
        rest = re.match(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*', self.text[at:])
        after = self.text[at + rest.end() : at + rest.end() + 2]
        if after[:1] == "\\" and after != "\\":
            if after == "\\u":
                return "Incorrect hex digit after \\u escape in string."
            return "Invalid escape character in string."
        return "Invalid encoding in string." if after else "Missing a closing quotation mark in string."

    def number(self, at):
        found = _NUMBER.match(self.text, at)
        if not found:
            raise self.fault("Invalid value.", at)
        following = self.text[found.end() : found.end() + 1]
        if following == "." and not found["fraction"] and not found["exponent"]:
            raise self.fault("Miss fraction part in number.", found.end())
        if following in ("e", "E") and not found["exponent"]:
            raise self.fault("Miss exponent in number.", found.end())
        whole = not (found["fraction"] or found["exponent"]) and len(found[0]) <= 20
        value = int(found[0]) if whole else float(found[0])
        if whole and not -(2**63) <= value < 2**64:
            value = float(value)
        if value in (math.inf, -math.inf):
            raise self.fault("Number too big to be stored in double.", at)
        return value, found.end()

    def after_space(self, at):
        return _SPACE.match(self.text, at).end()


def dumps(value):
    """JSON bytes of lists, dicts, strings, numbers and NumPy arrays.

    Example:

    >>> dumps({"predictions": np.array([2.5, np.nan], "float32")})
    b'{"predictions": [2.5, NaN]}'
    """
    if _is_finite(value):
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(value, default=lambda array: array.tolist(), ensure_ascii=False).encode()


def _is_finite(value):
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(_is_finite(item) for item in value if not isinstance(item, (str, int)))
    return not isinstance(value, (float, np.floating)) or math.isfinite(value)


TYPES = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number", type(None): "Null"}


def type_name(value):
    """What RapidJSON calls the type of a value."""
    return str(value) if isinstance(value, bool) else TYPES[type(value)]


def shown(value):
    """A value as errors repeat it."""
    return echoed(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
