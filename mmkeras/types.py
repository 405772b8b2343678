"""Names that stand in annotations."""

from typing import Any, TypeAlias

# An array or a tensor of any backend, symbolic or not: these have no type in common that a checker knows.
Tensor: TypeAlias = Any
