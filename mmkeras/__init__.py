"""Parts of multi-input models: losses, metrics, layers, encoders, decoders, fusion, data, training, export, serving.

The packages are imported when they are first used, so that `import mmkeras` costs nothing:

>>> import mmkeras
>>> layer = mmkeras.fusion.Concat(width=8)
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_PACKAGES = (
    "losses", "metrics", "layers", "encoders", "decoders", "fusion", "data", "runs", "plots", "training", "diagnosis",
    "export", "serving",
)  # fmt: skip
__all__ = list(_PACKAGES)

if TYPE_CHECKING:  # what `__getattr__` gives, for type checkers
    from mmkeras import (  # noqa: F401
        data,
        decoders,
        diagnosis,
        encoders,
        export,
        fusion,
        layers,
        losses,
        metrics,
        plots,
        runs,
        serving,
        training,
    )


def __getattr__(name: str) -> ModuleType:
    if name in _PACKAGES:
        return importlib.import_module(f"mmkeras.{name}")
    raise AttributeError(f"module 'mmkeras' has no attribute {name!r}. It has: {', '.join(_PACKAGES)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PACKAGES])
