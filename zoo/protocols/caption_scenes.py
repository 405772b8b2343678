"""Captions of generated scenes: every object with its size, colour, shape and place, and the ground.

A picture has one true caption, since objects are named in a fixed order: the largest first, then as one reads. Exact
match is the share of captions that are right to the last word.
"""

import datetime

from zoo.protocols import Row
from zoo.protocols._training import trained

MODEL = "captioner"
SEEDS = 3
DATA, QUICK_DATA, EPOCHS = "scenes:50000", "scenes:5000", 8
ROWS = {
    "exact match": Row(reach=95.0),
    "BLEU-4": Row(unit="of 100"),
    "exact match, another row's": Row(),
    "BLEU-4, another row's": Row(unit="of 100"),
}
QUICK = {"BLEU-4": (20.0, 95.0)}


def measure(folder, seed, quick):
    """Trains the captioner's preset `small`."""
    run = trained(MODEL, QUICK_DATA if quick else DATA, folder / "run", preset="small", epochs=EPOCHS, seed=seed)
    read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    report, values = run.evaluate("test"), {}
    for row, title in (("text from image", ""), ("given another row", ", another row's")):
        values[f"exact match{title}"] = 100 * report[row]["exact_match"]
        values[f"BLEU-4{title}"] = report[row]["bleu4"]
    parameters = {MODEL: run.model.count_params()}
    return {"values": values, "parameters": parameters, "test_read": read, "report": report}
