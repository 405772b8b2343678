"""The zoo: multi-input Keras models by name.

>>> import zoo
>>> model = zoo.build("autoencoder", preset="tiny")
>>> sorted(model.input)
['image', 'presence', 'text']
"""

import os
import sys
from typing import TYPE_CHECKING, Any

from zoo._registry import build, describe, names, preprocessor

if TYPE_CHECKING:
    from zoo._run import Run

__all__ = ["build", "describe", "load", "names", "preprocessor", "train"]


if "keras" in sys.modules:  # `zoo --help` does not wait for Keras
    from zoo import _classes  # noqa: F401  # so that `keras.saving.load_model` knows the classes


def train(name: str, data: str | os.PathLike[str] | None = None, **options: Any) -> "Run":
    """Trains a model and returns its Run, see `zoo._train.train`."""
    from zoo import _train  # late: it needs TensorFlow, which `zoo --help` does not wait for

    return _train.train(name, data, **options)


def load(path: str | os.PathLike[str], **hyperparameters: Any) -> "Run":
    """The Run in a folder, see `zoo._run.load`."""
    from zoo import _run

    return _run.load(path, **hyperparameters)
