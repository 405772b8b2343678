"""Tasks on scenes, small: better than chance, than one modality alone, and than what the words give away."""

import numpy as np
import pytest

import zoo
from zoo.vqa import REASONING


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    options = {
        "image_size": 24, "image_grid": 6, "image_width": 16, "width": 32, "text_encoder": "cnn",
        "modality_dropout": 0.05, "epochs": 12, "batch_size": 32, "verbose": 0,
    }  # fmt: skip
    return zoo.train("vqa", "scenes", out=tmp_path_factory.mktemp("vqa") / "run", preset="tiny", **options)


def test_questions_are_answered_from_the_picture(answering):
    report = answering.evaluate("test")
    accuracy = {title: numbers["accuracy"] for title, numbers in report.items()}
    both = accuracy["image and question"]
    assert both > accuracy["most frequent answer to the question"] + 0.1
    assert both > max(accuracy["image"], accuracy["question"]) + 0.1
    assert accuracy["type count"] > 0.8
    assert report["type count"]["question"] < 0.5  # counting needs the picture
    assert (answering.path / "figures" / "attention-test.png").stat().st_size > 1000


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
