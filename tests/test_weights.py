"""Weights that come with the zoo, and model cards."""

import json
import pathlib
import types

import numpy as np
import pytest
from PIL import Image

import zoo
from mmkeras import data
from zoo import _cli, _weights
from zoo._card import _limits, write_card


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    options = {"preset": "tiny", "epochs": 1, "out": tmp_path_factory.mktemp("card") / "run", "verbose": 0}
    return zoo.train("fusion_classifier", "scenes:80", modality_dropout=0.2, **options)


def test_a_card_says_what_a_run_is(run, capsys):
    assert _cli.main(["card", str(run.path), "--licence", "CC0"]) == 0
    assert capsys.readouterr().out.strip() == str(run.path / "README.md")
    card = (run.path / "README.md").read_text()
    report = json.loads((run.path / "metrics/test.json").read_text())
    assert card.startswith("# fusion_classifier, trained on scenes:80\n\n")
    for title, numbers in report.items():
        assert f"| {title} | accuracy {numbers['accuracy']:.3f}" in card
    assert {"image", "text", "image and text"} <= set(report)  # by subset of the modalities
    assert "rows: train 80, validation 10, test 10." in card
    assert "`label`, 6 of them: circle, cross, diamond, ring, square, triangle." in card
    assert "`image` is looked at in 16 x 16 pixels" in card
    assert "A modality may be left out; 20% of each were, in training." in card
    assert card.rstrip().endswith("## Licence\n\nCC0")
    for line in card.splitlines():
        if line.startswith("!["):
            assert (run.path / line.partition("(")[2].rstrip(")")).exists()
    assert card.count("![") == len(list((run.path / "figures").glob("*.png"))) > 0


@pytest.mark.parametrize(
    ("name", "labels", "said"), [("label", "one", "always"), ("label", "many", "alone"), ("tags", "one", "alone")]
)
def test_the_card_says_how_many_labels_are_given(name, labels, said):
    config = types.SimpleNamespace(modalities={}, labels=labels)
    signatures = {"serving_default": types.SimpleNamespace(inputs={})}
    run = types.SimpleNamespace(config=config, label_names=[name], signatures=signatures, saved={"data": "scenes"})
    line = next(line for line in _limits(run).splitlines() if f"`{name}`" in line)
    assert ("one of those listed above is always given" in line) == (said == "always")
    assert ("any number of them, or none" in line) == (said == "alone")


def test_the_card_says_how_to_use_it(run, monkeypatch, tmp_path):
    code = write_card(run, tmp_path / "card.md").read_text().partition("```python\n")[2].partition("```")[0]
    Image.new("RGB", (16, 16)).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace(run.path.as_posix(), str(run.path)), names)
    assert names["run"].name == "fusion_classifier"
    assert list((tmp_path / "servables/fusion_classifier").iterdir())


def test_without_a_licence_the_card_says_that_it_is_not_known(run, tmp_path):
    assert "## Licence\n\nNot stated." in write_card(run, tmp_path / "card.md").read_text()


def test_weights_that_do_not_exist_are_told(capsys):
    assert _cli.main(["predict", "captoiner:scenes", "image=x.png"]) == 2
    assert "There are no weights `captoiner:scenes`. Did you mean `captioner:scenes`?" in capsys.readouterr().err
    with pytest.raises(ValueError, match="have hyperparameters of their own: leave out what was given, epochs"):
        zoo.build("captioner", weights="scenes", epochs=3)
    with pytest.raises(ValueError, match="leave out what was given, preset='tiny'"):
        zoo.build("captioner", weights="scenes", preset="tiny")


