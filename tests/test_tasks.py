"""Tasks on scenes, small: better than chance, than one modality alone, and than what the words give away."""

import json

import keras
import numpy as np
import pytest

import zoo
from mmkeras import data
from zoo.vqa import REASONING


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    options = {
        "image_size": 24, "image_grid": 6, "image_width": 16, "width": 32, "text_encoder": "cnn",
        "modality_dropout": 0.05, "epochs": 12, "batch_size": 32, "verbose": 0,
    }  # fmt: skip
    return zoo.train("vqa", "scenes", out=tmp_path_factory.mktemp("vqa") / "run", preset="tiny", **options)


@pytest.mark.long
def test_questions_are_answered_from_the_picture(answering):
    report = answering.evaluate("test")
    accuracy = {title: numbers["accuracy"] for title, numbers in report.items()}
    both = accuracy["image and question"]
    assert both > accuracy["most frequent answer to the question"] + 0.1
    assert both > max(accuracy["image"], accuracy["question"]) + 0.1
    assert accuracy["type count"] > 0.8
    assert report["type count"]["question"] < 0.5  # counting needs the picture
    assert (answering.path / "figures" / "attention-test.png").stat().st_size > 1000


@pytest.mark.long
def test_pictures_of_other_questions_are_no_help(answering):
    (x, y), *_ = answering.batches(answering.split("test"), batch_size=500)

    def accuracy(pictures):
        said = answering.model({**x, "image": pictures}, training=False)["answer"].numpy().argmax(-1)
        return (said == y["answer"].numpy()).mean()

    assert accuracy(x["image"]) > accuracy(np.roll(x["image"], 7, axis=0)) + 0.1


def test_the_most_frequent_answer_is_that_of_training(answering):
    train, test = answering.source.split("train"), answering.source.split("test")
    right = 0
    for question, answer in zip(test.cells("question"), test.cells("answer"), strict=True):
        same = [a for q, a in zip(train.cells("question"), train.cells("answer"), strict=True) if q == question]
        answers = same or train.cells("answer")
        right += max(dict.fromkeys(answers), key=answers.count) == answer
    report = answering.evaluate("test")["most frequent answer to the question"]
    assert report["accuracy"] == pytest.approx(right / len(test))


@pytest.mark.parametrize("reasoning", REASONING)
def test_attention_is_shared_out_over_the_places(reasoning):
    model = zoo.build("vqa", preset="tiny", reasoning=reasoning)
    random = np.random.default_rng(0)
    x = {"image": random.uniform(size=(3, 16, 16, 3)).astype("float32"), "question": random.integers(4, 50, (3, 8))}
    outputs = model(x)
    attention = outputs["attention"].numpy()
    assert attention.shape == (3, 16)
    assert (attention >= 0).all()
    np.testing.assert_allclose(attention.sum(axis=-1), 1, rtol=1e-4)
    other = model({**x, "question": x["question"][::-1]})
    assert np.abs(other["answer"] - outputs["answer"])[0].max() > 1e-4


@pytest.mark.parametrize("reasoning", REASONING)
def test_of_an_absent_question_not_even_the_length_is_known(reasoning):
    model = zoo.build("vqa", preset="tiny", reasoning=reasoning)
    stand_in = model.get_layer("question_or_nothing").stand_in
    stand_in.assign(np.linspace(-1, 1, stand_in.shape[0]))
    questions = np.zeros((2, 8), int)
    questions[0, :6], questions[1, :2] = 7, 9
    x = {
        "image": np.ones((2, 16, 16, 3), "float32"),
        "question": questions,
        "presence": np.array([[1, 0]] * 2, "float32"),
    }
    first, second = model.predict(x, verbose=0)["answer"]
    np.testing.assert_allclose(first, second, atol=1e-6)


# Captions, tags, polarity, and several heads at once


def test_captions_say_what_is_in_the_picture(tmp_path):
    options = {"preset": "tiny", "epochs": 10, "batch_size": 16, "verbose": 0}
    run = zoo.train("captioner", "scenes:1200", out=tmp_path / "run", **options)
    report = run.evaluate("test")
    own, other = report["text from image"], report["given another row"]
    assert own["cider"] > 2 * other["cider"]
    assert own["rouge_l"] > other["rouge_l"] + 0.06
    assert own["perplexity"] < 2.5  # a vocabulary of 27 words
    assert (tmp_path / "run" / "figures" / "attention-test.png").stat().st_size > 1000


