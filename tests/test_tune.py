"""The search for hyperparameters: what is searched, that the best is kept, and that it goes on where it stopped."""

import csv
import pathlib
import re
import sys
import types

import pytest

import zoo
from zoo import _registry, _tune
from zoo._cli import main
from zoo.vqa import REASONING

SEARCHED = {
    "fusion_classifier": {"image_encoder", "text_encoder", "fusion", "image_width", "text_width", "learning_rate",
                          "dropout"},
    "few_shot": {"image_encoder", "image_width", "learning_rate", "dropout"},
}  # fmt: skip


@pytest.mark.parametrize("name", SEARCHED)
def test_what_the_model_uses_is_searched(name):
    space = _tune._space(name, None, {"preset": "tiny"})
    assert set(space) == SEARCHED[name]
    assert "dropout" not in _tune._space(name, None, {"dropout": 0.2})  # fixed
    for key, values in space.items():  # and every value is one that the model takes
        for value in values:
            _registry.configure(name, "tiny", **{key: value})


def test_what_cannot_be_searched_is_said_with_what_can():
    with pytest.raises(ValueError, match="`epochs` of `tagger` cannot be searched. What can: .*image_encoder"):
        _tune._space("tagger", ["epochs"], {})
    assert _tune._space("vqa", ["reasoning"], {}) == {"reasoning": REASONING}


def test_what_a_model_refuses_is_not_searched(tmp_path):
    space = _tune._space("masked_autoencoder", None, {"preset": "tiny"})
    assert space
    assert not {"image_encoder", "text_encoder"} & set(space)
    with pytest.raises(ValueError, match="`conditional_gan` has no one validation loss"):
        _tune.tune("conditional_gan", "scenes:32", out=tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


@pytest.fixture
def planted(monkeypatch):
    """Trainings that take no time; their loss is smallest for the mixer with a dropout of 0.1."""
    trained = []

    def train(name, data, out, overwrite, seed, verbose, **options):
        trained.append(options)
        if options["image_encoder"] == "vit":
            raise ValueError("Expected another encoder.")
        loss = 1 + (options["image_encoder"] != "mixer") + abs(options["dropout"] - 0.1) + len(trained) / 1e4
        pathlib.Path(out).mkdir(parents=True)
        (out / "config.json").write_text(str(len(trained)))
        (out / "history.csv").write_text(f"epoch,val_loss\n1,9\n2,{loss}\n")
        return types.SimpleNamespace(model=types.SimpleNamespace(count_params=lambda: 100 + len(trained)))

    monkeypatch.setattr(_tune._train, "train", train)
    monkeypatch.setattr("zoo._run.load", lambda path: path)
    return trained


def test_the_best_is_kept_and_the_search_goes_on(planted, tmp_path, capsys):
    given = {"out": tmp_path, "search": ["image_encoder", "dropout"], "epochs": 2}
    rows, best = _tune.tune("tagger", "scenes", trials=5, **given)
    assert (len(rows), len(planted)) == (5, 5)
    rows, best = _tune.tune("tagger", "scenes", trials=25, **given)
    assert (len(rows), len(planted)) == (25, 25)  # the five are not trained again
    assert all(options["epochs"] == 2 for options in planted)
    assert (rows[0]["image_encoder"], rows[0]["dropout"]) == ("mixer", 0.1)
    assert rows[0]["parameters"] == 100 + rows[0]["trial"]
    losses = [row["val_loss"] for row in rows if row["val_loss"] is not None]
    assert losses == sorted(losses)
    assert best == tmp_path / "best"
    assert (best / "config.json").read_text() == str(rows[0]["trial"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "journal.log", "trials.csv"]
    with open(tmp_path / "trials.csv") as file:
        assert [int(row["trial"]) for row in csv.DictReader(file)] == [row["trial"] for row in rows]
    said = capsys.readouterr().out
    failed = [row for row in rows if row["val_loss"] is None]
    assert {row["image_encoder"] for row in failed} == {"vit"}
    assert said.count("failed: Expected another encoder.") == len(failed)


def test_where_every_trial_fails_nothing_is_called_best(planted, tmp_path):
    with pytest.raises(ValueError, match="None of 2 trials came to an end"):
        _tune.tune("tagger", "scenes", out=tmp_path, trials=2, search=["dropout"], image_encoder="vit", verbose=0)


@pytest.mark.long
def test_the_command_tunes_and_prints_a_table(tmp_path, capsys):
    options = ["--preset", "tiny", "--epochs", "1", "--trials", "2", "--search", "fusion"]
    options += ["--modalities", "vector=vector"]  # the quickest to train
    assert main(["tune", "fusion_classifier", "--data", "scenes:64", "--out", str(tmp_path / "t"), *options]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[:2]] == ["trial 1", "trial 2"]
    assert said[2] == "| trial | val_loss | parameters | minutes | fusion |"
    assert said[-1] == f"The best run lies in {tmp_path / 't' / 'best'}."
    run = zoo.load(tmp_path / "t" / "best")
    assert run.config.fusion == said[4].split("|")[5].strip()
    assert run.evaluate("test")["vector"]["accuracy"] >= 0  # its data are found from where it lies now


def test_a_search_goes_on_with_what_it_was_begun_with(planted, tmp_path):
    given = {"out": tmp_path, "search": ["image_encoder", "dropout"], "trials": 3, "verbose": 0}
    _tune.tune("tagger", "scenes", **given)
    for changed, message in (
        ({"data": "shoes"}, "begun with the data scenes. Received: shoes. Give another --out"),
        ({"seed": 1}, "begun with the seed 0. Received: 1"),
        ({"epochs": 3}, "begun with the options {}. Received: {'epochs': 3}"),
        ({"search": ["image_encoder", "text_encoder", "dropout"]}, "begun with the space"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            _tune.tune("tagger", **{"data": "scenes", **given, **changed})
    assert len(planted) == 3
    (tmp_path / "best").rename(tmp_path / "best-before")  # killed between the two steps
    assert _tune.tune("tagger", "scenes", **given)[1] == tmp_path / "best"
    assert (tmp_path / "best" / "config.json").exists()


def test_a_search_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Nothing is left to search: all of it is given. Received: dropout"):
        _tune.tune("tagger", "scenes", out=tmp_path, search=["dropout"], dropout=0.1)


def test_without_optuna_a_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "tagger", "--data", "scenes:32"]) == 2
    assert capsys.readouterr().err == 'zoo: error: zoo tune needs the extra `tune`: pip install "mmkeras[tune]".\n'
