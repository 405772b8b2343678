"""Every fusion on one task that needs both modalities: whether a scene's ground and the remark on it are of one mood.

Neither the picture (a bright or a dark ground) nor the remark (a kind or an unkind word) says anything alone.
"""

import pathlib
import time

import zoo
from zoo import _registry, bench

NAMES = list(_registry.module("fusion_classifier").FUSIONS)
OPTIONS = {
    "columns": {"label": "agreement"}, "modalities": {"image": "image", "remark": "text"}, "image_encoder": "cnn",
    "text_encoder": "bag", "image_size": (32, 32), "image_width": 16, "modality_dropout": 0.0, "dropout": 0.0,
    "epochs": 8,
}  # fmt: skip


def run(out="bench/fusions", names=None, seed=0):
    """Trains a classifier with each fusion on `scenes:2000`, and returns the table.

    Args:
        out: folder of the runs and of `fusions.json`.
        names: of the fusions; all if None.
        seed: of the trainings.
    """
    out = pathlib.Path(out)
    return table(bench.measured(out / "fusions.json", names or NAMES, lambda name: measure(name, out, seed), seed=seed))


def measure(name, out, seed):
    """One fusion: `{"report", "parameters", "seconds"}`."""
    began = time.monotonic()
    options = {"fusion": name, "seed": seed, "overwrite": True, "verbose": 2, **OPTIONS}
    trained = zoo.train("fusion_classifier", "scenes:2000", out=out / name, **options)
    seconds = time.monotonic() - began
    report = trained.evaluate("test", subsets=True)
    return {"report": report, "parameters": trained.model.count_params(), "seconds": seconds}


def table(found):
    """A Markdown table: accuracy from both modalities and from each alone, the best fusion first."""
    rows = ("image and remark", "image", "remark", "majority label")
    lines = ["| fusion | both | picture | remark | most frequent | parameters | s |", "|---" * 7 + "|"]
    for name in sorted(found, key=lambda name: -found[name]["report"][rows[0]]["accuracy"]):
        said = " | ".join(f"{found[name]['report'][row]['accuracy']:.3f}" for row in rows)
        lines.append(f"| `{name}` | {said} | {found[name]['parameters']:,} | {found[name]['seconds']:.0f} |")
    return "\n".join(lines)
