"""A tiny run of every model: its folder, read again, its SavedModel in a process that imports TensorFlow alone, and
what it looked at.
"""

import concurrent.futures
import csv
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import zoo
from mmkeras import data, export, serving
from zoo._cli import main

SIGNATURES = {
    "autoencoder": {"serving_default", "encode", "encode_image", "encode_text", "decode"},
    "conditional_gan": {"serving_default", "generate", "generate_seeded"},
    "cross_modal": {"serving_default"},
    "domain_adversarial": {"serving_default", "classify"},
    "dual_encoder": {"serving_default", "encode_image", "encode_text", "score", "search"},
    "few_shot": {"serving_default", "classify"},
    "fusion_classifier": {"serving_default", "classify"},
    "captioner": {"serving_default", "generate", "generate_nucleus"},
    "masked_autoencoder": {"serving_default", "encode_image", "encode_text", "fill"},
    "multitask": {"serving_default", "classify", "encode_text"},
    "sentiment": {"serving_default", "contributions"},
    "tagger": {"serving_default", "classify"},
    "transformer": {"serving_default", "classify"},
    "variational_autoencoder": {"serving_default", "encode", "encode_image", "encode_text", "decode", "generate"},
    "vqa": {"serving_default", "answers", "classify"},
}
TEXT_ENCODERS = {"autoencoder": "bilstm", "cross_modal": "cnn", "dual_encoder": "cnn", "masked_autoencoder": "words"}


SOURCES = {"few_shot": "scenes:400"}  # it divides the classes
# One of each kind of output: a text, a picture, embeddings, a label, an answer. The others are as long again.
QUICK = ("captioner", "conditional_gan", "dual_encoder", "fusion_classifier", "vqa")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in zoo.names()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function from a model's name to a tiny run of it, once a name."""
    runs = {}

    def train(name):
        if name not in runs:
            out = tmp_path_factory.mktemp(name)
            options = {"text_encoder": TEXT_ENCODERS.get(name, "bag"), "preset": "tiny", "epochs": 1, "verbose": 0}
            options["skip_bad"] = name == "vqa"  # of so few rows, some answers occur in validation alone
            runs[name] = zoo.train(name, SOURCES.get(name, "scenes:64"), out=out / "run", **options)
        return runs[name]

    return train


@pytest.fixture(scope="module")
def raw():
    """Seven rows of raw values that differ, the last two each lacking a modality."""
    split = data.open("scenes:64").train
    texts = split.cells("text")
    rows = [texts.index(text) for text in dict.fromkeys(texts)][:7]
    values = {"image": [split.cells("image")[i] for i in rows], "text": [texts[i] for i in rows]}
    values["question"] = [split.cells("question")[i] for i in rows]
    values["remark"] = [split.cells("remark")[i] for i in rows]
    values["image"][5], values["text"][6], values["question"][6], values["remark"][6] = b"", "", "", ""
    return values


@pytest.fixture(scope="module")
def ask():
    """Asks SavedModels in a process that imports TensorFlow alone."""
    with export.own_process() as function:
        yield function


def calls(run, signatures, raw):
    """Arguments of every signature."""
    num_rows = len(raw["text"])
    width = getattr(run.config, "embedding_dim", 1)
    embedding = np.random.default_rng(0).normal(size=(7, width)).astype("float32")[:num_rows]
    values = {**raw, "seed": list(range(num_rows)), "embedding": embedding}
    values["support_image"], values["support_label"] = raw["image"], [f"class {i % 2}" for i in range(num_rows)]
    return {name: {key: values[key] for key in signature.inputs} for name, signature in signatures.items()}


def as_served(signatures, arguments):
    """Arguments as a SavedModel takes them: a signature for Classify reads examples."""
    return {
        name: {"inputs": export.examples_of(given)} if signatures[name].method == "classify" else given
        for name, given in arguments.items()
    }


def of_rows(arguments, rows):
    return {
        name: {key: v if key.startswith("support_") else [v[i] for i in rows] for key, v in given.items()}
        for name, given in arguments.items()
    }


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)), dtype="int32")


