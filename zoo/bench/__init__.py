"""Benchmarks by name: every file of this folder. `zoo bench NAME` runs one."""

import importlib
import pathlib

from zoo._config import did_you_mean


def names():
    """Names of all benchmarks."""
    return sorted(p.stem for p in pathlib.Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def module(name):
    """The module of a benchmark: its `run(out, models, seed)` gives the text that is printed.

    Raises:
        ValueError: if there is no such benchmark.
    """
    if name not in names():
        raise ValueError(f"Unknown benchmark `{name}`.{did_you_mean(name, names())} There is: {', '.join(names())}.")
    return importlib.import_module(f"zoo.bench.{name}")
