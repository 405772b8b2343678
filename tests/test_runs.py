"""Runs: never lost, told in plain words when something is wrong; what is measured on them."""

import csv
import dataclasses
import hashlib
import itertools
import json
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from mmkeras import data, export
from mmkeras.layers import QueuedSimilarity
from mmkeras.runs import RunFolder, replaced
from zoo import _epochs, _fit_preprocessor, _registry, _retrieval, _train
from zoo._cli import main
from zoo._config import Config, hp, parse
from zoo._explain import _score, explains
from zoo._raw import asked

ROOT = pathlib.Path(__file__).parent.parent

# The quickest model to train: eight numbers to one of six labels.
NUMBERS = {"preset": "tiny", "modalities": {"vector": "vector"}, "verbose": 0}


def train(out, source="scenes:32", epochs=1, **options):
    return zoo.train("fusion_classifier", source, out=out, epochs=epochs, **{**NUMBERS, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs; tests leave it as it is."""
    return train(tmp_path_factory.mktemp("runs") / "numbers", epochs=2)


def contents(folder):
    """`{path: hash}` of every file below a folder."""
    files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def views(loss):
    """64 pairs of vectors, the second of a pair a turned first one, and a dual encoder for them."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = {"one": random.normal(size=(64, 6)).astype("float32")}
    x["two"] = x["one"] @ random.normal(size=(6, 6)).astype("float32")
    options = {"modalities": dict.fromkeys(x, "vector"), "vector_dim": dict.fromkeys(x, 6), "embedding_dim": 4}
    return x, zoo.build("dual_encoder", preset="tiny", loss=loss, **options)


def num_nearer(model, x):
    """How many of 32 rows are nearer to a row's first view than its second view is, on average; 15.5 by chance."""
    found = model.predict({name: values[:32] for name, values in x.items()}, verbose=0)
    scores = found["one_embedding"] @ found["two_embedding"].T
    return np.mean((scores > np.diag(scores)[:, None]).sum(axis=1))


OTHER_LOSSES = ("siglip", "triplet", "l2", "supcon", "barlow_twins", "vicreg")


@pytest.mark.parametrize("loss", ["clip", *(pytest.param(loss, marks=pytest.mark.long) for loss in OTHER_LOSSES)])
def test_every_retrieval_loss_brings_a_row_together(loss):
    x, model = views(loss)
    losses = model.fit(x, epochs=120, batch_size=64, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    # By its hardest negatives alone, few of a batch are learned from: half of chance.
    assert num_nearer(model, x) < (15.5 / 2 if loss == "triplet" else 5)
    assert ("similarity_scale" in model.output) == (loss in ("clip", "siglip", "supcon"))


def test_short_texts_come_first(tmp_path):
    options = {"modalities": {"text": "text"}, "text_encoder": "bag", "epochs": 4, "curriculum": 3}
    run = train(tmp_path / "run", "scenes:64", **options)
    split = run.split("train")
    words = np.array([len(text.split()) for text in split.cells("text")])
    longest = []
    for epoch in range(3):
        rows = _epochs.order_of(run, split, epoch)
        assert len(rows) == 64
        assert len(set(rows)) == 16 * (epoch + 1)
        counts = np.bincount(rows, minlength=64)
        assert counts.max() <= counts[counts > 0].min() + 1  # each as often as the others
        assert words[rows].max() <= np.delete(words, rows).min()
        longest.append(words[rows].mean())
        assert (rows == _epochs.order_of(run, split, epoch)).all()
    assert longest == sorted(longest)
    assert _epochs.order_of(run, split, 3) is None
    assert _epochs.order_of(run, run.split("validation"), 0) is None
    with pytest.raises(ValueError, match="A curriculum goes by the length of texts"):
        zoo.build("tagger", preset="tiny", modalities={"image": "image"}, curriculum=2)


def test_a_modality_may_be_called_support():
    names = ("support_notes", "tech_support")
    specs = {name: tf.TensorSpec((None,), tf.string) for name in names}
    run = types.SimpleNamespace(config=types.SimpleNamespace(modalities=dict.fromkeys(names, "text")))
    given = asked(run, lambda raw: {name: value.numpy().tolist() for name, value in raw.items()}, specs,
                  {"tech_support": ["a", "b"]})  # fmt: skip
    assert given == {"support_notes": [b"", b""], "tech_support": [b"a", b"b"]}


def test_a_queue_holds_what_was_seen_last():
    layer = QueuedSimilarity(5)
    random = np.random.default_rng(0)
    batches = [random.normal(size=(3, 3)).astype("float32") for _ in range(4)]
    query, presence = random.normal(size=(2, 3)).astype("float32"), np.array([1, 0, 1], "float32")
    there = [keys[[0, 2]] for keys in batches]  # what is absent does not enter
    nothing = -1e4
    assert layer(query, batches[0], presence).numpy().max() < nothing  # outside of training nothing enters
    for i, keys in enumerate(batches):
        seen = layer(query, keys, presence, training=True).numpy()
        expected = np.concatenate([query @ b.T for b in there[:i][::-1]], axis=1) if i else np.zeros((2, 0))
        found = seen[:, (seen > nothing).any(axis=0)]
        np.testing.assert_allclose(found, expected[:, : found.shape[1]], atol=1e-5)
        assert found.shape[1] == min(2 * i, 3)  # of five places two are those of absent rows
    assert (layer(query, batches[0], presence).numpy() < nothing).all()


@pytest.mark.long
def test_a_dual_encoder_learns_with_a_queue_and_with_attention(tmp_path):
    options = {"preset": "tiny", "text_encoder": "bag", "epochs": 16, "queue": 20, "pool": "attention", "verbose": 0}
    run = zoo.train("dual_encoder", "scenes:64", out=tmp_path / "run", **options)
    with (tmp_path / "run" / "history.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[1] > np.log(8)  # 8 rows a step, but up to 28 to choose from
    assert losses[-1] < max(losses) - 0.2
    assert run.model.get_layer("image_text_queued").queue.numpy().any(axis=1).all()
    assert run.predict("encode_text", text=["a red circle"])["embedding"].shape == (1, 16)
    with pytest.raises(ValueError, match="Expected loss='clip' with a queue. Received: queue=4, loss='siglip'"):
        zoo.build("dual_encoder", preset="tiny", queue=4, loss="siglip")
    with pytest.raises(ValueError, match="A queue is for small batches, chunks are for large ones"):
        zoo.build("dual_encoder", preset="tiny", queue=4, chunk=4)


@pytest.mark.long
def test_deep_cca_turns_its_views_towards_each_other(tmp_path):
    """The loss leaves the axes of the two views open; the directions found after the last epoch bring them together."""
    rng = np.random.default_rng(0)
    rows, other = rng.normal(size=(192, 4)), rng.normal(size=(4, 4))
    lines = [json.dumps({"one": row.tolist(), "two": (row @ other).tolist()}) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    options = {"preset": "tiny", "modalities": {"one": "vector", "two": "vector"}, "loss": "cca", "embedding_dim": 3}
    options = {**options, "columns": {"one": "vector", "two": "vector"}, "batch_size": 64, "epochs": 30, "verbose": 0}
    run = zoo.train("dual_encoder", tmp_path / "rows.jsonl", out=tmp_path / "run", **options)
    loaded = zoo.load(tmp_path / "run")
    ranks = {}
    for what in ("view", "embedding"):
        x, *_ = next(iter(loaded.batches(loaded.split("train"), batch_size=100)))
        a, b = (loaded.outputs(x)[f"{name}_{what}"].numpy() for name in ("one", "two"))
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
        scores = a @ b.T
        ranks[what] = np.median((scores > np.diag(scores)[:, None]).sum(axis=1))
    assert ranks["embedding"] < 6 < ranks["view"]  # 50 by chance
    assert run.evaluate("train")["two -> one"]["recall@10"] > 0.3


def test_cca_wants_more_rows_than_dimensions():
    with pytest.raises(ValueError, match="Received: batch_size=8, embedding_dim=16"):
        zoo.build("dual_encoder", preset="tiny", loss="cca")
    with pytest.raises(ValueError, match="loss='vicreg' knows no rows that belong together"):
        zoo.build("dual_encoder", preset="tiny", loss="vicreg", label_positives=True)


@pytest.mark.long
def test_encoders_begin_with_the_weights_of_another_run(tmp_path):
    options = {"preset": "tiny", "text_encoder": "bag", "epochs": 1, "verbose": 0}
    tagged = zoo.train("tagger", "scenes:16", out=tmp_path / "tags", **options)
    warm = {**options, "warm_start": tmp_path / "tags"}
    run = zoo.train("fusion_classifier", "scenes:16", out=tmp_path / "run", freeze="image", learning_rate=1e-9, **warm)
    encoders = {name: [r.model.get_layer(f"{name}_encoder") for r in (run, tagged)] for name in ("image", "text")}
    for own, other in zip(*(encoder.get_weights() for encoder in encoders["image"]), strict=True):
        np.testing.assert_array_equal(own, other)  # frozen: the averages of batch norm as well
    for own, other in zip(*(encoder.get_weights() for encoder in encoders["text"]), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-6)
    assert not encoders["image"][0].trainable_weights
    assert encoders["text"][0].trainable_weights
    assert json.loads((tmp_path / "run" / "config.json").read_text())["warm_start"] == ["path:../tags"]

    resumed = zoo.train("fusion_classifier", out=tmp_path / "run", resume=True, epochs=2, verbose=0)
    assert resumed.warm_start == [str(tmp_path / "tags")]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["warm_start"] == ["path:../tags"]

    run.preprocessor.reader("text").set_vocabulary(["other", "words"])
    assert _train.warm_start_encoders(run, [tagged]).endswith("`image`. Not: `text` (its vocabulary is another).")
    said = _train.warm_start_encoders(run, [tagged, run])  # each from the first that has one alike
    assert said == f"Encoders that begin with the weights of {tagged.called}: `image`; of {run.called}: `text`."
    said = r"`image` \(its encoder is another\), `remark` \(the other run has no text of that name\)"
    with pytest.raises(ValueError, match=said):
        zoo.train("sentiment", "scenes:16", out=tmp_path / "wider", image_width=4, **warm)
    assert not (tmp_path / "wider").exists()
    with pytest.raises(ValueError, match="Frozen encoders would stay random: image. Say what they begin with"):
        zoo.train("tagger", "scenes:16", out=tmp_path / "frozen", freeze="image", **options)
    with pytest.raises(ValueError, match="Not every frozen encoder can begin .*: `remark`"):
        zoo.train("sentiment", "scenes:16", out=tmp_path / "frozen", freeze="remark", **warm)
    assert not (tmp_path / "frozen").exists()
    with pytest.raises(ValueError, match="--resume and --warm-start"):
        zoo.train("tagger", "scenes:16", out=tmp_path / "tags", resume=True, warm_start=tmp_path / "run")


def test_a_run_is_either_resumed_or_replaced(tmp_path):
    with pytest.raises(ValueError, match="Expected one of --resume and --overwrite"):
        zoo.train("autoencoder", "scenes:64", out=tmp_path / "run", resume=True, overwrite=True)


def test_resuming_trains_the_epochs_that_are_left(tmp_path):
    train(tmp_path / "run", epochs=1)
    longer = train(tmp_path / "run", None, epochs=3, resume=True, preset="base", modalities={"vector": "vector"})
    assert longer.config.epochs == 3
    assert [row["epoch"] for row in history(longer.path)] == ["1", "2", "3"]
    again = train(tmp_path / "run", None, epochs=3, resume=True, modalities={"vector": "vector"})
    assert len(history(again.path)) == 3
    with pytest.raises(ValueError, match=r"only --epochs may change. Received: {'fusion_width': 5}"):
        zoo.train("fusion_classifier", out=tmp_path / "run", resume=True, fusion_width=5)
    with pytest.raises(ValueError, match=r"holds a run of `fusion_classifier`, not of `autoencoder`"):
        zoo.train("autoencoder", out=tmp_path / "run", resume=True)
    with pytest.raises(FileNotFoundError, match=r"is no run"):
        zoo.train("autoencoder", out=tmp_path / "nowhere", resume=True)


# The folder


def history(folder):
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_history_has_a_row_an_epoch(finished):
    rows = history(finished.path)
    assert list(rows[0]) == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())


def test_a_run_that_is_there_is_not_lost(finished, tmp_path):
    before = contents(finished.path)
    with pytest.raises(FileExistsError, match=r"already holds a run\. Continue it with --resume, replace"):
        train(finished.path)
    mistakes = [
        ({"source": "nowhere.csv"}, "There is no data source"),
        ({"source": "scenes:32", "fusion_wdth": 3}, "Unknown hyperparameter"),
        ({"modalities": {"sound": "vector"}}, "no column `sound`"),
        ({"modalities": {"image": "image"}, "image_encoder": "resnett"}, "Unknown image encoder"),
        ({"modalities": {"text": "text"}, "word_vectors": str(tmp_path / "none.txt")}, "none.txt"),
    ]
    for mistake, message in mistakes:
        with pytest.raises((ValueError, OSError), match=message):
            train(finished.path, overwrite=True, **mistake)
    assert contents(finished.path) == before


def test_overwriting_replaces_a_run(tmp_path):
    train(tmp_path / "run", epochs=2)
    (tmp_path / "run" / "metrics").mkdir()
    (tmp_path / "run" / "metrics" / "old.json").write_text("{}")
    run = train(tmp_path / "run", epochs=1, overwrite=True)
    assert len(history(run.path)) == 1
    assert not (run.path / "metrics").exists()
    assert not list(run.path.rglob(".*"))


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"exists and is no run. Choose another folder with --out"):
            RunFolder(tmp_path).create(overwrite)
    with pytest.raises(FileExistsError):
        RunFolder(tmp_path / "thesis.txt").create(overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    RunFolder(tmp_path / "new" / "deep").create()
    RunFolder(tmp_path / "new" / "deep").create()  # empty: nothing can be lost


def test_replaced_leaves_nothing_behind_on_failure(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match=r"torn"), replaced(path) as beside:
        beside.write_text("half of the n")
        assert path.read_text() == "old"
        raise RuntimeError("torn")
    with pytest.raises(RuntimeError, match=r"torn"), replaced(tmp_path / "folder") as beside:
        beside.mkdir()
        (beside / "file").write_text("half")
        raise RuntimeError("torn")
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.txt"]
    with replaced(path) as beside:
        beside.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.txt"]


def test_folders_that_cannot_be_loaded(tmp_path, finished):
    with pytest.raises(FileNotFoundError, match=r"is no run: it has no config.json. Make one with zoo train"):
        zoo.load(tmp_path)
    saved = json.loads((finished.path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, "format": 99}))
    with pytest.raises(ValueError, match=r"has format 99; this version reads up to 1. Upgrade mmkeras"):
        zoo.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(saved))
    (tmp_path / "preprocess.keras").write_bytes((finished.path / "preprocess.keras").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"its training has not ended. Go on with --resume"):
        zoo.load(tmp_path)


# Mistakes, in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "autoencodr"},
            "Unknown model `autoencodr`. Did you mean `autoencoder`[?] The zoo has: autoencoder, c",
        ),
        (
            {"preset": "tny"},
            "Unknown preset `tny` of `dual_encoder`. Did you mean `tiny`[?] It has: base, small, tiny, siglip",
        ),
        (
            {"embeding_dim": 8},
            "Unknown hyperparameter `embeding_dim` of `dual_encoder`. Did you mean `embedding_dim`[?] It",
        ),
        (
            {"loss": "cilp"},
            "`loss`. Expected one of 'clip', 'siglip', 'triplet', 'l2', .* Received: 'cilp'. Did you mean `cl",
        ),
        ({"embedding_dim": "big"}, "`embedding_dim`. Expected an integer. Received: 'big' of type str"),
        ({"embedding_dim": 8.5}, "`embedding_dim`. Expected an integer. Received: 8.5"),
        ({"embedding_dim": True}, "`embedding_dim`. Expected an integer. Received: True of type bool"),
        ({"image_size": (8, 8, 3)}, "`image_size`. Expected int x int. Received"),
        ({"label_positives": "yes"}, "`label_positives`. Expected true or false"),
        (
            {"modalities": {"image": "image", "x": "sound"}},
            "kind of the modality `x`. Expected image, text, vector",
        ),
        ({"modalities": {"image": "image", "presence": "text"}}, "cannot be called `presence`"),
        ({"modalities": {}}, "Expected at least one modality"),
        ({"epochs": 0}, "`epochs`. Expected at least 1. Received: 0"),
        ({"batch_size": -1}, "`batch_size`. Expected at least 1. Received: -1"),
        ({"image_size": 0}, r"`image_size`. Expected at least 4. Received: \(0, 0\)"),
        ({"learning_rate": float("nan")}, "`learning_rate`. Expected at least 0. Received: nan"),
        ({"learning_rate": -1.0}, "`learning_rate`. Expected at least 0. Received: -1.0"),
        ({"dropout": 2.0}, "`dropout`. Expected at least 0 and at most 0.99. Received: 2.0"),
        ({"modalities": {"image": "image"}}, "Expected two modalities or more"),
        (
            {"modalities": {"image": "image", "v": "vector"}},
            "size of the vector `v` is not known. Give it: vector_dim={'v'",
        ),
    ],
)
def test_mistakes_are_named_with_what_is_valid(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(**{"name": "dual_encoder", **arguments})


def test_values_become_what_is_asked_for():
    config = _registry.configure("fusion_classifier", image_size=24, learning_rate=1, num_classes=4.0)
    assert (config.image_size, config.learning_rate, config.num_classes) == ((24, 24), 1.0, 4)
    assert type(config.num_classes) is int
    assert config.replace(image_size=[8, 16]).image_size == (8, 16)
    assert config.replace(freeze="text").freeze == config.replace(freeze=["text"]).freeze == ("text",)
    with pytest.raises(ValueError, match="Expected modalities to freeze: image, text. Received: `photo`"):
        config.replace(freeze=("photo",))
    assert _registry.module("fusion_classifier").Config(**config.to_dict()) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_classes = 3


@dataclasses.dataclass(frozen=True)
class Sample(Config):
    size: tuple[int, int] = hp((1, 1), "height x width")
    use_it: bool = hp(False, "whether")
    weights: str | None = hp(None, "file")
    kinds: dict[str, str] = hp({}, "name=kind")
    sizes: dict[str, int] = hp({}, "name=size")
    names: tuple[str, ...] = hp((), "some")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "48x64", (48, 64)), ("size", "48,64", (48, 64)), ("size", "48", (48, 48)), ("use_it", "true", True),
        ("use_it", "No", False), ("weights", "none", None), ("weights", "a.txt", "a.txt"),
        ("kinds", "photo=image,title=text", {"photo": "image", "title": "text"}), ("sizes", "v=8", {"v": 8}),
        ("learning_rate", "1e-3", 1e-3), ("epochs", "7", 7), ("optimizer", "adam", "adam"),
        ("names", "photo, title", ("photo", "title")), ("names", "", ()),
    ],
)  # fmt: skip
def test_values_written_on_the_command_line(name, text, value):
    hints = {**Config.__annotations__, **Sample.__annotations__}
    assert parse(name, text, hints[name]) == value


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("size", "big", "int x int"), ("size", "1x2x3", "int x int"), ("use_it", "maybe", "true or false"),
        ("epochs", "1.5", "an integer"), ("learning_rate", "fast", "a number"), ("sizes", "v=x", "a mapping name=int"),
        ("kinds", "photo", "a mapping"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_read(name, text, expected):
    hints = {**Config.__annotations__, **Sample.__annotations__}
    with pytest.raises(ValueError, match=f"Invalid value for option --{name.replace('_', '-')}. Expected {expected}"):
        parse(name, text, hints[name])


# Options of training


def test_balanced_classes_weigh_alike(tmp_path):
    run = train(tmp_path / "run", class_weight="balanced")
    split = run.split("train")
    weights = _epochs.class_weights(run, split).numpy()
    labels = split.cells("label")
    counts = np.array([labels.count(label) for label in run.labels])
    assert counts.std() > 0
    np.testing.assert_allclose(weights * counts, (weights * counts)[0], rtol=1e-5)
    assert (weights * counts).sum() == pytest.approx(len(split))


def table(path, texts, labels):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["remark", "kind"], *zip(texts, labels, strict=True)])
    return str(path)