@pytest.mark.long
def test_tags_come_from_both_modalities_and_have_thresholds(tmp_path):
    run = zoo.train("tagger", "scenes:600", out=tmp_path / "run", preset="tiny", epochs=6, verbose=0)
    report = run.evaluate("test")
    both = report["image and text"]
    assert both["map"] > max(report["image"]["map"], report["text"]["map"]) + 0.05
    assert both["map"] > report["every tag always"]["map"] + 0.2
    assert both["macro_f1"] > report["thresholds of one half"]["macro_f1"] + 0.05
    loaded = zoo.load(tmp_path / "run")  # the thresholds are kept
    thresholds = loaded.model.get_layer("predicted").thresholds.numpy()
    np.testing.assert_array_equal(thresholds, run.model.get_layer("predicted").thresholds.numpy())
    assert len(set(thresholds.round(4))) > 5
    split = run.source.split("test")
    answer = loaded.predict(image=split.cells("image")[:3], text=split.cells("text")[:3])
    np.testing.assert_array_equal(answer["predicted"], answer["probabilities"] >= thresholds)
    named = [[tag for tag, on in zip(run.labels, row, strict=True) if on] for row in answer["predicted"]]
    assert [row.split("\t") if row else [] for row in answer["tags"]] == named


@pytest.mark.parametrize(
    "task",
    [pytest.param("regression", marks=pytest.mark.long), pytest.param("classification", marks=pytest.mark.slow)],
)
def test_polarity_takes_both_modalities_where_they_disagree(tmp_path, task):
    run = zoo.train("sentiment", "scenes:300", out=tmp_path / "run", preset="tiny", epochs=10, verbose=0, task=task)
    report = run.evaluate("test")
    if task == "classification":
        alone = max(report["image"]["accuracy"], report["remark"]["accuracy"])
        assert report["image and remark"]["accuracy"] > max(alone, report["majority label"]["accuracy"]) + 0.15
        return
    both = report["image and remark"]
    assert both["mae"] < 0.3 < min(report["image"]["mae"], report["remark"]["mae"])
    assert both["mae"] < 0.5 * report["mean of training"]["mae"]
    assert both["pearson"] > 0.9
    # A dark ground with a kind word: the picture pulls down, the word up.
    split = run.source.split("test")
    apart = [i for i, pair in enumerate(zip(split.cells("mood_image"), split.cells("mood_text"), strict=True))
             if pair == (-1, 1)]  # fmt: skip
    moved = run.predict(
        "contributions",
        image=[split.cells("image")[i] for i in apart],
        remark=[split.cells("remark")[i] for i in apart],
    )
    assert (moved["image"] < 0).mean() > 0.9
    assert (moved["remark"] > 0).mean() > 0.9


def test_equal_texts_are_found_for_one_another(tmp_path):
    (tmp_path / "a.csv").write_text("text,vector,label\n" + "".join(f"a {i % 2},{i} {-i},{i % 2}\n" for i in range(30)))
    options = {"preset": "tiny", "modalities": {"vector": "vector", "text": "text"}, "epochs": 1, "verbose": 0}
    run = zoo.train("multitask", str(tmp_path / "a.csv"), out=tmp_path / "run", heads={"retrieval": 1.0}, **options)
    assert run.evaluate("train")["row -> text"]["recall@1"] > 0.3  # whichever text is nearest, about half have it


@pytest.mark.long
def test_every_head_learns_from_the_shared_trunk(tmp_path):
    options = {"preset": "tiny", "epochs": 6, "batch_size": 16, "verbose": 0}
    run = zoo.train("multitask", "scenes:1200", out=tmp_path / "run", **options)
    report = run.evaluate("test")
    assert report["tags"]["map"] > report["tags, every tag always"]["map"] + 0.08
    assert report["category"]["auroc"] > 0.6  # half by chance
    assert report["caption"]["token_accuracy"] > report["caption, another row's"]["token_accuracy"] + 0.08
    assert report["row -> text"]["recall@10"] > 4 * report["row -> text, by chance"]["recall@10"]


@pytest.mark.long
def test_a_caption_in_another_language_from_picture_and_text(tmp_path):
    """Two sources at once: what the picture does not show is taken from the text."""
    words = {"red": "rot", "blue": "blau", "green": "grün", "circle": "kreis", "square": "quadrat", "cross": "kreuz"}
    rows = []
    for color in ("red", "blue", "green"):
        for shape in ("circle", "square", "cross"):
            rows += [{"text": f"{color} {shape}", "de": f"{words[color]} {words[shape]}"}] * 12
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"image": "", **row}) for row in rows))
    (tmp_path / "validation.jsonl").write_text("\n".join(json.dumps({"image": "", **row}) for row in rows[::12]))
    options = {"preset": "tiny", "modalities": {"text": "text", "de": "text"}, "target": "de", "epochs": 40}
    columns = {"de": "text"}
    run = zoo.train("captioner", tmp_path, out=tmp_path / "run", columns=columns, verbose=0, **options)
    answer = run.predict(text=["blue cross", "green circle"])
    assert answer["sentences"][:, 0].tolist() == ["blau kreuz", "grün kreis"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["audio", "video"])
