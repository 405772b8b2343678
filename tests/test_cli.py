"""The command: what it prints, what it refuses, and that no mistake ends in a traceback."""

import json
import shutil
import subprocess
import sys
import time
import types
import zipfile

import numpy as np
import pytest
from PIL import Image

from zoo import _cli, _gallery, _run_commands


def run(capsys, *arguments):
    """Exit code, output and errors of one command."""
    code = _cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def shoes(tmp_path_factory):
    """A CSV of the user's own, with columns of other names, a missing text and a missing picture."""
    folder = tmp_path_factory.mktemp("shoes")
    lines = ["photo,title,kind"]
    for i in range(60):
        color = ("red", "green", "blue")[i % 3]
        Image.new("RGB", (20, 14), color).save(folder / f"{i}.png")
        photo, title = ("" if i == 7 else f"{i}.png"), ("" if i == 8 else f"{color} shoe")
        lines.append(f"{photo},{title},{color}")
    (folder / "shoes.csv").write_text("\n".join(lines))
    return folder / "shoes.csv"


@pytest.fixture(scope="module")
def searchable(shoes, tmp_path_factory):
    """A trained dual encoder over the shoes."""
    out = tmp_path_factory.mktemp("runs") / "search"
    code = _cli.main(["train", "dual_encoder", "--preset", "tiny", "--data", str(shoes), "--columns",
                      "photo=image,title=text", "--out", str(out), "--epochs", "12", "--quiet"])  # fmt: skip
    assert code == 0
    return out


def test_train_evaluate_predict_export_a_classifier(capsys, shoes, tmp_path):
    out = tmp_path / "run"
    columns = "photo=image,title=text,kind=label"
    code, *_ = run(capsys, "train", "fusion_classifier", "--preset", "tiny", "--data", str(shoes), "--columns", columns,
                   "--out", str(out), "--epochs", "15", "--quiet")  # fmt: skip
    assert code == 0
    config = json.loads((out / "config.json").read_text())
    assert config["hyperparameters"]["modalities"] == {"photo": "image", "title": "text"}
    assert config["hyperparameters"]["num_classes"] == 3
    assert str(tmp_path) not in (out / "config.json").read_text()

    code, said, _ = run(capsys, "evaluate", str(out), "--subsets")
    assert code == 0
    accuracy = {}
    for line in said.splitlines()[:-1]:
        title, _, numbers = line.partition("accuracy")
        accuracy[title.strip()] = float(numbers.split()[0])
    assert set(accuracy) == {"photo and title", "photo", "title", "majority label"}
    assert accuracy["photo and title"] >= accuracy["majority label"] + 0.3

    code, said, _ = run(capsys, "predict", str(out), "title=blue shoe")
    assert code == 0
    answer = json.loads(said)
    assert set(answer["probabilities"]) == {"red", "green", "blue"}
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)

    code, said, _ = run(capsys, "export", str(out), "--to", str(tmp_path / "servables"))
    assert code == 0
    assert (tmp_path / "servables/fusion_classifier/1/saved_model.pb").exists()
    code, _, said = run(capsys, "export", str(out), "--to", str(tmp_path / "servables"), "--name", "../up")
    assert (code, said) == (
        2,
        "zoo: error: Expected a name of letters, digits, `_`, `-` and `.` to serve as. Received: '../up'.\n",
    )


@pytest.mark.long
def test_search_and_the_search_signature_agree(capsys, shoes, searchable, tmp_path):
    from mmkeras import export

    grid = tmp_path / "grid.png"
    code, said, _ = run(
        capsys, "search", str(searchable), "red shoe", "--index", str(shoes), "--top-k", "5", "--out", str(grid)
    )
    assert code == 0
    assert grid.exists()
    rows = [line.split() for line in said.splitlines()[:5]]
    code, *_ = run(capsys, "export", str(searchable), "--to", str(tmp_path), "--index", str(shoes), "--top-k", "5",
                   "--name", "finder")  # fmt: skip
    assert code == 0
    assert 'name: "finder" base_path: "/models/finder"' in (tmp_path / "models.config").read_text()
    with export.own_process() as ask:
        (answers,) = ask(tmp_path / "finder" / "1", {"search": {"title": ["red shoe"]}})
    answer = answers["search"]
    scores = [float(score) for score, _ in rows]
    assert scores == pytest.approx(answer["scores"][0].tolist(), abs=1e-4)
    assert scores == sorted(scores, reverse=True)
    # Pictures of one colour are equal, and so are their scores: their order is free.
    found = {name.decode() for name in answer["ids"][0]}
    assert all(int(name.removesuffix(".png")) % 3 == 0 for name in found), found


