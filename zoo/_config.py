"""Hyperparameters: declared once, as fields of a frozen dataclass.

The keyword arguments of `zoo.build`, the options of `zoo train`, the table of `zoo.describe` and a run's
`config.json` all come from these fields. This file imports neither TensorFlow nor Keras: `zoo --help` reads it.
"""

import dataclasses
import difflib
import math
import types
import typing

NAMES = tuple[str, ...]  # the type of a hyperparameter that takes any number of names


def hp(default, help, choices=None, low=None, high=math.inf):
    """A hyperparameter: a dataclass field with its default and one line of help.

    Args:
        default, help: these.
        choices: its values, where there are few.
        low, high: smallest and largest value of a number; by default an integer is at least 1 and a float at least 0.
    """
    metadata = {"help": help, "choices": tuple(choices) if choices else None, "low": low, "high": high}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields every model has: how it is optimised.

    Raises:
        ValueError: if a value has the wrong type or is none of its choices.
    """

    optimizer: str = hp("adamw", "optimiser", ("adamw", "adam", "sgd", "rmsprop", "lion"))
    learning_rate: float = hp(1e-3, "learning rate (its peak, where there is a schedule)")
    weight_decay: float = hp(1e-4, "weight decay of adamw and lion")
    clip_norm: float = hp(1.0, "largest global norm of the gradient; 0 turns clipping off")
    schedule: str = hp(
        "cosine", "learning rate in zoo.train: a cosine after a warm-up, or always the same", ("cosine", "constant")
    )
    warmup: float = hp(0.05, "share of the training steps in which a cosine's rate rises to its peak", high=1.0)
    epochs: int = hp(10, "passes over the training split in zoo.train")
    patience: int = hp(0, "epochs without a smaller validation loss after which zoo.train ends; 0: none", low=0)
    batch_size: int = hp(64, "rows a step in zoo.train")

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = convert(field.name, getattr(self, field.name), hints[field.name])
            choices = field.metadata["choices"]
            check_range(field, value)
            if choices and value not in choices:
                raise ValueError(
                    f"Invalid value for hyperparameter `{field.name}`. "
                    f"Expected one of {', '.join(map(repr, choices))}. "
                    f"Received: {value!r}.{did_you_mean(str(value), choices)}"
                )
            object.__setattr__(self, field.name, value)

    def replace(self, **changes):
        """The same configuration with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self):
        """Plain values, as they stand in a run's `config.json`."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def check_range(field, value):
    """Raises ValueError for a number, or one of a pair, outside a hyperparameter's range."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        low = field.metadata["low"] if field.metadata["low"] is not None else int(isinstance(number, int))
        if not low <= number <= field.metadata["high"] or math.isinf(number):
            most = f" and at most {field.metadata['high']}" if math.isfinite(field.metadata["high"]) else ""
            raise ValueError(
                f"Invalid value for hyperparameter `{field.name}`. Expected at least {low}{most}. Received: {value!r}."
            )


def did_you_mean(name, names):
    """`" Did you mean `x`?"`, or nothing where no name is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean `{near[0]}`?" if near else ""


def check_names(owner, given, config_class):
    """Raises ValueError for the first hyperparameter that `config_class` does not have."""
    valid = [f.name for f in dataclasses.fields(config_class)]
    for name in given:
        if name not in valid:
            raise ValueError(
                f"Unknown hyperparameter `{name}` of `{owner}`.{did_you_mean(name, valid)} "
                f"It has: {', '.join(sorted(valid))}."
            )


def convert(name, value, hint):
    """`value` as the type `hint` asks for: lists become tuples, one number becomes a pair, one name a tuple of it."""
    if isinstance(hint, types.UnionType):
        (inner,) = (h for h in typing.get_args(hint) if h is not type(None))
        return None if value is None else convert(name, value, inner)
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint == NAMES:
        value = (value,) if isinstance(value, str) else value
        if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
            return tuple(value)
    elif origin is tuple:
        value = (value,) * len(arguments) if isinstance(value, int) else value
        if isinstance(value, (list, tuple)) and len(value) == len(arguments):
            return tuple(convert(name, v, h) for v, h in zip(value, arguments, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {str(k): convert(f"{name}[{k}]", v, arguments[1]) for k, v in value.items()}
    elif isinstance(value, origin) and not (origin is int and isinstance(value, bool)):
        return value
    raise ValueError(
        f"Invalid value for hyperparameter `{name}`. Expected {type_name(hint)}. Received: {value!r} "
        f"of type {type(value).__name__}."
    )


def parse(name, text, hint):
    """The value of a hyperparameter written on the command line, e.g. `photo=image,title=text` for a mapping.

    Raises:
        ValueError: if the text is no value of the type.
    """
    if isinstance(hint, types.UnionType):
        (inner,) = (h for h in typing.get_args(hint) if h is not type(None))
        return None if text.lower() in ("none", "") else parse(name, text, inner)
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    try:
        if origin is bool:
            return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[text.lower()]
        if hint == NAMES:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if origin is tuple:
            parts = text.replace("x", ",").split(",")
            return convert(name, [int(p) for p in parts] if len(parts) > 1 else int(text), hint)
        if origin is dict:
            pairs = [part.split("=", 1) for part in text.split(",") if part]
            return {key.strip(): parse(name, value.strip(), arguments[1]) for key, value in pairs}
        return origin(text)
    except (ValueError, KeyError):
        raise ValueError(
            f"Invalid value for option --{name.replace('_', '-')}. Expected {type_name(hint)}. Received: {text!r}."
        ) from None


def type_name(hint):
    """How a type is called in messages and tables."""
    if isinstance(hint, types.UnionType):
        return " or ".join("nothing" if h is type(None) else type_name(h) for h in typing.get_args(hint))
    origin = typing.get_origin(hint) or hint
    if hint == NAMES:
        return "names separated by commas"
    if origin is tuple:
        return " x ".join(h.__name__ for h in typing.get_args(hint))
    if origin is dict:
        return "a mapping name=" + typing.get_args(hint)[1].__name__
    return {bool: "true or false", int: "an integer", float: "a number", str: "a text"}[origin]


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