TEXTS = ["red round thing", "blue square thing", "red ball", "blue box", "round red", "square blue box"] * 5
KINDS = ["ball", "box"] * 15
COLUMNS = {"remark": "text", "kind": "label"}
OF_TEXT = {"preset": "tiny", "text_encoder": "bag", "columns": COLUMNS, "verbose": 0, "epochs": 1}


def test_word_vectors_are_taken_from_a_file(tmp_path, capsys):
    source = table(tmp_path / "things.csv", TEXTS, KINDS)
    numbers = np.random.default_rng(0).normal(size=(2, 16)).round(3).astype("float32")
    lines = [" ".join([word, *map(str, row)]) for word, row in zip(["red", "box"], numbers, strict=True)]
    (tmp_path / "glove.txt").write_text("\n".join(lines) + "\nunseen" + " 0.5" * 16 + "\n")
    options = {**OF_TEXT, "word_vectors": str(tmp_path / "glove.txt"), "learning_rate": 1e-12, "weight_decay": 0.0}
    run = zoo.train("fusion_classifier", source, out=tmp_path / "run", **options)
    assert "vectors for 2 of" in capsys.readouterr().out
    vocabulary = run.preprocessor.reader("remark").vocabulary
    rows = run.model.get_layer("remark_encoder").get_layer("text_embedding").table.numpy()
    np.testing.assert_allclose(rows[[vocabulary.index("red"), vocabulary.index("box")]], numbers, atol=1e-6)
    assert np.abs(rows[vocabulary.index("blue")]).max() < 0.06  # at random, as it began
    with pytest.raises(ValueError, match=r"vectors of 16 numbers: take --text-dim 16"):
        zoo.train("fusion_classifier", source, out=tmp_path / "other", **{**options, "text_dim": 8})
    assert not (tmp_path / "other").exists()


