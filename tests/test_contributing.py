"""The example of CONTRIBUTING.md, a model in one file, does what the page says of it."""

import csv
import importlib.util
import pathlib
import re
import sys

import numpy as np
import pytest

import zoo
from mmkeras import data, export
from zoo import _registry

PAGE = pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture
def regressor(tmp_path, monkeypatch):
    """The zoo with the page's model in it."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "regressor.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("zoo.regressor", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "zoo.regressor", module)
    spec.loader.exec_module(module)
    names = [*zoo.names(), "regressor"]
    monkeypatch.setattr(_registry, "names", lambda: names)
    return module


@pytest.mark.long
def test_the_example_is_trained_evaluated_and_exported(regressor, tmp_path):
    split, rows = data.open("scenes:160").train, [["photo", "title", "price"]]
    for i, (picture, text) in enumerate(zip(split.cells("image"), split.cells("text"), strict=True)):
        (tmp_path / f"{i}.png").write_bytes(picture)
        rows.append([f"{i}.png", text, 2.0 + 5.0 * ("large" in text)])
    with (tmp_path / "items.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    columns = {"photo": "image", "title": "text", "number": "price"}
    options = {"preset": "tiny", "text_encoder": "bag", "epochs": 12, "verbose": 0}
    run = zoo.train("regressor", tmp_path / "items.csv", out=tmp_path / "run", columns=columns, **options)
    report = run.evaluate("test")["all"]
    assert report["mae"] < 0.5 * report["mae_of_mean"]
    path = run.export(tmp_path / "servables")
    asked = {"serving_default": {"photo": [split.cells("image")[0]] * 2, "title": ["a large cross", "a small cross"]}}
    with export.own_process() as ask:
        (answer,) = ask(path, asked)
    large, small = answer["serving_default"]["number"]
    assert large > small + 2
    own = zoo.load(tmp_path / "run").predict(**asked["serving_default"])["number"]
    np.testing.assert_allclose(answer["serving_default"]["number"], own, atol=1e-4)
    assert zoo.describe("regressor").startswith("regressor: Regression: any modalities to one number.")
