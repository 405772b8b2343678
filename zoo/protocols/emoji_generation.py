"""Drawings from names, in a style that is named: of emoji that the generator saw in other styles only.

A conditional GAN learns from texts such as "noto card index". Of a tenth of the drawings, the cells of emoji that all
three styles have, each an emoji of its own, it sees neither text nor drawing; these it is asked for. Whether the emoji
is recognised says the dual encoder of `emoji_retrieval`, trained with the same seed (it is looked for beside this
protocol's folder of runs, and trained there if need be): whether the name is the first among all those it was trained
with. The same is asked of the drawing itself, of a copy of the emoji in another of the three styles, all of which the
dual encoder was trained with, and of one in the fourth style, which neither network saw. Distances are Fréchet's, over
the dual encoder's embeddings, to the drawings themselves.
"""

import datetime
from typing import Any

import numpy as np

from zoo.protocols import Row, emoji_retrieval
from zoo.protocols._emoji import emoji
from zoo.protocols._training import trained

MODEL = "conditional_gan"
SEEDS = 3
SIZES: dict[int, dict[str, Any]] = {  # by the side in pixels; both have 256 channels at 4 x 4
    32: {"generator_width": 64, "discriminator_width": 32, "epochs": 100},
    64: {"generator_width": 32, "discriminator_width": 16, "epochs": 80},
}
OPTIONS: dict[str, Any] = {
    "text_encoder": "bag", "text_dim": 128, "text_width": 256, "condition_dim": 128, "noise_dim": 16,
    "reconstruction_weight": 100.0, "kl_weight": 0.0, "learning_rate": 1e-3, "sample_every": 20,
}  # fmt: skip
GRID = (2, 10)  # drawings that are shown, each below the one it was to be
COPIES = ("a copy in another style", "a copy in the unseen style")
SHOWN = ("drawn by the generator", "the drawing itself", *COPIES)
ROWS: dict[str, Row] = {}
for _side in SIZES:
    ROWS |= {f"{_side} pixels, R@1, {what}": Row() for what in SHOWN}
    ROWS |= {f"{_side} pixels, R@1, drawn above {copy}": Row(unit="points", reach=0.0) for copy in COPIES}
    _apart = [what for what in SHOWN if "itself" not in what]
    ROWS |= {f"{_side} pixels, Fréchet distance, {what}": Row(unit="over embeddings") for what in _apart}
QUICK = {
    "32 pixels, R@1, the drawing itself": (10.0, 45.0),
    "32 pixels, R@1, drawn by the generator": (0.3, 10.0),  # of 1,470 names
    "32 pixels, Fréchet distance, drawn by the generator": (0.1, 0.5),  # a copy in the unseen style is as far as .1
}


def measure(folder, seed, quick):
    """Trains a GAN for each size (`--quick`: the smaller one alone); `drawn-<side>.png` shows what it draws."""
    from zoo import _pack

    source = emoji()
    runs = folder.parent.with_name(folder.parent.name.replace("emoji_generation", "emoji_retrieval"))
    judge = emoji_retrieval.retriever(runs / str(seed), seed, quick)
    names = sorted(set(source.train.cells("text")))
    texts, values, parameters = judge.embed("text", names), {}, {"dual_encoder": judge.model.count_params()}
    asked, copies = divided(source, seed)
    _pack.pack(asked, folder / "data", tell=lambda line: None)
    for side, options in list(SIZES.items())[: 1 if quick else None]:
        epochs = options["epochs"] // (10 if quick else 1)
        options = {**OPTIONS, **options, "image_size": (side, side), "epochs": epochs, "seed": seed}
        run = trained(MODEL, str(folder / "data"), folder / f"run-{side}", **options)
        read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        itself, drawn = run.module.draw(run, run.split("test"))
        pictures = dict(zip(SHOWN, (drawn, itself, *(_pixels(run, split) for split in copies)), strict=True))
        found = {what: judge.embed_pixels("image", x) for what, x in pictures.items()}
        values |= _compared(found, texts, names, asked.splits["test"].cells("name"), f"{side} pixels")
        _grid(itself, drawn, asked.splits["test"].cells("text")).savefig(folder / f"drawn-{side}.png", dpi=120)
        parameters[f"conditional_gan, {side} pixels"] = run.model.count_params()
    return {"values": values, "parameters": parameters, "test_read": read}


def _grid(itself, drawn, texts):
    """Rows of drawings with their texts, and below each row what was drawn from these."""
    from mmkeras import plots

    rows, columns = GRID
    pictures, captions = [], []
    for start in range(0, rows * columns, columns):
        row = slice(start, start + columns)
        pictures += [*itself[row], *drawn[row]]
        captions += [*texts[row], *[""] * columns]
    return plots.grid(pictures, captions, columns=columns, picture_inches=0.8)


def divided(source, seed):
    """The source with texts that name the style, and for its test rows the same emoji in the two other styles.

    Rows of the test split: one drawing each of emoji that all training styles and the unseen one have, a tenth of the
    training drawings. Their copies are two splits in the same order: of another training style, and of the unseen one.
    """
    from mmkeras.data import Source

    train, unseen = source.train, source.splits["test_style"]
    names, styles = (np.array(train.cells(column)) for column in ("text", "style"))
    rows = {}
    for i, name in enumerate(names):
        rows.setdefault(name, []).append(i)
    unseen_row = {name: i for i, name in enumerate(unseen.cells("text"))}
    whole = [name for name in rows if len({*styles[rows[name]]}) == len({*styles}) and name in unseen_row]
    random = np.random.default_rng(seed)
    chosen = random.permutation(sorted(whole))[: len(train) // 10]
    test, others = np.array([random.permutation(rows[name])[:2] for name in chosen]).T
    parts = {
        "train": train.take(np.setdiff1d(np.arange(len(train)), test)),
        "validation": source.splits["validation"],
        "test": train.take(test, "test"),
    }
    splits = {}
    for name, part in parts.items():
        known = part.cells("text")
        told = [f"{style} {text}" for style, text in zip(part.cells("style"), known, strict=True)]
        splits[name] = part.replace({"text": told, "name": list(known)}, {})
    named = Source(f"{source.spec}, divided with seed {seed}", splits, "a tenth of the training drawings is asked for")
    return named, (train.take(others, "others"), unseen.take([unseen_row[name] for name in chosen], "unseen"))


def _pixels(run, split):
    """The pictures of a split as the generator's are: pixels `(rows, side, side, 3)`."""
    return np.concatenate([y["image"].numpy() for _, y in run.batches(split)])


def _compared(found, texts, names, own, title):
    """The rows of one size, of the embeddings `{what: (rows, dim)}` and the names that the rows have."""
    from mmkeras import metrics

    true = np.array([names.index(name) for name in own])
    hits = {what: 100 * float(np.mean((x @ texts.T).argmax(axis=1) == true)) for what, x in found.items()}
    drawn, itself = SHOWN[:2]
    values = {f"{title}, R@1, {what}": share for what, share in hits.items()}
    values |= {f"{title}, R@1, drawn above {copy}": hits[drawn] - hits[copy] for copy in COPIES}
    for what in (drawn, *COPIES):
        values[f"{title}, Fréchet distance, {what}"] = metrics.frechet_distance(found[itself], found[what])
    return values