def test_word_vectors_are_for_texts_that_are_read(tmp_path):
    (tmp_path / "glove.txt").write_text("red" + " 0.5" * 16 + "\n")
    options = {"preset": "tiny", "word_vectors": str(tmp_path / "glove.txt"), "text_encoder": "bag", "verbose": 0}
    with pytest.raises(ValueError, match="`captioner` has no encoder of texts here that could take --word-vectors"):
        zoo.train("captioner", "scenes:32", out=tmp_path / "run", **options)
    options |= {"learning_rate": 1e-12, "epochs": 1}
    run = zoo.train("conditional_gan", "scenes:32", out=tmp_path / "run", **options)
    row = run.preprocessor.reader("text").vocabulary.index("red")
    for network in (run.model.generator, run.model.discriminator):
        table = network.get_layer("text_encoder").get_layer("text_embedding").table.numpy()
        np.testing.assert_allclose(table[row], 0.5, atol=1e-6)


MEASURED = [f"{1000 + 10 * (i % 5)} {-50 + i % 3}" for i in range(30)]


def measured(path):
    rows = [f"{text},{v},{kind}" for text, v, kind in zip(TEXTS, MEASURED, KINDS, strict=True)]
    path.write_text("\n".join(["title,feat,kind", *rows]))
    return str(path)


