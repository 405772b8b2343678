"""Folders that are registries: every file whose name does not begin with an underscore, by its name."""

import importlib
import pathlib

from zoo._config import did_you_mean


def names_in(file):
    """Names of the modules beside a package's `__init__.py`."""
    return sorted(p.stem for p in pathlib.Path(file).parent.glob("*.py") if not p.stem.startswith("_"))


def module_of(package, names, name, kind, there="There is"):
    """The module of a name.

    Args:
        package: that it belongs to.
        names: of all its modules.
        name: which is wanted.
        kind, there: words of the error: "Unknown `kind`. … `there`: …".

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in names:
        raise ValueError(f"Unknown {kind} `{name}`.{did_you_mean(name, names)} {there}: {', '.join(names)}.")
    return importlib.import_module(f"{package}.{name}")
