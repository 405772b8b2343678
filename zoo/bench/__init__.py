"""Benchmarks by name: every file of this folder. `zoo bench NAME` runs one."""

import json
import pathlib

from zoo._folder import module_of, names_in


def names():
    """Names of all benchmarks."""
    return names_in(__file__)


def module(name):
    """The module of a benchmark: `NAMES` of what it measures, and `run(out, names, seed)`, the text that is printed.

    Raises:
        ValueError: if there is no such benchmark.
    """
    return module_of(__name__, names(), name, "benchmark")


def measured(path, names, measure, **settings):
    """What `measure(name)` finds for each name, `{name: found}`.

    It is kept in the JSON file `path`: asked again, only what is missing there is measured.

    Args:
        path, names, measure: these.
        **settings: such as a seed, of which all that the file keeps has to be.

    Raises:
        ValueError: if the file keeps what was measured with other settings.
    """
    from mmkeras.runs import write_json  # late: `zoo --help` asks this package for its names

    path = pathlib.Path(path)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept = found.pop("settings", settings)
    if kept != settings:
        raise ValueError(f"{path} keeps what was measured with {kept}, not with {settings}. Give another --out.")
    for name in names:
        if name not in found:
            found[name] = measure(name)
            write_json(path, {"settings": settings, **found} if settings else found)
    return found
