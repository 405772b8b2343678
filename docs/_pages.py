"""The pages of the reference, a package each, of the names in its `__all__`: made whenever the site is built."""

import importlib
import pathlib

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ["zoo", *sorted(f"mmkeras.{path.parent.name}" for path in ROOT.glob("mmkeras/*/__init__.py"))]
OF_A_PACKAGE = "{members: false, show_root_heading: false, show_root_toc_entry: false}"  # its docstring alone


def on_files(files, config):
    for package in PACKAGES:
        files.append(File.generated(config, f"api/{package}.md", content=page(package)))
    return files


def page(package):
    """What a package is, then its public names, each by the path where it is written: some are imported late."""
    module = importlib.import_module(package)
    parts = [f"# {package}", f"::: {package}\n    options: {OF_A_PACKAGE}"]
    for name in module.__all__:
        thing = getattr(module, name)
        parts.append(f"::: {thing.__module__ if callable(thing) else package}.{name}")
    return "\n\n".join(parts) + "\n"