def test_vectors_are_answered_on_their_own_scale(tmp_path):
    source = measured(tmp_path / "a.csv")
    options = {"preset": "tiny", "columns": {"title": "text", "feat": "vector"}, "epochs": 1, "verbose": 0}
    run = zoo.train("masked_autoencoder", source, out=tmp_path / "masked", **options)
    given = [[1000.0, -50.0], [1040.0, -48.0]]
    np.testing.assert_allclose(run.predict("fill", feat=given, title=["red", "box"])["feat"], given, rtol=1e-5)
    run = zoo.train("autoencoder", source, out=tmp_path / "auto", **options)
    for signature, values in (("serving_default", {"feat": given}), ("decode", {"embedding": np.zeros((2, 16), "f")})):
        found = run.predict(signature, **values)["feat"]
        assert (np.abs(found - [1020, -49]) < [100, 10]).all(), signature


def test_modalities_may_be_declared_by_columns_alone(tmp_path):
    command = [
        "train",
        "cross_modal",
        "--data",
        measured(tmp_path / "a.csv"),
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    ]
    command += ["--columns", "feat=vector,title=text", "--target", "title", "--preset", "tiny", "--epochs", "1"]
    main(command)
    assert zoo.load(tmp_path / "run").config.sources == ["feat"]


@pytest.mark.parametrize(
    ("name", "modalities", "options"),
    [
        ("autoencoder", {"embedding": "vector", "text": "text"}, {}),
        ("autoencoder", {"text_embedding": "image", "text": "text"}, {}),
        ("masked_autoencoder", {"embedding": "vector", "text": "text"}, {}),
        ("variational_autoencoder", {"embedding": "vector", "text": "text"}, {}),
        ("cross_modal", {"text": "text", "embedding": "vector"}, {"target": "embedding"}),
        ("captioner", {"image": "image", "attention": "text"}, {"target": "attention"}),
        ("multitask", {"image": "image", "tags": "text"}, {}),
    ],
)
def test_what_is_given_back_has_the_name_of_no_other_output(name, modalities, options):
    with pytest.raises(ValueError, match=r"cannot be called `\w+`, as another output is"):
        zoo.build(name, preset="tiny", modalities=modalities, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dual_encoder", {"modality_dropout": 0.2}), ("conditional_gan", {"modality_dropout": 0.2}),
        ("transformer", {"task": "retrieval", "modality_dropout": 0.2}), ("conditional_gan", {"augment_flip": True}),
    ],
)  # fmt: skip
def test_what_would_change_nothing_is_refused(name, options):
    with pytest.raises(ValueError, match="Received: (modality_dropout=0.2|augment_flip=True)"):
        zoo.build(name, preset="tiny", **options)