@pytest.mark.parametrize("approximate", [None, "hnsw", "ivf"])
def test_a_gallery_is_embedded_once(approximate, capsys, shoes, searchable, tmp_path):
    options = ["--approximate", approximate] if approximate else []
    if approximate:
        pytest.importorskip("faiss", reason="needs the extra `approximate`")
    code, said, _ = run(
        capsys, "index", str(searchable), "--data", str(shoes), "--to", str(tmp_path / "kept"), *options
    )
    assert code == 0
    assert f"{tmp_path / 'kept'}: 59 items" in said
    assert (f"{approximate} finds 100.0% of the nearest ten" in said) == bool(approximate)
    answers = []
    for index in (shoes, tmp_path / "kept"):
        code, said, _ = run(
            capsys, "search", str(searchable), "red shoe", "--index", str(index), "--out", str(tmp_path / "x.png")
        )
        assert code == 0
        answers.append([float(line.split()[0]) for line in said.splitlines()[:10]])
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)
    assert "pictures: " in said


def test_a_gallery_that_does_not_fit_is_told(capsys, shoes, searchable, tmp_path):
    copy, kept, other = tmp_path / "shoes", tmp_path / "kept", tmp_path / "other"
    shutil.copytree(shoes.parent, copy)
    shutil.copytree(searchable, other)
    assert run(capsys, "index", str(searchable), "--data", str(copy / "shoes.csv"), "--to", str(kept))[0] == 0
    lines = (copy / "shoes.csv").read_text().splitlines()
    (copy / "shoes.csv").write_text("\n".join(lines[:-1]))
    code, _, said = run(capsys, "search", str(searchable), "red", "--index", str(kept))
    assert code == 2
    assert "other rows than when" in said
    assert "zoo index again" in said
    with zipfile.ZipFile(other / "model.keras", "a") as archive:
        archive.writestr("another", "model")
    code, _, said = run(capsys, "search", str(other), "red", "--index", str(kept))
    assert code == 2
    assert "by another model" in said
    code, _, said = run(capsys, "index", str(searchable), "--data", str(shoes), "--to", str(copy))
    assert code == 2
    assert "something else" in said
    assert (copy / "shoes.csv").is_file()


def test_the_nearest_are_exactly_so_and_recall_counts_them():
    random = np.random.default_rng(0)
    items = random.integers(-2, 3, (200, 4)).astype("float32")  # with equal ones
    queries = random.integers(-2, 3, (40, 4)).astype("float32")
    places, scores = _gallery.nearest(queries, items, 7)
    order = np.argsort(-(queries @ items.T), axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(queries @ items.T, order, axis=1))
    assert _gallery.nearest(queries, items[:3], 7)[0].shape == (40, 3)

    class Half:
        def search(self, queries, k):
            places, scores = _gallery.nearest(queries, items, k)
            return np.where(np.arange(k) % 2, -np.inf, scores), np.where(np.arange(k) % 2, -1, places)

    assert _gallery.recall(Half(), items, queries) == 0.5


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "autoencodr", "--data", "scenes"], ["autoencodr", "Did you mean `autoencoder`?"]),
        (["train", "dual_encoder", "--data", "nothing.jsonl"], ["nothing.jsonl", "does not exist"]),
        (["train", "dual_encoder"], ["--data"]),
        (["train", "dual_encoder", "--data", "scenes", "--embeding-dim", "3"], ["--embeding-dim", "`--embedding-dim`"]),
        (
            ["train", "dual_encoder", "--data", "scenes", "--embedding-dim", "x"],
            ["--embedding-dim", "an integer", "'x'"],
        ),
        (["train", "dual_encoder", "--data", "scenes", "--loss", "clp"], ["loss", "'clp'", "`clip`"]),
        (["train", "dual_encoder", "--data", "scenes", "--preset", "bse"], ["bse", "`base`"]),
        (["evaluate", "no-such-run"], ["no-such-run", "zoo train"]),
        (["trian", "dual_encoder"], ["trian", "Did you mean `train`?"]),
        (["train"], ["model", "See zoo train --help"]),
        (
            ["train", "dual_encoder", "--data", "scenes", "--columns", "nonsense"],
            ["--columns", "name=name", "nonsense"],
        ),
        (["train", "--data", "scenes", "dual_encoder", "--epochs", "0"], ["`epochs`", "at least 1"]),
        (["search", "x"], ["query", "See zoo search --help"]),
    ],
)
def test_mistakes_get_one_line_and_exit_code_two(capsys, arguments, parts):
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert error.count("\n") == 1
    assert all(part in error for part in parts), error