@pytest.mark.long
def test_a_run_that_is_taken_in_answers_by_name_and_one_too_large_costs_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(_weights, "FOLDER", tmp_path)
    folder = _weights.take_in(run.path, "CC0")
    assert folder == tmp_path / "scenes/fusion_classifier"
    assert _weights.names() == ["fusion_classifier:scenes"]
    shipped, rows = zoo.load("fusion_classifier:scenes"), data.scenes(80).test
    given = {name: rows.cells(name) for name in ("image", "text")}
    answers = [one.predict(**given)["probabilities"] for one in (shipped, run)]
    np.testing.assert_allclose(*answers, atol=2e-3)  # of weights that were rounded to half precision
    for weight in shipped.model.get_weights():
        np.testing.assert_array_equal(weight, weight.astype("float16"))
    card = (folder / "README.md").read_text()
    assert 'run = zoo.load("fusion_classifier:scenes")' in card
    assert all((folder / line.partition("(")[2].rstrip(")")).exists() for line in card.splitlines() if line[:2] == "![")
    assert size_of(folder) < size_of(run.path)
    assert (folder / "model.keras").stat().st_size < (run.path / "model.keras").stat().st_size / 2
    monkeypatch.setattr(_weights, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="Expected at most 1,000 bytes"):
        _weights.take_in(run.path)
    assert (folder / "README.md").read_text() == card
    assert [path.name for path in folder.parent.iterdir()] == ["fusion_classifier"]


def test_all_weights_together_are_small():
    sizes = {name: size_of(_weights.folder_of(name)) for name in _weights.names()}
    models = ("autoencoder", "captioner", "conditional_gan", "dual_encoder", "fusion_classifier", "vqa")
    assert {f"{model}:scenes" for model in models} <= sizes.keys()
    assert max(sizes.values()) < 2e6
    assert sum(sizes.values()) < 1e7


def size_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.long
@pytest.mark.parametrize("name", _weights.names())
def test_weights_reach_what_their_card_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # metrics are written into runs/
    folder = _weights.folder_of(name)
    shipped = zoo.load(name)
    expected = json.loads((folder / "metrics/test.json").read_text())
    options = {"fusion_classifier:scenes": {"subsets": True}}
    if name == "conditional_gan:scenes":
        options[name] = {"retriever": zoo.load("dual_encoder:scenes")}
    found = shipped.evaluate("test", **options.get(name, {}))
    assert found.keys() == expected.keys()
    for title, numbers in expected.items():
        for metric, value in numbers.items():
            assert found[title][metric] == pytest.approx(value, rel=0.02, abs=0.02), (title, metric)
    card = (folder / "README.md").read_text()
    assert all(f"| {title} | " in card for title in expected)
    assert not (folder / "history.csv").exists()
    assert (tmp_path / "runs" / name.replace(":", "-") / "metrics/test.json").exists()


def test_weights_are_indexed_and_looked_at_as_runs_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = zoo.load("dual_encoder:scenes")
    count, _ = run.index("gallery", "scenes:80")
    assert len(run.search("a red circle", "gallery", k=100)[0]) == count == 10
    measured, _ = zoo.load("fusion_classifier:scenes").examine()
    assert measured["accuracy"]


def test_pixels_are_embedded_as_the_files_they_are_of():
    run, rows = zoo.load("dual_encoder:scenes"), data.scenes(2400).test  # more than are embedded at once
    pixels = np.stack(run.pictures("image", rows, np.arange(len(rows))))
    assert len(pixels) > 256
    np.testing.assert_allclose(run.embed_pixels("image", pixels), run.embed("image", rows), atol=1e-5)


@pytest.mark.parametrize("name", _weights.names())
def test_weights_are_built_by_name_and_answer_offline(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, _, weights = name.partition(":")
    built, loaded = zoo.build(model, weights=weights), zoo.load(name)
    for one, other in zip(built.get_weights(), loaded.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    reader = zoo.preprocessor(model, weights=weights)
    assert reader.input_names == loaded.preprocessor.input_names
    row = data.scenes(8).test
    pathlib.Path("picture.png").write_bytes(row.cells("image")[0])
    given = {"image": "picture.png", "text": row.cells("text")[0], "question": row.cells("question")[0]}
    asked = loaded.signatures["serving_default"].inputs
    assert _cli.main(["predict", name, *(f"{key}={given[key]}" for key in asked)]) == 0
    assert json.loads(capsys.readouterr().out)
