"""Benchmarks: what was measured is kept, and the tables say it."""

import pytest

import zoo
from zoo import bench
from zoo._cli import main
from zoo.bench import answers, fusions, quality
from zoo.vqa import REASONING


def test_only_what_is_missing_is_measured(tmp_path):
    asked = []

    def measure(name):
        asked.append(name)
        if name == "c":
            raise KeyboardInterrupt
        return {"value": len(asked)}

    path = tmp_path / "some.json"
    with pytest.raises(KeyboardInterrupt):
        bench.measured(path, "abc", measure)
    assert bench.measured(path, "bad", measure) == {"a": {"value": 1}, "b": {"value": 2}, "d": {"value": 4}}
    assert asked == ["a", "b", "c", "d"]


def test_quality_measures_every_model():
    assert zoo.names() == quality.NAMES


def test_quality_names_the_best_single_modality_and_chance():
    report = {
        "image and remark": {"mae": 0.1}, "image": {"mae": 0.5}, "remark": {"mae": 0.4},
        "mean of training": {"mae": 0.6},
    }  # fmt: skip
    one = {"report": report, "parameters": 1234567, "epochs": 4, "seconds": 50.0, "bytes": 2_300_000}
    line = quality.table({"sentiment": one}).splitlines()[-1]
    expected = "| `sentiment` | image and remark: mae | 0.100 | 0.400 | 0.600 | 1,234,567 | 12 | 4 | 2.3 |"
    assert line == expected
    searched = {**one, "report": {"image -> text": {"recall@10": 0.9, "gallery": 500}}}
    line = quality.table({"dual_encoder": searched}).splitlines()[-1]
    assert line.startswith("| `dual_encoder` | image -> text: recall@10 | 0.900 | — | 0.020 |")


def test_answers_are_told_by_type():
    rows = ["image and question", "question", "image", "most frequent answer to the question"]
    rows += [f"type {kind}" for kind in answers.TYPES]
    report = {row: {"accuracy": i / 10} for i, row in enumerate(rows)}
    line = answers.table({"film": {"report": report, "parameters": 1000}}).splitlines()[-1]
    expected = "| `film` | 0.000 | 0.400 | 0.500 | 0.600 | 0.700 | 0.800 | 0.100 | 0.200 | 0.300 | 1,000 |"
    assert line == expected
    assert tuple(answers.NAMES) == REASONING  # each is a preset of that name


def test_the_best_fusion_comes_first():
    def one(accuracy):
        rows = {"image and remark": accuracy, "image": 0.5, "remark": 0.4, "majority label": 0.3}
        report = {row: {"accuracy": value} for row, value in rows.items()}
        return {"report": report, "parameters": 1000, "seconds": 7.4}

    lines = fusions.table({"sum": one(0.6), "tensor": one(0.9)}).splitlines()
    assert lines[2:] == [
        "| `tensor` | 0.900 | 0.500 | 0.400 | 0.300 | 1,000 | 7 |",
        "| `sum` | 0.600 | 0.500 | 0.400 | 0.300 | 1,000 | 7 |",
    ]


def test_a_benchmark_names_what_it_measures(capsys):
    assert main(["bench", "answers", "--only", "flim"]) == 2
    assert "does not measure `flim`. Did you mean `film`? It measures: stacked" in capsys.readouterr().err
    assert main(["bench", "answer"]) == 2
    assert (
        "Unknown benchmark `answer`. Did you mean `answers`? There is: answers, fusions, pointing, quality."
        in capsys.readouterr().err
    )
