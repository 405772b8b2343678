"""What a figure is worth: equal runs give equal ones, labels that mean nothing give chance, and leaks are told."""

import numpy as np
import pytest

import zoo
from mmkeras import data
from zoo import _cli, _pack

OPTIONS = {"preset": "tiny", "text_encoder": "bag", "epochs": 4, "verbose": 0, "deterministic": True}


@pytest.fixture(scope="module")
def source():
    return data.open("scenes:600")


def reached(source, folder, seed=0):
    """Metrics of a classifier's test split."""
    packed = folder / "data"
    if not packed.exists():
        _pack.pack(source, packed, tell=lambda line: None)
    return zoo.train("fusion_classifier", str(packed), out=folder / f"run-{seed}", seed=seed, **OPTIONS).evaluate(
        "test"
    )


@pytest.fixture(scope="module")
def first(source, tmp_path_factory):
    return reached(source, tmp_path_factory.mktemp("first"))


@pytest.mark.long
def test_two_runs_of_one_seed_give_equal_metrics(source, first, tmp_path):
    assert reached(source, tmp_path) == first
    assert reached(source, tmp_path, seed=1) != first


@pytest.mark.long
def test_labels_that_were_permuted_give_chance(source, first, tmp_path):
    splits = {}
    for number, (name, split) in enumerate(source.splits.items()):
        labels = np.random.default_rng(number).permutation(split.cells("label")).tolist()
        splits[name] = split.replace({"label": labels}, {"label": "label"})
    found = reached(data.Source("permuted", splits, source.rule), tmp_path)
    chance = found["majority label"]["accuracy"]
    deviation = np.sqrt(chance * (1 - chance) / len(source.test))
    assert found["image and text"]["accuracy"] < chance + 3 * deviation
    assert first["image and text"]["accuracy"] > chance + 10 * deviation


def test_a_training_row_in_the_test_split_is_told(source, tmp_path, capsys):
    leaking = source.test.append(source.train.take([17]))
    splits = {**source.splits, "test": leaking.take(np.arange(len(leaking)), "test")}
    _pack.pack(data.Source("leaking", splits, source.rule), tmp_path / "leaking", tell=lambda line: None)
    _pack.pack(source, tmp_path / "clean", tell=lambda line: None)
    said = {}
    for name in ("leaking", "clean"):
        _cli.main(["data", "check", str(tmp_path / name)])
        said[name] = capsys.readouterr().out
    assert "in the training split as well, or nearly so, such as test.jsonl, row 76, which is train" in said["leaking"]
    assert "as well" not in said["clean"]