def test_labels_teach_no_tower_what_is_absent():
    model = zoo.build("dual_encoder", preset="tiny", label_weight=1.0, num_classes=3, weight_decay=0.0)
    random = np.random.default_rng(0)
    x = {"image": random.random((4, 16, 16, 3), "float32"), "text": random.integers(4, 50, (4, 8))}
    x["presence"] = np.array([[1, 0]] * 4, "float32")
    kernels = {name: model.get_layer(f"{name}_projection").kernel for name in ("image", "text")}
    before = {name: kernel.numpy() for name, kernel in kernels.items()}
    model.train_on_batch(x, {"label": np.array([0, 1, 2, 0])})
    assert (before["image"] != kernels["image"].numpy()).any()
    np.testing.assert_array_equal(before["text"], kernels["text"].numpy())


def test_labels_of_an_episode_are_not_explained():
    outputs = types.SimpleNamespace(output={"label": None})
    for config, answer in ({"names": ["image"]}, True), ({"names": ["image"], "ways": 5}, False):
        assert explains(types.SimpleNamespace(model=outputs, config=types.SimpleNamespace(**config))) is answer


@pytest.mark.parametrize("name", ["dual_encoder", "sentiment"])
def test_one_number_has_no_targets_and_a_similarity_two_modalities(name):
    kinds = {"image": "image", "remark": "text", "text": "text"}
    if name == "sentiment":
        kinds.pop("text")
    model = zoo.build(name, preset="tiny", text_encoder="bag", modalities=kinds)
    config = _registry.configure(name, "tiny", text_encoder="bag", modalities=kinds)
    run = types.SimpleNamespace(model=model, config=config)
    x = {"presence": np.array([[1, 0, 1]], "float32")}
    with pytest.raises(ValueError, match="Expected no target: the model gives one number. Received: 'red'"):
        _score(run, x, "red")
    if name == "dual_encoder":
        what, score = _score(run, x, None)
        ones = {
            f"{n}_embedding": tf.constant([[value]]) for n, value in (("image", 2.0), ("remark", 3.0), ("text", 5.0))
        }
        assert (what, float(score(ones)[0])) == ("similarity", 10.0)
        with pytest.raises(ValueError, match="Expected two modalities to compare. Received: image"):
            _score(run, {"presence": np.array([[1, 0, 0]], "float32")}, None)