def test_sounds_and_clips_are_described(tmp_path, kind):
    options = {"preset": "tiny", "modalities": {kind: kind, "text": "text"}, "epochs": 2, "verbose": 0}
    run = zoo.train("captioner", "scenes:64", out=tmp_path / "run", **options)
    split = run.source.split("test")
    one, two = (run.predict(**{kind: split.cells(kind)[i : i + 1]})["scores"] for i in (0, 1))
    assert np.abs(one - two).max() > 1e-6
    assert run.evaluate("test")[f"text from {kind}"]["perplexity"] < 40
    assert (tmp_path / "run" / "figures" / "attention-test.png").stat().st_size > 1000
    tagged = zoo.train("tagger", "scenes:64", out=tmp_path / "tags", **{**options, "modalities": {kind: kind}})
    assert tagged.predict(**{kind: split.cells(kind)[:2]})["probabilities"].shape[0] == 2


def test_answers_that_cannot_be_used_are_told(tmp_path):
    good = [{"text": "a", "tags": ["x"], "score": 0.5}, {"text": "b", "tags": ["y"], "score": -1}] * 20
    cases = [
        ("tagger", {"tags": []}, r"row 41: the target `tags` is empty"),
        ("tagger", {"tags": 7}, r"row 41: expected a list of tags, got 7"),
        ("sentiment", {"score": "great"}, r"row 41: expected a number, got 'great'"),
        ("sentiment", {"score": ""}, r"row 41: the target `score` is empty"),
        ("captioner", {"text": ""}, r"row 41: "),
    ]
    for name, change, message in cases:
        rows = [*good, {**good[0], **change}]
        (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"remark": "words", **row}) for row in rows))
        (tmp_path / "validation.jsonl").write_text(json.dumps({"remark": "words", **good[0]}))
        options = {"preset": "tiny", "epochs": 1, "verbose": 0, "modalities": {"text": "text"}}
        if name == "sentiment":
            options["target"] = "score"
        if name == "captioner":
            options["modalities"] = {"text": "text", "remark": "text"}
        columns = {"remark": "text"}
        with pytest.raises(data.DataError, match=message):
            zoo.train(name, tmp_path, out=tmp_path / "run", columns=columns, **options)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "options"), [("sentiment", {"task": "classification"}), ("transformer", {})])
def test_a_model_of_one_modality_is_evaluated(tmp_path, name, options):
    options = {"preset": "tiny", "epochs": 1, "verbose": 0, "modalities": {"image": "image"}, **options}
    run = zoo.train(name, "scenes:60", out=tmp_path / "run", **options)
    assert set(run.evaluate("test")) == {"image", "majority label"}


# One transformer for several tasks


@pytest.mark.parametrize("stream", ["single", "cross_modal", "bottleneck"])
def test_one_network_embeds_each_modality_alone(stream):
    """For retrieval a modality's embedding is what the network says of it alone, whatever the others hold."""
    keras.utils.set_random_seed(0)
    model = zoo.build("transformer", preset="tiny", task="retrieval", stream=stream)
    random = np.random.default_rng(0)
    x = {"image": random.random((6, 16, 16, 3)).astype("float32"), "text": random.integers(4, 50, (6, 8))}
    outputs = model(x)
    for name, other in (("image", "text"), ("text", "image")):
        found = outputs[f"{name}_embedding"]
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(model({**x, other: x[other][::-1]})[f"{name}_embedding"], found)
        assert np.abs(model({**x, name: x[name][::-1]})[f"{name}_embedding"] - found).max() > 1e-3


@pytest.mark.slow
def test_a_transformer_finds_pictures_by_text(tmp_path):
    options = {"preset": "tiny", "task": "retrieval", "epochs": 8, "batch_size": 32, "verbose": 0}
    run = zoo.train("transformer", "scenes:800", out=tmp_path / "run", **options)
    report = run.evaluate("test")
    assert report["text -> image"]["recall@10"] > 3 * 10 / 100
    split = run.split("test")
    texts = split.cells("text")[:5]
    outputs = run.model(next(iter(run.batches(split.take(range(5)), batch_size=5)))[0])
    np.testing.assert_allclose(run.embed("text", texts), outputs["text_embedding"], atol=1e-5)
    np.testing.assert_allclose(run.embed("image", split.take(range(5))), outputs["image_embedding"], atol=1e-5)
    ids, scores, _ = run.search(texts[0], "scenes:800", k=3)
    assert len(ids) == 3
    assert scores == sorted(scores, reverse=True)
    path = run.export(tmp_path / "servables", index="scenes:800", k=3)
    assert (path / "saved_model.pb").exists()
