"""A run on disk."""

from mmkeras.runs.folder import RunFolder
from mmkeras.runs.replace import remove_beside, replaced, write_json

__all__ = ["RunFolder", "remove_beside", "replaced", "write_json"]