def test_one_number_has_no_parts_to_explain(finished):
    with pytest.raises(ValueError, match="Expected a picture or a text, or two modalities"):
        finished.explain(vector=[0.5] * 8)


def test_bad_rows_are_refused_or_skipped(tmp_path, capsys):
    source = table(tmp_path / "things.csv", [*TEXTS, "no kind"], [*KINDS, ""])
    options = {**OF_TEXT, "out": tmp_path / "run"}
    with pytest.raises(data.DataError, match=r"things.csv, row 32: the target `label` is empty"):
        zoo.train("fusion_classifier", source, **options)
    assert not (tmp_path / "run").exists()
    run = zoo.train("fusion_classifier", source, **options, skip_bad=True)
    assert "1 bad rows left out" in capsys.readouterr().out
    assert run.labels == ("ball", "box")
    assert run.config.modalities == {"remark": "text"}
    assert zoo.load(run.path).skip_bad


def test_labels_of_one_kind_are_nothing_to_learn(tmp_path):
    source = table(tmp_path / "things.csv", TEXTS, ["ball"] * 30)
    with pytest.raises(data.DataError, match=r"Expected two labels or more in the training split. Found one: 'ball'"):
        zoo.train("fusion_classifier", source, out=tmp_path / "run", **OF_TEXT)


def test_a_modality_that_is_absent_everywhere_is_nothing_to_learn_from(tmp_path):
    rows = [{"remark": text, "kind": kind, "size": []} for text, kind in zip(TEXTS, KINDS, strict=True)]
    source = tmp_path / "things.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {**OF_TEXT, "columns": {**COLUMNS, "size": "vector"}}
    with pytest.raises(data.DataError, match=r"The modality `size` is absent in every row of the training split"):
        zoo.train("fusion_classifier", source, out=tmp_path / "run", **options)


def test_many_labels_a_row(tmp_path):
    run = train(tmp_path / "run", labels="many", epochs=2)
    assert run.config.num_classes == len(run.labels) == 14
    assert 0 <= run.evaluate("test")["vector"]["macro_f1"] <= 1
    answer = run.predict("classify", vector=[[0.5] * 8])
    assert sorted(answer["classes"][0]) == list(run.labels)
    assert (np.diff(answer["scores"][0]) <= 0).all()


