"""Public names have docstrings, of exactly their arguments, whose examples run; the reference has every package."""

import doctest
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from keras import ops

import mmkeras

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ["zoo", *sorted(f"mmkeras.{path.parent.name}" for path in ROOT.glob("mmkeras/*/__init__.py"))]
STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def public(package):
    """(path, object) of a package's public functions and classes, and of the methods that these have from us."""
    module = importlib.import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        if callable(thing):  # the others are tables and numbers
            yield f"{package}.{name}", thing
        if inspect.isclass(thing):
            yield from ((f"{package}.{name}.{method}", value) for method, value in methods(thing))


def methods(cls):
    """The public methods and properties that are ours; what a class does anew of Keras' own is described there."""
    ours = [base for base in cls.__mro__ if base.__module__.partition(".")[0] in ("mmkeras", "zoo", __name__)]
    theirs = {name for base in cls.__mro__ if base not in ours for name in dir(base)}
    for base in ours:
        for name, value in vars(base).items():
            method = inspect.isroutine(value) or isinstance(value, property)
            if method and not name.startswith("_") and name not in theirs:
                yield name, getattr(base, name)


def docstring(thing):
    """The docstring; of a class its own, neither its base's nor the line that `dataclass` writes."""
    if not inspect.isclass(thing):
        return inspect.getdoc(thing) or ""
    own = inspect.cleandoc(vars(thing).get("__doc__") or "")
    return "" if own.startswith(f"{thing.__name__}(") else own


def documented(text):
    """The names under `Args:`, those of `a, b: what they are` one by one; None without such a section."""
    section = re.search(r"^Args:\n((?: .*\n|\n)+)", text + "\n", re.MULTILINE)
    return section and ", ".join(re.findall(r"^ {4}(\S[^:]*):", section[1], re.MULTILINE)).split(", ")


def arguments(thing):
    """The names in a signature, of a class in its constructor's."""
    parameters = inspect.signature(thing.__init__ if inspect.isclass(thing) else thing).parameters.values()
    return [STARS.get(p.kind, "") + p.name for p in parameters if p.name != "self"]


def fault(thing):
    """What is wrong with a docstring, or None. Its `**options` may go without saying."""
    text = docstring(thing)
    if not text:
        return "no docstring"
    said = documented(text)
    if said is None:
        return None
    taken = arguments(thing)
    if sorted(said) != sorted(name for name in taken if not name.startswith("**") or name in said):
        return f"Args: {', '.join(said)}; signature: {', '.join(taken)}"
    return None


def test_every_package_is_reached_from_the_library():
    assert sorted(f"mmkeras.{name}" for name in mmkeras.__all__) == PACKAGES[1:]
    assert all(inspect.ismodule(getattr(mmkeras, name)) for name in mmkeras.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_name_the_arguments(package):
    faults = {path: fault(thing) for path, thing in public(package)}
    assert faults
    assert not {path: said for path, said in faults.items() if said}


def examples():
    """The modules whose docstrings hold examples."""
    for path in sorted([*ROOT.glob("mmkeras/**/*.py"), *ROOT.glob("zoo/**/*.py")]):
        if re.search(r"^ *>>> ", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", examples())
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    imported = {"keras": keras, "np": np, "ops": ops, "tf": tf}  # what the examples take for granted
    result = doctest.testmod(importlib.import_module(name), extraglobs=imported, optionflags=flags)
    assert result.attempted > 0
    assert result.failed == 0


def pages(nav):
    """The files that a `nav` of mkdocs names."""
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from pages(value) if isinstance(value, list) else [value]


def test_the_reference_has_a_page_for_every_package():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(pages(nav)) == sorted(["index.md", *(f"api/{package}.md" for package in PACKAGES)])


@pytest.mark.slow
def test_the_reference_is_built_without_warnings_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocstrings_handlers.python", reason='needs `pip install -e ".[docs]"`')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fetched = re.compile(
        r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"'](?:https?:)?//|(?:url\(|@import)[\"' ]*https?:"
    )
    read = [path for path in tmp_path.rglob("*") if path.suffix in (".html", ".css")]
    assert len(read) > len(PACKAGES)
    assert not [path for path in read if fetched.search(path.read_text(encoding="utf-8"))]


def test_the_rules_catch_what_they_are_for():
    class Undocumented:
        def told(self, a, b, *, c=0, **options):
            """Says nothing of c.

            Args:
                a, b: numbers.
            """

        def untold(self):
            pass

    assert fault(Undocumented) == fault(Undocumented.untold) == "no docstring"
    assert fault(Undocumented.told) == "Args: a, b; signature: a, b, c, **options"
    assert [name for name, _ in methods(Undocumented)] == ["told", "untold"]
    Undocumented.told.__doc__ = "All of them.\n\nArgs:\n    a, b: numbers,\n        such as: these.\n    c: another.\n"
    assert fault(Undocumented.told) is None
    Undocumented.told.__doc__ += "    d: unknown.\n"
    assert "a, b, c, d;" in fault(Undocumented.told)
