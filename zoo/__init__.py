"""The zoo: multi-input Keras models by name.

>>> import zoo
>>> model = zoo.build("autoencoder", preset="tiny")
>>> sorted(model.input)
['image', 'presence', 'text']
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from zoo._registry import build, describe, names, preprocessor

if TYPE_CHECKING:  # what `__getattr__` gives, for type checkers
    from zoo._run import Run, load
    from zoo._train import train

__all__ = ["Run", "build", "describe", "load", "names", "preprocessor", "train"]

_LATE = {"Run": "_run", "load": "_run", "train": "_train"}  # they need TensorFlow, which `zoo --help` does not wait for

if "keras" in sys.modules:  # nor for Keras
    from zoo import _classes  # noqa: F401  # so that `keras.saving.load_model` knows the classes


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(f"zoo.{_LATE[name]}"), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}. It has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
