"""Which way of reasoning answers what: the presets of `vqa` over one picture encoder that a `tagger` has learned.

The tagger learns shapes and colours from pictures alone; the encoder is then frozen, as the networks of these papers
had theirs from ImageNet. 20,000 scenes, each with one question: a fifth of them about colour, shape, number, ...
"""

import pathlib

import zoo
from zoo import bench

DATA, EPOCHS = "scenes:20000", 8
TYPES = ("color", "shape", "count", "exists", "side")
NAMES = ["stacked_attention", "co_attention", "film", "relation_network", "mcan", "concat"]


def run(out="bench/answers", names=None, seed=0):
    """Trains the tagger and presets of `vqa`, and returns the table of accuracies.

    Args:
        out: folder of the runs and of `answers.json`.
        names: of the presets; all if None.
        seed: of the trainings.
    """
    out = pathlib.Path(out)
    if not (out / "tagger" / "model.keras").exists():
        options = {"modalities": {"image": "image"}, "seed": seed, "overwrite": True, "verbose": 2}
        zoo.train("tagger", "scenes", out=out / "tagger", **options)
    return table(bench.measured(out / "answers.json", names or NAMES, lambda name: measure(name, out, seed), seed=seed))


def measure(name, out, seed):
    """One preset's report on the test split."""
    options = {"preset": name, "warm_start": out / "tagger", "freeze": "image", "epochs": EPOCHS, "seed": seed}
    trained = zoo.train("vqa", DATA, out=out / name, overwrite=True, verbose=2, **options)
    return {"report": trained.evaluate("test"), "parameters": trained.model.count_params()}


def table(found):
    """A Markdown table: accuracy on all questions, on each type, and from the question or the picture alone."""
    titles = ["preset", "all", *TYPES, "question alone", "picture alone", "most frequent answer", "parameters"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in sorted(found):
        report = found[name]["report"]
        rows = ["image and question", *(f"type {kind}" for kind in TYPES)]
        rows += ["question", "image", "most frequent answer to the question"]
        said = [f"{report[row]['accuracy']:.3f}" for row in rows]
        lines.append(f"| `{name}` | {' | '.join(said)} | {found[name]['parameters']:,} |")
    return "\n".join(lines)
