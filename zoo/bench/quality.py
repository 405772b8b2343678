"""What every model of the zoo learns by `zoo train NAME --data scenes`, against chance and its best single modality.

A model's figures stay in its run folder; a second call trains only what is missing there.
"""

import pathlib
import subprocess
import sys
import time

import zoo
from zoo import bench

# Model: (metric, is more better, report's row of the whole model, rows of single modalities, row and metric of chance).
# A report is what `zoo evaluate` writes; the best of the single modalities is taken.
MEASURES = {
    "autoencoder": [
        ("mse", False, "image from text", [], ("image from text", "mse_of_mean")),
        ("bleu4", True, "text from image", [], None),
    ],
    "captioner": [
        ("bleu4", True, "text from image", [], ("given another row", "bleu4")),
        ("exact_match", True, "text from image", [], ("given another row", "exact_match")),
    ],
    "conditional_gan": [("r_precision", True, "over the retriever", [], ("over the retriever", "chance"))],
    "cross_modal": [("mse", False, "image from text", [], ("image from text", "mse_of_mean"))],
    "domain_adversarial": [
        ("accuracy", True, "target", [], ("target", "majority")),
        ("accuracy", True, "source", [], ("source", "majority")),
    ],
    "dual_encoder": [
        ("recall@10", True, "image -> text", [], "gallery"),
        ("recall@10", True, "text -> image", [], "gallery"),
    ],
    "few_shot": [
        ("accuracy", True, "5-way 1-shot", [], ("5-way 1-shot, raw inputs", "accuracy")),
        ("accuracy", True, "5-way 5-shot", [], ("5-way 5-shot, raw inputs", "accuracy")),
    ],
    "fusion_classifier": [("accuracy", True, "image and text", ["image", "text"], ("majority label", "accuracy"))],
    "masked_autoencoder": [
        ("mse", False, "hidden image from image and text", ["hidden image from image", "hidden image from text"],
         ("hidden image from image", "mse_of_mean")),
        ("accuracy", True, "hidden text from image and text", ["hidden text from image", "hidden text from text"],
         ("hidden text from text", "most_frequent")),
        ("accuracy", True, "linear probe of image", [], ("linear probe of image", "untrained")),
    ],
    "multitask": [
        ("accuracy", True, "category", [], ("category, majority", "accuracy")),
        ("map", True, "tags", [], ("tags, every tag always", "map")),
        ("bleu4", True, "caption", [], ("caption, another row's", "bleu4")),
        ("recall@10", True, "row -> text", [], ("row -> text, by chance", "recall@10")),
    ],
    "sentiment": [("mae", False, "image and remark", ["image", "remark"], ("mean of training", "mae"))],
    "tagger": [("map", True, "image and text", ["image", "text"], ("every tag always", "map"))],
    "transformer": [("accuracy", True, "image and text", ["image", "text"], ("majority label", "accuracy"))],
    "variational_autoencoder": [
        ("mse", False, "image from text", [], ("image from text", "mse_of_mean")),
        ("bleu4", True, "text from image", [], None),
        ("accuracy", True, "image from text, its label", [], None),
        ("accuracy", True, "text from image, its label", [], None),
        ("same_label", True, "image and text from the prior", [], ("image and text from the prior", "chance")),
    ],
    "vqa": [
        ("accuracy", True, "image and question", ["image", "question"],
         ("most frequent answer to the question", "accuracy")),
    ],
}  # fmt: skip
NAMES = sorted(MEASURES)
# Models whose drawings are judged by another, if it is there: the option of their evaluation, and that model.
JUDGES = {
    "conditional_gan": {"retriever": "dual_encoder"},
    "variational_autoencoder": {"classifier": "fusion_classifier"},
}


def run(out="bench/quality", names=None, seed=0):
    """Trains and measures models, and returns the table.

    Args:
        out: folder of the runs and of `quality.json`.
        names: of the models; all if None.
        seed: of the trainings.
    """
    out = pathlib.Path(out)
    names = sorted(names or NAMES, key=lambda name: name in JUDGES)  # these ask the others
    return table(bench.measured(out / "quality.json", names, lambda name: measure(name, out, seed), seed=seed))


def measure(name, out, seed):
    """One model: `{"report", "parameters", "epochs", "seconds", "bytes"}`."""
    began = time.monotonic()
    command = ["train", name, "--data", "scenes", "--out", str(out / name), "--seed", str(seed), "--overwrite"]
    subprocess.run([sys.executable, "-m", "zoo._cli", *command], check=True)  # as a user types it
    seconds = time.monotonic() - began
    trained = zoo.load(out / name)
    options = {"subsets": True} if name == "fusion_classifier" else {}
    for option, judge in JUDGES.get(name, {}).items():
        if (out / judge / "model.keras").exists():
            options[option] = zoo.load(out / judge)
    report = trained.evaluate("test", **options)
    servable = trained.export(out / "servables")
    size = sum(file.stat().st_size for file in servable.rglob("*") if file.is_file())
    count = trained.model.count_params()
    return {"report": report, "parameters": count, "epochs": trained.config.epochs, "seconds": seconds, "bytes": size}


def table(found):
    """A Markdown table of what was measured."""
    lines = [
        "| model | metric | all | best single | chance | parameters | s an epoch | epochs | SavedModel, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(found):
        one = found[name]
        costs = (
            f"{one['parameters']:,} | {one['seconds'] / one['epochs']:.0f} | {one['epochs']} | {one['bytes'] / 1e6:.1f}"
        )
        for metric, more_is_better, row, singles, chance in MEASURES[name]:
            if row not in one["report"]:
                continue
            cells = [one["report"][row][metric]]
            alone = [one["report"][single][metric] for single in singles]
            cells.append((max if more_is_better else min)(alone) if alone else None)
            if chance == "gallery":
                cells.append(int(metric.partition("@")[2]) / one["report"][row]["gallery"])
            else:
                cells.append(one["report"][chance[0]][chance[1]] if chance else None)
            said = " | ".join("—" if value is None else f"{value:.3f}" for value in cells)
            lines.append(f"| `{name}` | {row}: {metric} | {said} | {costs} |")
            costs = " | | |"
    return "\n".join(lines)