def assert_equal(answer, expected, exact=True):
    """Numbers to 1e-5; strings and PNG bytes exactly, or after another batch size to one level of a pixel."""
    assert set(answer) == set(expected)
    for key, value in expected.items():
        if value.dtype.kind in "OS":
            for mine, theirs in zip(answer[key].ravel().tolist(), value.ravel().tolist(), strict=True):
                if exact or not key.endswith("_bytes"):
                    assert mine == theirs, key
                else:
                    assert np.abs(pixels(mine) - pixels(theirs)).max() <= 1, key
        else:
            np.testing.assert_allclose(answer[key], value, atol=1e-5, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_saved_model_answers_as_this_process_does(name, trained, ask, raw, tmp_path):
    run = trained(name)
    index = {"index": "scenes:64", "k": 3} if name == "dual_encoder" else {}
    path = run.export(tmp_path, **index)
    assert path == tmp_path / name / "1"
    signatures = dict(run.signatures)
    if index:
        split = run.split("test")
        gallery = export.SearchIndex(run.embed("image", split), split.cells("id"))
        signatures["search"] = export.search_signature(gallery, signatures["encode_text"], 3)
    assert set(signatures) == SIGNATURES[name]

    seven = calls(run, signatures, raw)
    own = {key: signature(seven[key]) for key, signature in signatures.items()}
    served, one = ask(path, as_served(signatures, seven), as_served(signatures, of_rows(seven, [3])))
    order = [4, 0, 6, 2, 5, 1, 3]
    permuted = of_rows(seven, order)
    for key, signature in signatures.items():
        assert_equal(served[key], own[key])
        assert_equal(one[key], {k: v[3:4] for k, v in own[key].items()}, exact=False)
        assert_equal(signature(permuted[key]), {k: v[order] for k, v in own[key].items()}, exact=False)
        telling = [v for v in own[key].values() if v.dtype.kind == "f" or b"PNG" in bytes(v.ravel()[0][:9])]
        assert any(
            len({np.asarray(row).tobytes() if v.dtype.kind == "f" else row for row in v[:5]}) == 5 for v in telling
        )


@pytest.mark.long
def test_examples_of_one_request_do_not_name_the_rows_of_another(trained, raw, tmp_path):
    trained("few_shot").export(tmp_path)
    images = raw["image"][:5]
    given = [{"image": images[:3], "support_image": images[2:], "support_label": [f"{i}a", f"{i}a", f"{i}b"]}
             for i in range(6)]  # fmt: skip
    batching = serving.read_batching(tmp_path / "batching_parameters.txt")
    server = serving.Server(serving.models_in(tmp_path), 0, None, batching=batching, poll_seconds=None)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.rest_port}"

        def ask(values):  # a client is one connection
            with serving.Client(url) as client:
                return client.predict("few_shot", "classify", **values)

        alone = [ask(values) for values in given]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            together = list(pool.map(ask, given * 3))
        with serving.Client(url) as client:
            differences = [difference for *_, difference in serving.verify(client, tmp_path)]
    finally:
        server.stop()
    for found, expected in zip(together, alone * 3, strict=True):
        assert all(np.array_equal(found[name], value) for name, value in expected.items())
    assert max(differences) < 1e-6


@pytest.mark.parametrize("items", [1, 5, 127, 128, 129, 1500])
@pytest.mark.parametrize("shift", [0, -9])  # all negative: what pads the blocks must not be taken for near
def test_the_index_finds_exactly_the_nearest_and_of_equals_the_first(items, shift):
    random = np.random.default_rng(items)
    gallery = random.integers(-2, 3, (items, 3)).astype("float32")  # with many equal ones
    gallery[:, 0] += shift
    queries = np.concatenate([random.integers(-2, 3, (9, 3)), [[1, 0, 0]]]).astype("float32")
    k = min(10, items)
    found = export.SearchIndex(gallery, [f"item {i}" for i in range(items)]).search(tf.constant(queries), k)
    order = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :k]
    assert found["ids"].numpy().tolist() == [[f"item {i}".encode() for i in row] for row in order]
    np.testing.assert_array_equal(found["scores"], np.take_along_axis(queries @ gallery.T, order, axis=1))


