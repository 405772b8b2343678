"""Drawings in a style that has no labels: what three other styles teach of it, and what adaptation adds.

Categories of emoji, learned from three styles and asked in a fourth, whose drawings, without their categories, take
part in training: nothing of them (`source only`), or by DANN, CDAN or MMD. Concepts are those of training: the styles
alone differ. How much adaptation weighs was chosen with each of the three styles as the target; epochs are set
beforehand; the categories of the fourth style are read once, at the end.
"""

import datetime

from zoo import bench
from zoo.protocols import Row
from zoo.protocols._emoji import emoji
from zoo.protocols._training import trained

MODEL = "domain_adversarial"
SEEDS, EPOCHS = 5, 15
NETWORK = {"image_encoder": "cnn", "image_size": (32, 32)}  # five trainings of four methods in a quarter of an hour
# An adversary against the label's own loss: as strong as that. The kernels' distance overwhelms it with more.
WEIGHTS = {"dann": 1.0, "cdan": 1.0, "mmd": 0.3}
METHODS = {"source only": "none", "DANN": "dann", "CDAN": "cdan", "MMD": "mmd"}
ROWS = {
    "source only": Row(published="49.5", source="MNIST to USPS, other data"),
    "DANN": Row(published="80.4", source="MNIST to USPS, other data"),
    "CDAN": Row(),
    "MMD": Row(),
    "DANN above source only": Row(unit="points", aim=8.0, reach=0.0),
    "trainings in which DANN is above source only": Row(reach=100.0),
    "always the most frequent category": Row(),
}
QUICK = {"source only": (25.0, 75.0), "DANN": (20.0, 75.0)}


def measure(folder, seed, quick):
    """Trains the classifier once with each method."""
    source = emoji().spec
    options = {
        "columns": {"label": "category"}, "target_split": "test_style", "seed": seed,
        "epochs": EPOCHS // (7 if quick else 1), **NETWORK,
    }  # fmt: skip
    methods = ("source only", "DANN") if quick else METHODS

    def asked(name):
        method = METHODS[name]
        weight = {"adaptation_weight": WEIGHTS[method]} if method in WEIGHTS else {}
        run = trained(MODEL, source, folder / method, method=method, **weight, **options)
        read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return {"report": run.evaluate("test_style"), "parameters": run.model.count_params(), "test_read": read}

    folder.mkdir(parents=True, exist_ok=True)
    found = bench.measured(folder / "found.json", list(methods), asked)
    read = max(one["test_read"] for one in found.values())  # last; some were perhaps measured before an interruption
    values = {name: 100 * one["report"]["target"]["accuracy"] for name, one in found.items()}
    above = values["DANN"] - values["source only"]
    values |= {
        "DANN above source only": above,
        "trainings in which DANN is above source only": 100.0 * (above > 0),
        "always the most frequent category": 100 * found["DANN"]["report"]["target"]["majority"],
    }
    parameters = {name: one["parameters"] for name, one in found.items()}
    return {"values": values, "parameters": parameters, "test_read": read}