def test_a_column_that_is_not_there_is_named(capsys, shoes, tmp_path):
    code, _, error = run(capsys, "train", "dual_encoder", "--data", str(shoes), "--out", str(tmp_path / "x"))
    assert code == 2
    assert "shoes.csv has no column `image`" in error
    assert "--columns" in error
    assert not (tmp_path / "x").exists()


def test_a_split_that_is_not_there_is_named(capsys, searchable):
    code, _, error = run(capsys, "evaluate", str(searchable), "--split", "tset")
    assert code == 2
    assert "Did you mean `test`?" in error


def test_a_run_is_not_written_over(capsys, shoes, searchable):
    before = (searchable / "model.keras").read_bytes()
    code, _, error = run(capsys, "train", "dual_encoder", "--preset", "tiny", "--data", str(shoes), "--columns",
                         "photo=image,title=text", "--out", str(searchable))  # fmt: skip
    assert code == 2
    assert "--resume" in error
    assert "--overwrite" in error
    assert (searchable / "model.keras").read_bytes() == before


def test_data_check_counts_what_is_absent(capsys, shoes):
    code, said, _ = run(capsys, "data", "check", str(shoes), "--columns", "photo=image,title=text",
                        "--modalities", "photo=image,title=text")  # fmt: skip
    assert code == 0
    assert said.startswith("columns: photo (image), title (text), kind\n")
    assert "absent in 1 rows" in said


def test_data_check_finds_labels_that_training_lacks(capsys, shoes, tmp_path):
    rows = shoes.read_text().splitlines()
    for name, lines in (("train", rows[1:40]), ("validation", [rows[41], rows[42].replace("blue", "mauve")])):
        (shoes.parent / f"{name}.csv").write_text("\n".join([rows[0], *lines]))
    try:
        columns = ("--columns", "photo=image,title=text,kind=label")
        code, said, _ = run(capsys, "data", "check", str(shoes.parent), *columns)
    finally:
        for name in ("train", "validation"):
            (shoes.parent / f"{name}.csv").unlink()
    assert code == 1
    assert "label: 1 values that do not occur in the training split, such as 'mauve'" in said


def test_a_fault_of_our_own_is_told_in_a_line_too(capsys, monkeypatch):
    def fail(name):
        raise AttributeError("no such thing\nand more")

    monkeypatch.setattr(_cli._registry, "describe", fail)
    code, _, error = run(capsys, "describe", "autoencoder")
    assert code == 2
    assert error == "zoo: internal error: AttributeError: no such thing. ZOO_TRACEBACK=1 shows where.\n"
    monkeypatch.setenv("ZOO_TRACEBACK", "1")
    with pytest.raises(AttributeError):
        run(capsys, "describe", "autoencoder")