def test_versions_are_numbered_and_a_signature_that_is_not_there_is_told(trained, ask, tmp_path, monkeypatch):
    run = trained("fusion_classifier")
    paths = [run.export(tmp_path) for _ in range(2)]
    monkeypatch.chdir(tmp_path)  # the process that asks runs elsewhere
    asked = {"classify": {"inputs": export.examples_of({"text": ["a circle"]})}}  # the picture is left out
    (answer,) = ask("fusion_classifier/1", asked)
    own = run.predict("classify", text=["a circle"])
    assert answer["classify"]["classes"][0, 0].decode() == own["classes"][0][0]
    np.testing.assert_allclose(answer["classify"]["scores"], own["scores"], atol=1e-5)
    assert [path.name for path in paths] == ["1", "2"]
    assert not list((tmp_path / "fusion_classifier").glob(".*"))
    with pytest.raises(RuntimeError, match="did not answer: KeyError: 'nowhere'"):
        ask(paths[1], {"nowhere": {"text": [""]}})
    (again,) = ask(paths[1], asked)
    np.testing.assert_array_equal(again["classify"]["scores"], answer["classify"]["scores"])


def test_a_process_that_ended_is_told(tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no TensorFlow here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with export.own_process() as ask, pytest.raises(RuntimeError, match="did not answer: ImportError: no TensorFlow"):
        ask(tmp_path, {"serving_default": {"text": ["a"]}})


def test_the_same_text_draws_the_same_picture_and_another_seed_another(trained):
    generate = trained("conditional_gan").predict
    text = "a large red circle"
    first, again = generate(text=[text, text])["image_bytes"]
    assert first == again == generate("generate_seeded", text=[text], seed=[0])["image_bytes"][0]
    assert generate("generate_seeded", text=[text], seed=[1])["image_bytes"][0] != first
    assert pixels(first).shape == (16, 16, 3)


# The run folder


@pytest.mark.parametrize("name", NAMES)
def test_run_folder_holds_what_it_says_and_gives_the_same_model(name, trained):
    run = trained(name)
    run.evaluate("validation")
    files = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert {
        "config.json",
        "preprocess.keras",
        "model.keras",
        "checkpoints/epoch-00001-step-000000.npz",
        "history.csv",
    } <= files
    assert ("targets.keras" in files) == (run.preprocessor.targets is not None)
    assert any(path.startswith("logs/events") for path in files)
    assert {"metrics/validation.json", "figures/history.png"} <= files
    assert any(path.startswith("figures/") and path.endswith("-validation.png") for path in files)
    assert not [path for path in files if "/." in path or path.startswith(".")]

    text = (run.path / "config.json").read_text()
    saved = json.loads(text)
    assert str(run.path.parent) not in text
    assert not [v for v in strings(saved) if v.startswith("/")]
    assert (saved["model"], saved["preset"], saved["data"]) == (name, "tiny", SOURCES.get(name, "scenes:64"))
    if run.config.of_kind("text"):
        assert saved["hyperparameters"]["vocabulary_size"] < 50  # that of the training split
    sizes = {split: len(rows) for split, rows in run.source.splits.items()}
    assert saved["splits"] == (sizes if name in SOURCES else {"train": 64, "validation": 8, "test": 8})

    again = zoo.load(run.path)
    assert again.config == run.config
    batches, others = (list(r.batches(r.split("test"))) for r in (run, again))
    for batch, other in zip(batches, others, strict=True):
        for part, expected in zip(other, batch, strict=True):
            assert all(np.array_equal(part[key], expected[key]) for key in expected)
    x = batches[0][0]
    x = {**x, "noise": np.ones((8, run.model.noise_dim), "float32")} if name == "conditional_gan" else x
    expected, answer = run.model(x, training=False), again.model(x, training=False)
    assert all(np.array_equal(answer[key], expected[key]) for key in expected)


def strings(value):
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, str):
        return [value]
    return [s for v in value for s in strings(v)] if hasattr(value, "__iter__") else []


