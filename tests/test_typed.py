"""What a user calls has annotations, which a type checker finds to be right, and which it sees from outside."""

import functools
import importlib
import inspect
import pathlib
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
UNTYPED = {"mmkeras.fusion", "mmkeras.layers"}  # Keras' layers have no annotations either
PACKAGES = sorted({f"mmkeras.{path.parent.name}" for path in ROOT.glob("mmkeras/*/__init__.py")} - UNTYPED)
SPECIAL = ("__init__", "__call__", "__enter__", "__exit__", "__len__", "__truediv__")


def test_the_packages_say_that_they_are_typed():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    for package in ("mmkeras", "zoo"):
        assert "py.typed" in data[package]
        assert (ROOT / package / "py.typed").is_file()


def public(package):
    """(path, function) of what a user calls: functions, and of classes constructors, methods and properties."""
    module = importlib.import_module(package)
    things = {name: getattr(module, name) for name in module.__all__}
    for name, thing in things.items():
        if inspect.isclass(thing):
            yield from ((f"{package}.{name}.{method}", function) for method, function in methods(thing))
        elif callable(thing):
            yield f"{package}.{name}", thing


def methods(cls):
    """The constructor, the public methods and the properties that are ours; what Keras calls is left to it."""
    ours = [base for base in cls.__mro__ if base.__module__.partition(".")[0] in ("mmkeras", "zoo", __name__)]
    theirs = {name for base in cls.__mro__ if base not in ours and base is not object for name in vars(base)}
    for base in ours:
        for name, value in vars(base).items():
            if isinstance(value, (classmethod, staticmethod)):
                value = value.__func__
            elif isinstance(value, property):
                value = value.fget
            elif isinstance(value, functools.cached_property):
                value = value.func
            is_public = name == "__init__" or (name not in theirs and (name in SPECIAL or not name.startswith("_")))
            if is_public and inspect.isfunction(value):
                yield name, value


def missing(function):
    """The arguments without an annotation, and `return` if that has none; as they are written, not evaluated."""
    signature = inspect.signature(function)
    names = [n for n, p in signature.parameters.items() if p.annotation is p.empty and n not in ("self", "cls")]
    return names + ["return"] * (signature.return_annotation is signature.empty)


@pytest.mark.parametrize("package", ["zoo", *PACKAGES])
def test_what_a_user_calls_has_annotations(package):
    found = {path: missing(function) for path, function in public(package)}
    assert found
    assert not {path: names for path, names in found.items() if names}


def mypy(*options):
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-pretty", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_mypy_finds_nothing():
    done = mypy()
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_finds_the_mistakes_of_a_user(tmp_path):
    """What is imported late, too: it would pass as anything if mypy did not see it."""
    file = tmp_path / "user.py"
    file.write_text(
        "from typing import assert_type\n"
        "import mmkeras, zoo\n"
        "assert_type(zoo.load('runs/shop'), zoo.Run)\n"
        "assert_type(mmkeras.data.open('scenes').train, mmkeras.data.Split)\n"
        "zoo.describe(7)\n"
        "mmkeras.training.make_optimizer('adamx', 0.1)\n"
    )
    done = mypy(str(file))
    # By its name: from its cache mypy may tell them of the same file of an earlier run, in another folder.
    lines = [pathlib.Path(line.partition(": error: ")[0]).name for line in done.stdout.splitlines()]
    assert lines == ["user.py:5", "user.py:6"], done.stdout + done.stderr


def test_the_rules_catch_what_they_are_for():
    class Untyped:
        def __init__(self, a, b: int = 0) -> None:
            pass

        @property
        def size(self):
            """Of nothing."""

        @functools.cached_property
        def table(self):
            """Of nothing."""

        def _own(self, c):
            pass

    assert {name: missing(function) for name, function in methods(Untyped)} == {
        "__init__": ["a"], "size": ["return"], "table": ["return"],
    }  # fmt: skip
