"""Names of emoji and drawings of them find each other: in a style never drawn before, and for emoji never seen.

A tower of pictures and one a language (English, German, French, Chinese) learn one space from drawings in three styles,
and to tell the kind of emoji ("animal-bug", "food-fruit" ..) from each embedding.
Asked are the drawings of a fourth style (`test_style`), each of an emoji that was seen, against all their names, both
ways; and the drawings and names of emoji that were in no training (`test_concept`). The control reads pixels: the name
of the nearest training drawing. Names of one emoji in two languages find each other as well.
"""

import datetime
from typing import Any

import numpy as np

from zoo.protocols import Row
from zoo.protocols._emoji import emoji
from zoo.protocols._training import trained

MODEL = "dual_encoder"
SEEDS, EPOCHS = 3, 60
LANGUAGES = {"English": "text", "German": "text_de", "French": "text_fr", "Chinese": "text_zh"}
TESTS = {"test_style": "unseen style", "test_concept": "unseen emoji"}
OPTIONS = {
    "modalities": {"image": "image", **dict.fromkeys(LANGUAGES.values(), "text")}, "image_size": (64, 64),
    "image_width": 24, "pool": "flatten", "text_encoder": "bag", "text_dim": 128, "text_width": 256, "dropout": 0.1,
    "augment_tokens": 0.0, "learning_rate": 1.5e-3, "batch_size": 64, "label_weight": 0.3,
    "columns": {"label": "subcategory"},
}  # fmt: skip
REACH: dict[tuple[str, int], dict[str, Any]] = {
    ("test_style", 1): {"reach": 35.0, "aim": 60.0},
    ("test_concept", 10): {"reach": 50.0},
}


def _name(split, k, what, language="English"):
    return f"{TESTS[split]}, R@{k}, {what}, {language}"


ROWS = {
    **{
        _name(split, k, what): Row(**REACH.get((split, k), {}))
        for split in TESTS
        for what in ("picture to name", "name to picture")
        for k in (1, 10)
    },
    **{_name(split, k, "picture to name", language): Row() for language in list(LANGUAGES)[1:] for split, k in REACH},
    "unseen emoji, R@10, English name to German name": Row(),
    "unseen style, R@1, nearest pixels": Row(),
    "unseen style, R@10, nearest pixels": Row(),
}
QUICK = {_name("test_style", 10, "picture to name"): (20.0, 50.0)}


def retriever(folder, seed, quick):
    """The dual encoder of a seed, trained in its folder unless it is; the epochs are set beforehand."""
    options = {"epochs": EPOCHS // (10 if quick else 1), "seed": seed, **OPTIONS}
    return trained(MODEL, emoji().spec, folder / "run", **options)


def measure(folder, seed, quick):
    """Trains the dual encoder, and asks it."""
    run = retriever(folder, seed, quick)
    read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    reports, values = {split: run.evaluate(split) for split in TESTS}, {}
    for split, k in ((split, k) for split in TESTS for k in (1, 10)):
        for language, column in LANGUAGES.items():
            for what, title in (("picture to name", f"image -> {column}"), ("name to picture", f"{column} -> image")):
                values[_name(split, k, what, language)] = 100 * reports[split][title][f"recall@{k}"]
    found = reports["test_concept"]["text -> text_de"]["recall@10"]
    values["unseen emoji, R@10, English name to German name"] = 100 * found
    for k, hits in nearest_pixels(run, "train", "test_style").items():
        values[f"unseen style, R@{k}, nearest pixels"] = 100 * hits
    values = {row: value for row, value in values.items() if row in ROWS}
    return {"values": values, "parameters": {MODEL: run.model.count_params()}, "test_read": read, "reports": reports}


def nearest_pixels(run, train, test, ranks=(1, 10)):
    """`{k: share}` of the test drawings whose name is among the first k names of the nearest training drawings."""
    (seen, names), (asked, own) = (_pixels(run, run.split(split)) for split in (train, test))
    hits = np.empty((len(ranks), len(asked)))
    for i, one in enumerate(asked):
        nearest = names[np.argsort(((seen - one) ** 2).sum(axis=1))]
        found = list(dict.fromkeys(nearest))[: max(ranks)]
        hits[:, i] = [own[i] in found[:k] for k in ranks]
    return dict(zip(ranks, hits.mean(axis=1), strict=True))


def _pixels(run, split):
    """Pixels `(rows, values)` and English names `(rows,)`."""
    pixels = [x["image"].numpy().reshape(len(x["image"]), -1) for x, *_ in run.batches(split)]
    return np.concatenate(pixels), np.array(split.cells("text"))