# What is measured


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier") / "run"
    options = {"text_encoder": "bag", "modality_dropout": 0.3, "epochs": 8, "batch_size": 16, "verbose": 0}
    return zoo.train("fusion_classifier", "scenes:480", out=out, preset="tiny", **options)


def test_classifier_is_measured_from_every_subset_and_beats_chance(classifier):
    report = classifier.evaluate("test", subsets=True)
    assert list(report) == ["image and text", "text", "image", "majority label"]
    chance = report["majority label"]["accuracy"]
    assert report["image and text"]["accuracy"] > chance + 0.2
    assert report["text"]["accuracy"] > chance + 0.2
    rows = list(classifier.batches(classifier.split("test")))
    right = [classifier.model(x, training=False)["label"].numpy().argmax(-1) == y["label"].numpy() for x, y in rows]
    assert report["image and text"]["accuracy"] == pytest.approx(np.concatenate(right).mean())
    assert json.loads((classifier.path / "metrics" / "test.json").read_text()) == report
    assert (classifier.path / "figures" / "confusion-test.png").stat().st_size > 1000


@pytest.mark.parametrize("imports", ["import keras, zoo", "import zoo, keras; zoo.build('autoencoder', preset='tiny')"])
def test_a_saved_model_is_loaded_by_keras_after_import_zoo(classifier, imports):
    code = f"{imports}; print(keras.saving.load_model({str(classifier.path / 'model.keras')!r}).name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "fusion_classifier", done.stderr[-500:]


