"""Questions about generated scenes: colours and shapes, how many, whether there is one, and on which side.

FiLM (Perez 2018) over a picture encoder that the shipped captioner learned, and that is not trained further: scenes of
the test split were in no training, a scene belongs to one split of all. Yes and no are equally frequent, a quarter of
the answers can be known without the picture.
"""

import datetime

from zoo.protocols import Row
from zoo.protocols._training import trained

MODEL = "vqa"
SEEDS = 3
DATA, QUICK_DATA = "scenes:40000", "scenes:4000"
TYPES = ("color", "shape", "count", "exists", "side")
ROWS = {
    "accuracy": Row(reach=97.0),
    **{f"accuracy, {kind}": Row() for kind in TYPES},
    "the question alone": Row(),
    "the most frequent answer to the question": Row(),
}
QUICK = {"accuracy": (50.0, 75.0), "the question alone": (20.0, 40.0)}


def measure(folder, seed, quick):
    """Trains the preset `small`."""
    options = {"preset": "small", "warm_start": "captioner:scenes", "freeze": ["image"], "seed": seed}
    run = trained(MODEL, QUICK_DATA if quick else DATA, folder / "run", **options)
    read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    report = run.evaluate("test")
    asked = {
        "accuracy": "image and question",
        **{f"accuracy, {kind}": f"type {kind}" for kind in TYPES},
        "the question alone": "question",
        "the most frequent answer to the question": "most frequent answer to the question",
    }
    values = {row: 100 * report[title]["accuracy"] for row, title in asked.items()}
    return {"values": values, "parameters": {MODEL: run.model.count_params()}, "test_read": read, "report": report}
