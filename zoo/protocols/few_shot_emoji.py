"""Kinds of emoji that were never trained on, told apart by one or five drawings of each.

An encoder of pictures learns what drawings have to do with their names, by a dual encoder's contrast and by telling
their categories; prototypical networks go on from there, by episodes. Neither sees a drawing of the kinds that are
asked for: each seed takes a fifth of all subcategories ("animal-bug", "food-fruit" ..) out of training to test on, and
a tenth to watch the loss by; a drawing of any style belongs where its subcategory does. Tests are 5-way, with one
and with five examples, and the same episodes are asked of the pixels themselves: the nearest mean of the examples'
pixels, which is the nearest drawing where there is one example.
"""

import datetime

import numpy as np

from zoo.protocols import Row
from zoo.protocols._emoji import emoji
from zoo.protocols._training import trained

MODEL = "few_shot"
SEEDS, EPOCHS = 3, {"dual_encoder": 40, "few_shot": 15}
NETWORK = {"image_encoder": "cnn", "image_size": (48, 48)}
NAMES = {
    "columns": {"label": "category"}, "label_weight": 0.3, "text_encoder": "bag", "text_dim": 128, "text_width": 256,
    "augment_tokens": 0.0,
    "skip_bad": True,  # categories all of whose kinds are held out
}  # fmt: skip
TITLES = ("5-way 1-shot", "5-way 5-shot")
ELSEWHERE = "Omniglot, prototypical networks, Snell 2017"
ROWS = {
    "5-way 1-shot": Row(published="98.8", source=ELSEWHERE),
    "5-way 5-shot": Row(published="99.7", source=ELSEWHERE),
    "5-way 1-shot, nearest pixels": Row(),
    "5-way 5-shot, nearest pixels": Row(),
    "5-way 1-shot, above nearest pixels": Row(unit="points", reach=20.0),
    "5-way 5-shot, above nearest pixels": Row(unit="points", reach=20.0),
}
QUICK = {"5-way 1-shot": (25.0, 70.0), "5-way 5-shot": (30.0, 80.0)}


def measure(folder, seed, quick):
    """Trains the dual encoder and the prototypical networks on the subcategories that are left."""
    from zoo import _pack

    _pack.pack(divided(emoji(), seed), folder / "data", tell=lambda line: None)
    epochs = {name: count // (10 if quick else 1) for name, count in EPOCHS.items()}
    options = {"seed": seed, **NETWORK}
    names, data = folder / "names", str(folder / "data")
    trained("dual_encoder", data, names, epochs=epochs["dual_encoder"], **NAMES, **options)
    options |= {"class_column": "subcategory", "warm_start": str(names), "epochs": epochs["few_shot"]}
    run = trained("few_shot", data, folder / "run", **options)
    read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    report, values = run.evaluate("test"), {}
    for title in TITLES:
        found, raw = (100 * report[row]["accuracy"] for row in (title, f"{title}, raw inputs"))
        values |= {title: found, f"{title}, nearest pixels": raw, f"{title}, above nearest pixels": found - raw}
    parameters = {"prototypical": run.model.count_params()}
    return {"values": values, "parameters": parameters, "test_read": read, "report": report}


def divided(source, seed):
    """The drawings of all splits, divided anew by their subcategory."""
    from mmkeras.data import Source

    pooled, *others = source.splits.values()
    for other in others:
        pooled = pooled.append(other)
    cells = np.array([str(cell) for cell in pooled.cells("subcategory")])
    names = np.random.default_rng(seed).permutation(sorted(set(cells) - {""}))
    test, validation, train = np.split(names, [len(names) // 5, len(names) * 3 // 10])
    parts = {"train": train, "validation": validation, "test": test}
    splits = {name: pooled.take(np.flatnonzero(np.isin(cells, part)), name) for name, part in parts.items()}
    return Source(f"{source.spec}, divided with seed {seed}", splits, "a fifth of the subcategories is the test split")


def details(found):
    """A training a line: its accuracy, with the 95 % interval over its episodes, not over trainings."""
    lines = [f"| seed | {' | '.join(TITLES)} |", "|---|---|---|"]
    for seed, one in enumerate(found):
        rows = [one["report"][title] for title in TITLES]
        cells = [f"{100 * row['accuracy']:.1f} ± {100 * row['interval']:.1f}" for row in rows]
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)