def test_prediction_is_in_words_and_a_modality_may_be_left_out(classifier):
    answer = classifier.predict(text=["a large red circle", "a small blue square"])
    assert set(answer["label"]) <= set(classifier.labels)
    np.testing.assert_allclose(answer["probabilities"].sum(axis=-1), 1, rtol=1e-5)
    one = classifier.predict(text=["a large red circle"], image=[b""])
    np.testing.assert_allclose(one["probabilities"][0], answer["probabilities"][0], atol=1e-5)
    for mistake, message in (
        ({"sound": ["x"]}, "Expected values for some of"),
        ({"text": ["a"], "image": [b"", b""]}, "as many values for each of image, text"),
        ({"text": "a red circle"}, "Expected a list of values for `text`"),
        ({"image": [np.zeros((8, 8, 3))]}, "Expected a path or encoded bytes for `image`. Received: ndarray"),
        ({"image": ["none.png"]}, "there is no file none.png"),
        (
            {"signature": "classfy", "text": ["a"]},
            "Unknown signature 'classfy'. The model has: ",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.predict(**mistake)


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    out = tmp_path_factory.mktemp("retriever") / "run"
    # Texts whole and in order: equal embeddings of different texts would be ties.
    options = {"text_encoder": "cnn", "text_length": 24, "epochs": 8, "batch_size": 32, "verbose": 0}
    return zoo.train("dual_encoder", "scenes:480", out=out, preset="tiny", **options)


def test_retrieval_is_that_of_brute_force_and_beats_chance(retriever):
    report = retriever.evaluate("test")
    split = retriever.split("test")
    own, images = split.cells("text"), retriever.embed("image", split)
    texts = sorted(set(own))
    by_text = dict(zip(texts, retriever.embed("text", texts), strict=True))
    assert 1 < len(texts) < len(own)  # some pictures share a text

    ranks = {"image -> text": [], "text -> image": []}
    for image, text in zip(images, own, strict=True):
        scores = [float(by_text[other] @ image) for other in texts]
        ranks["image -> text"].append(1 + sum(score > scores[texts.index(text)] for score in scores))
    for text in texts:
        scores = [float(by_text[text] @ image) for image in images]
        best = max(score for score, other in zip(scores, own, strict=True) if other == text)
        ranks["text -> image"].append(1 + sum(score > best for score in scores))
    for direction, queries in (("image -> text", len(own)), ("text -> image", len(texts))):
        found, first = report[direction], np.array(ranks[direction])
        assert (found["queries"], found["gallery"]) == (queries, len(own) + len(texts) - queries)
        assert found["median_rank"] == np.median(first)
        assert found["mrr"] == pytest.approx(np.mean(1 / first))
        for k in (1, 5, 10):
            assert found[f"recall@{k}"] == pytest.approx(np.mean(first <= k))
        assert found["recall@10"] > 2 * 10 / found["gallery"]


class Embedded:
    """A run whose embeddings are given by text, and by row for pictures."""

    def __init__(self, **vectors):
        self.vectors = vectors
        kinds = {name: "image" if name == "image" else "text" for name in vectors}
        self.config = type("Config", (), {"names": sorted(kinds), "modalities": kinds})

    def embed(self, name, given):
        return np.array([self.vectors[name][key] for key in (given if isinstance(given, list) else given.cells("id"))])


def test_names_in_two_languages_find_those_they_stand_beside():
    # "bank" is "Bank" and "Ufer" by the row; "Ufer" lies nearest to it, "Baum" between.
    columns = {"id": ["0", "1", "2"], "text": ["bank", "bank", "tree"], "text_de": ["Bank", "Ufer", "Baum"]}
    kinds = {"id": "other", "text": "text", "text_de": "text"}
    split = data.Split("test", columns, kinds, 3, str)
    run = Embedded(
        text={"bank": [1.0, 0.0], "tree": [0.0, 1.0]},
        text_de={"Ufer": [1.0, 0.0], "Baum": [0.8, 0.6], "Bank": [0.0, 1.0]},
    )
    report = _retrieval.report(run, split)
    assert set(report) == {"text -> text_de", "text_de -> text"}
    there, back = report["text -> text_de"], report["text_de -> text"]
    assert (there["queries"], there["gallery"], back["queries"], back["gallery"]) == (2, 3, 3, 2)
    assert there["recall@1"] == 0.5  # "bank" finds "Ufer"; "tree" finds "Bank" first, "Baum" second
    assert there["mrr"] == pytest.approx((1 + 1 / 2) / 2)
    assert back["recall@1"] == pytest.approx(1 / 3)  # "Ufer" alone: "Baum" and "Bank" find the other's


def test_search_is_the_ranking_by_cosine(retriever):
    ids, scores, pictures = retriever.search("a large red circle", "scenes:480", k=4)
    split = retriever.split("test")
    cosine = retriever.embed("image", split) @ retriever.embed("text", ["a large red circle"])[0]
    best = np.argsort(-cosine, kind="stable")[:4]
    assert ids == [split.cells("id")[i] for i in best]
    np.testing.assert_allclose(scores, cosine[best], rtol=1e-6)
    assert len(pictures) == 4
    np.testing.assert_array_equal(retriever.embed("image", "test"), retriever.embed("image", retriever.split("test")))
    gallery = export.SearchIndex(retriever.embed("image", split), split.cells("id"))
    signature = export.search_signature(gallery, retriever.signatures["encode_text"], 4)
    answer = signature({"text": ["a large red circle", ""]})
    assert [name.decode() for name in answer["ids"][0]] == ids
    np.testing.assert_allclose(answer["scores"][0], scores, atol=1e-5)


def test_autoencoder_is_measured_from_every_subset(tmp_path):
    options = {"text_encoder": "bag", "vector_dim": {"vector": 8}, "verbose": 0, "epochs": 1}
    modalities = {"text": "text", "vector": "vector"}
    run = zoo.train("autoencoder", "scenes:32", out=tmp_path / "run", preset="tiny", modalities=modalities, **options)
    report = run.evaluate("validation")
    subsets = ["text", "vector", "text and vector"]
    assert set(report) == {f"{name} from {given}" for name, given in itertools.product(modalities, subsets)}
    (x,) = next(iter(run.batches(run.split("validation"))))
    drawn = run.model({**x, "presence": x["presence"] * np.array([[1.0, 0.0]], "float32")}, training=False)
    expected = np.mean((drawn["vector"].numpy() - x["vector"].numpy()) ** 2)
    assert report["vector from text"]["mse"] == pytest.approx(expected, rel=1e-5)
    assert (run.path / "figures" / "reconstructions-validation.png").exists()


@pytest.mark.long
def test_drawings_are_measured_by_a_classifier_and_a_retriever(classifier, retriever, tmp_path, monkeypatch):
    options = {"preset": "tiny", "verbose": 0, "epochs": 1}
    of_pictures = {"modalities": {"image": "image"}, "out": tmp_path / "pictures"}
    judge = zoo.train("fusion_classifier", "scenes:480", **{**options, **of_pictures, "epochs": 4})
    gan = zoo.train("conditional_gan", "scenes:480", out=tmp_path / "gan", **options)
    report = gan.evaluate("test", classifier=judge, retriever=retriever)
    over_classifier, over_retriever = report["over the classifier"], report["over the retriever"]
    assert over_classifier["fid"] > 1
    assert over_classifier["kid"] > 0.01
    assert 1 <= over_classifier["inception_score"] < over_classifier["inception_score_real"]
    assert over_retriever["r_precision_real"] > 2 * over_retriever["chance"]
    assert over_retriever["r_precision"] < over_retriever["r_precision_real"]
    with pytest.raises(ValueError, match="Expected a classifier of pictures alone"):
        gan.evaluate("test", classifier=classifier)

    draw = gan.module.draw
    monkeypatch.setattr(gan.module, "draw", lambda *arguments: draw(*arguments)[:1] * 2)
    copied = gan.evaluate("test", classifier=judge, retriever=retriever)
    assert copied["over the classifier"]["fid"] == pytest.approx(0, abs=1e-3)
    assert copied["over the retriever"]["r_precision"] == over_retriever["r_precision_real"]


def test_a_column_that_gets_a_new_name_is_not_declared_a_modality(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"photo": "p", "text": "t"}\n')
    source = data.open(tmp_path / "a.jsonl")
    assert _fit_preprocessor.with_columns({}, {"remark": "text"}, source) == {}
    assert _fit_preprocessor.with_columns({}, {"photo": "image"}, source) == {"modalities": {"photo": "image"}}
    assert _fit_preprocessor.with_columns({"modalities": {"x": "text"}}, {"photo": "image"}, source) == {
        "modalities": {"x": "text"}
    }