def test_a_package_that_is_not_there_is_told_in_a_line(capsys, monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'jax'", name="jax")

    monkeypatch.setattr(_cli._registry, "describe", fail)
    assert run(capsys, "describe", "autoencoder")[2] == "zoo: error: The package `jax` is not installed.\n"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    said = "zoo: error: The package `jax`, which KERAS_BACKEND asks for, is not installed.\n"
    assert run(capsys, "describe", "autoencoder")[::2] == (2, said)


def test_columns_of_no_known_kind_are_told(capsys, shoes):
    code, _, error = run(capsys, "data", "check", str(shoes))
    assert code == 2
    assert "has the columns photo, title, kind, none of which is called after its kind. Say what they are" in error


def test_the_column_that_is_not_there_is_the_one_named(capsys, shoes):
    code, _, error = run(capsys, "data", "check", str(shoes), "--columns", "photo=image,nocol=text")
    assert code == 2
    assert "has no column `nocol`" in error


def test_data_check_finds_every_fault_and_says_so_by_its_exit_code(capsys, shoes):
    faulty = shoes.with_name("faulty.csv")
    rows = shoes.read_bytes().splitlines()
    faulty.write_bytes(b"\n".join([*rows, b"none.png,a,red", "0.png,café,red".encode("latin-1"), b"0.png,shoe,"]))
    columns = ("--columns", "photo=image,title=text,kind=label")
    code, said, _ = run(capsys, "data", "check", str(faulty), *columns)
    assert code == 1
    assert "there is no file" in said
    assert "faulty.csv, row 63: expected UTF-8, got other bytes" in said
    assert "label: empty in 1 rows" in said
    assert "skipped cannot be read at all" in said
    assert run(capsys, "data", "check", str(shoes), *columns)[0] == 0


def test_training_without_a_column_is_told_both_ways_out(capsys, shoes, tmp_path):
    arguments = ("--data", str(shoes), "--columns", "image=photo,label=kind", "--out", str(tmp_path / "x"))
    code, _, error = run(capsys, "train", "fusion_classifier", *arguments)
    assert code == 2
    assert "has no column `text`. It has: image, title, label" in error
    assert "--modalities image=image" in error


def test_wrong_values_to_predict_from_are_told_in_one_line(capsys, shoes, searchable, tmp_path):
    (tmp_path / "torn.png").write_bytes(shoes.with_name("0.png").read_bytes()[:60])
    for value, part in (
        ("photo=none.png", "`photo` cannot be used: there is no file none.png"),
        (f"photo={shoes}", "`photo` cannot be used: " + str(shoes) + " is no picture"),
        (f"photo={tmp_path / 'torn.png'}", "`photo` in row 1 cannot be used: the picture of 60 bytes is cut off"),
        ("foto=0.png", "no input `foto`. Did you mean `photo`?"),
    ):
        code, _, error = run(capsys, "predict", str(searchable), "title=red shoe", value)
        assert code == 2
        assert error.count("\n") == 1
        assert part in error
    code, said, _ = run(capsys, "predict", str(searchable), "title=red shoe", f"photo={shoes.with_name('0.png')}")
    assert code == 0
    assert json.loads(said)["score"] > 0
    code, _, error = run(capsys, "search", str(searchable), "red", "--index", str(shoes), "--top-k", "0")
    assert (code, "one item or more" in error) == (2, True)
    code, _, error = run(capsys, "export", str(searchable), "--to", str(shoes))
    assert (code, "is a file" in error) == (2, True)


def test_a_file_found_broken_while_it_is_decoded_costs_no_run(capsys, shoes, tmp_path):
    torn = shoes.with_name("torn.png")
    torn.write_bytes(shoes.with_name("0.png").read_bytes()[:60])
    bad = shoes.with_name("torn.csv")
    bad.write_text(shoes.read_text() + "\ntorn.png,red shoe,red")
    arguments = ("--data", str(bad), "--columns", "photo=image,title=text,kind=label", "--out", str(tmp_path / "x"))
    code, _, error = run(capsys, "train", "fusion_classifier", "--preset", "tiny", *arguments)
    assert code == 2
    assert error.count("\n") == 1
    assert "torn.csv, row 62: " in error
    assert not (tmp_path / "x").exists()


def test_list_says_what_a_model_is_and_which_weights_there_are(capsys):
    code, out, _ = run(capsys, "list")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert list(lines) == _cli._registry.names()
    assert lines["captioner"].startswith("Captioning: pictures")
    assert lines["captioner"].endswith(" [captioner:scenes]")
    assert "[" not in lines["tagger"]


@pytest.mark.parametrize("written", ["0.5,1,2", "0.5 1 2", "[0.5, 1, 2]"])
def test_a_vector_is_its_numbers_however_they_are_written(written):
    run = types.SimpleNamespace(config=types.SimpleNamespace(modalities={"vector": "vector"}), signatures={})
    assert _run_commands._value(run, "vector", written) == [0.5, 1.0, 2.0]
    with pytest.raises(ValueError, match="Expected numbers for `vector`, such as vector=0.5,1,2. Received: 'red'"):
        _run_commands._value(run, "vector", "red")


def test_a_reader_that_goes_away_ends_the_command_in_silence():
    command = [sys.executable, "-m", "zoo._cli", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as of `zoo list | head`
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.slow
def test_help_answers_within_a_third_of_a_second():
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "zoo._cli", "--help"], check=True, capture_output=True)
        times.append(time.monotonic() - began)
    assert sorted(times)[2] < 0.3