def test_a_run_moves_with_its_data(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    rows = [["remark", "kind"], *([f"{color} thing", color] for color in ["red", "blue", "green"] * 10)]
    with (here / "things.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    options = {"columns": {"remark": "text", "kind": "label"}, "preset": "tiny", "text_encoder": "bag"}
    zoo.train("fusion_classifier", here / "things.csv", out=here / "runs" / "a", epochs=1, verbose=0, **options)
    assert str(tmp_path) not in (here / "runs" / "a" / "config.json").read_text()
    here.rename(there)
    run = zoo.load(there / "runs" / "a")
    assert run.labels == ("blue", "green", "red")
    assert run.evaluate("test")["remark"]["accuracy"] <= 1


def test_written_sentences_are_those_of_a_loop_in_python(trained, raw):
    """Greedy search in the graph, from states, against the whole model asked anew for every word."""
    from zoo import captioner

    run = trained("captioner")
    x = run.preprocessor.inputs({"image": tf.constant(raw["image"]), "text": tf.constant([""] * 7)})
    words = np.zeros((7, run.config.text_length), "int32")
    for t in range(run.config.text_length):
        logits = run.model({**x, "text": tf.constant(words)}, training=False)["text"].numpy()[:, t]
        logits[:, :3] = -np.inf  # padding, [UNK] and [START] are never said
        word = np.full(7, 3) if t == run.config.text_length - 1 else logits.argmax(-1)
        ended = (words == 3).any(axis=-1)
        words[:, t] = np.where(ended, 0, word)
    remember = captioner.memory_of(run.config, run.model)
    memory = remember({name: x[name] for name in remember.input})
    found, _ = captioner.write(run.config, run.model, memory, "greedy")
    np.testing.assert_array_equal(found[:, 0], words)
    assert len({tuple(row) for row in words.tolist()}) > 1


# What the models looked at


@pytest.mark.parametrize(
    "name",
    [
        *("fusion_classifier", "vqa", "dual_encoder"),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("tagger", "sentiment", "multitask")),
    ],
)
def test_a_row_is_explained(trained, name):
    run = trained(name)
    split = run.split("test")
    values = {n: split.cells(n)[0] for n in run.config.names}
    found = run.explain(**values)
    (text,) = run.config.of_kind("text")
    assert found["cam"]["image"].shape[0] > 1
    words = [word for word, _ in found["tokens"][text] if word != "[END]"]
    assert words == values[text].replace(",", " ,").split()[: len(words)]
    assert len(words) > 3
    x = run.read(**{n: [value] for n, value in values.items()})
    outputs = run.model(x, training=False)
    if name == "dual_encoder":
        expected = float(np.sum(outputs["image_embedding"] * outputs["text_embedding"]))
        assert (found["of"], found["shapley"]) == ("similarity", {})
    elif name == "sentiment":
        expected = float(outputs["polarity"][0])
    else:
        logits = outputs[{"fusion_classifier": "label", "vqa": "answer", "multitask": "label", "tagger": "tags"}[name]]
        expected = float(np.max(logits))
    assert found["score"] == pytest.approx(expected, abs=1e-5)
    if found["shapley"]:
        none = run.model({**x, "presence": np.zeros((1, len(run.config.names)), "float32")}, training=False)
        key = next(k for k in ("label", "answer", "tags", "polarity") if k in none)
        number = int(np.argmax(outputs[key][0])) if len(none[key].shape) > 1 else None
        of_none = float(none[key][0] if number is None else none[key][0, number])
        assert sum(found["shapley"].values()) == pytest.approx(expected - of_none, abs=1e-4)


def test_a_target_is_asked_for_by_name(trained):
    run = trained("fusion_classifier")
    picture = run.split("test").cells("image")[0]
    found = run.explain(target=run.labels[1], image=picture)
    assert found["of"] == run.labels[1]
    assert found["score"] == pytest.approx(float(run.model(run.read(image=[picture]))["label"][0, 1]), abs=1e-5)
    assert (found["tokens"], found["shapley"]) == ({}, {})  # one modality alone
    with pytest.raises(ValueError, match="Unknown target 'zebra'. The model knows: "):
        run.explain(target="zebra", image=picture)
    with pytest.raises(ValueError, match="Expected a model that names, answers, rates or compares"):
        trained("captioner").explain(image=picture)


def test_the_command_draws_and_says_it(trained, tmp_path, capsys):
    run = trained("vqa")
    picture = tmp_path / "a.png"
    picture.write_bytes(run.split("test").cells("image")[0])
    given = ["--image", str(picture), "--text", "what color is the ring", "--out", str(tmp_path / "why.png")]
    capsys.readouterr()
    assert main(["explain", str(run.path), *given]) in (0, None)
    said = capsys.readouterr().out.splitlines()
    assert said[0].split(":")[0] in run.labels
    assert said[1].startswith("question: what ")
    assert said[2].startswith("Shapley values: image ")
    assert said[-1] == f"figure: {tmp_path / 'why.png'}"
    assert (tmp_path / "why.png").stat().st_size > 5000
    assert main(["explain", str(run.path)]) == 2
    assert "Expected values for some of ['image', 'question']" in capsys.readouterr().err
