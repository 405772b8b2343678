"""A run on disk."""

from mmkeras.runs.folder import RunFolder
from mmkeras.runs.replace import replaced, write_json

__all__ = ["RunFolder", "replaced", "write_json"]
