"""Questions about one object, and about how it stands to the others: what relations ask of a network.

Sort-of-CLEVR as published (Santoro 2017): 9,800 pictures of 75 x 75 pixels, white, on each an object of each of six
colours, a square of 10 pixels or a circle of radius 5, no two centres nearer than 10. Ten questions of each kind: the
shape of an object, whether it is on the left, or at the top; the shape of the nearest and of the furthest object, and
how many have its shape. They are asked by a code of 11 bits, as published, and in English. 500 pictures more choose the
epoch, 2,000 more are asked in the end (200 as published are too few to tell 94 % from 96).

The relation network is narrower than published: pairs of 25 places through two layers of 128 units in place of four of
256. FiLM (Perez 2018), three blocks of 64 channels, takes a third of the multiplications. A picture goes through the
convolutions once for the questions of a step, and white is zero: nothing is drawn there.
"""

import csv
import dataclasses
import datetime
from typing import Any

import numpy as np

from zoo import bench
from zoo._registry import build
from zoo.protocols import Row

MODEL = "vqa"
SEEDS = 1
PICTURES = {"train": 9_800, "validation": 500, "test": 2_000}
SIDE, RADIUS, ASKED = 75, 5, 10  # questions of each kind a picture
AT_ONCE = 5  # questions of a picture in a step
LEARNING_RATE = 1e-3  # at its highest
COLORS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "orange": (255, 156, 0), "gray": (128, 128, 128),
    "yellow": (255, 255, 0),
}  # fmt: skip
ANSWERS = ("yes", "no", "square", "circle", "1", "2", "3", "4", "5", "6")
SENTENCES = {
    "non-relational": (
        "what is the shape of the {} object", "is the {} object on the left", "is the {} object at the top",
    ),
    "relational": (
        "what is the shape of the object nearest to the {} one",
        "what is the shape of the object furthest from the {} one",
        "how many objects have the shape of the {} one",
    ),
}  # fmt: skip
KINDS = tuple(SENTENCES)
LENGTH = 12  # words of the longest sentence, rounded up
OPTIONS = {
    "image_size": (SIDE, SIDE), "image_encoder": "plain_cnn", "image_grid": 5, "image_width": 12,
    "text_encoder": "cnn", "text_length": LENGTH, "vector_dim": {"question": 11}, "vector_encoder": "linear",
    "num_classes": len(ANSWERS), "width": 96, "dropout": 0.0, "modality_dropout": 0.0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that is compared: how it is asked, the preset of vqa and what differs from it, and its training."""

    question: str
    preset: str
    changed: dict[str, Any]
    epochs: int = 15
    pictures_a_step: int = 16


_PAIRS: dict[str, Any] = {"changed": {"width": 128}, "epochs": 16, "pictures_a_step": 8}
_FILM: dict[str, Any] = {"changed": {"width": 64, "num_layers": 3}, "epochs": 20}
NETWORKS = {
    "relation network": Network("vector", "relation_network", **_PAIRS),
    "relation network, English": Network("text", "relation_network", **_PAIRS),
    "CNN and MLP": Network("vector", "concat", {}),
    "FiLM": Network("vector", "film", **_FILM),
    "FiLM, English": Network("text", "film", **_FILM),
}
PUBLISHED: dict[str, tuple[dict[str, Any], ...]] = {
    "relation network": ({"published": "94", "source": "both kinds, Santoro 2017", "reach": 94.0},) * 2,
    "CNN and MLP": ({}, {"published": "63", "source": "Santoro 2017"}),
    "FiLM": ({"reach": 94.0},) * 2,
}
AIMS: dict[str, tuple[dict[str, Any], ...]] = {"relation network": ({"aim": 99.0}, {})}
ROWS = {
    f"{network}: {kind}": Row(**published, **aim)
    for network in NETWORKS
    for kind, published, aim in zip(KINDS, PUBLISHED.get(network, ({}, {})), AIMS.get(network, ({}, {})), strict=True)
}
QUICK = {"CNN and MLP: non-relational": (50.0, 100.0), "CNN and MLP: relational": (35.0, 75.0)}


def generate(pictures, seed):
    """`(pixels (pictures, 75, 75, 3), colours, questions, answers (pictures, 20))` as integers.

    The first ten questions of a picture are not relational: numbers 0 to 2 of `SENTENCES`, the rest 3 to 5.
    """
    random = np.random.default_rng(seed)
    pixels = np.full((pictures, SIDE, SIDE, 3), 255, "uint8")
    colors = random.integers(0, len(COLORS), (pictures, 2 * ASKED))
    kinds = random.integers(0, 3, (pictures, 2 * ASKED)) + np.repeat([0, 3], ASKED)
    answers = np.empty_like(colors)
    for i in range(pictures):
        centres, circles = _objects(random)
        _draw(pixels[i], centres, circles)
        answers[i] = [_answer(kind, color, centres, circles) for kind, color in zip(kinds[i], colors[i], strict=True)]
    return pixels, colors, kinds, answers


def _objects(random):
    """Centres `(6, 2)`, row and column, no two nearer than 10 pixels, and which objects are circles."""
    centres = np.empty((0, 2), int)
    while len(centres) < len(COLORS):
        centre = random.integers(RADIUS, SIDE - RADIUS, 2)
        if (np.hypot(*(centres - centre).T) >= 2 * RADIUS).all():
            centres = np.vstack([centres, centre])
    return centres, random.integers(0, 2, len(COLORS)).astype(bool)


def _draw(pixels, centres, circles):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for (row, column), circle, color in zip(centres, circles, COLORS.values(), strict=True):
        down, across = rows - row, columns - column
        round_, square = np.hypot(down, across) <= RADIUS, np.maximum(abs(down + 0.5), abs(across + 0.5)) <= RADIUS
        pixels[round_ if circle else square] = color


def _answer(kind, color, centres, circles):
    """The number in `ANSWERS` of what is true."""
    distances = np.hypot(*(centres - centres[color]).T)
    shape = {0: color, 3: np.argsort(distances, kind="stable")[1], 4: np.argmax(distances)}
    if kind in shape:
        return 3 if circles[shape[kind]] else 2
    if kind == 5:
        return 3 + int((circles == circles[color]).sum())
    return int(centres[color][2 - kind] >= SIDE / 2)  # 1: left, by the column; 2: top, by the row


def code(colors, kinds):
    """Questions as 11 bits: which of six colours, of two kinds, of three questions of a kind."""
    return np.concatenate(
        [np.eye(n, dtype="float32")[x] for n, x in ((6, colors), (2, kinds // 3), (3, kinds % 3))], -1
    )


def words(colors, kinds):
    """Questions as numbers of their words, 0 for none; and how many numbers there are."""
    asked = [[sentence.format(color).split() for color in COLORS] for kind in KINDS for sentence in SENTENCES[kind]]
    number = {word: i for i, word in enumerate(sorted({word for row in asked for one in row for word in one}), 1)}
    table = np.zeros((len(asked), len(COLORS), LENGTH), "int32")
    for row, of_kind in zip(table, asked, strict=True):
        for cells, sentence in zip(row, of_kind, strict=True):
            cells[: len(sentence)] = [number[word] for word in sentence]
    return table[kinds, colors], len(number) + 1


def once_a_picture(model, number):
    """A model of a picture and a number of questions about it, made of one of a picture and a question.

    Its inputs are `image (batch, height, width, channels)` as bytes and `question (batch, questions, size)`, its output
    logits `(batch, questions, answers)`.
    """
    import keras
    from keras import ops

    tokens = model.get_layer("image_or_nothing").input[0]
    see = keras.Model(model.input["image"], tokens)
    asked = model.input["question"]
    answer = keras.Model([tokens, asked, model.input["presence"]], model.output["answer"])
    image = keras.Input(model.input["image"].shape[1:], dtype="uint8", name="image")
    questions = keras.Input((number, asked.shape[1]), dtype=asked.dtype, name="question")
    one_each = ops.reshape(questions, (-1, asked.shape[1]))
    ink = keras.layers.Rescaling(-1 / 255, 1.0)(image)
    seen = ops.repeat(see(ink), number, axis=0)
    presence = ops.ones_like(one_each[:, :2], dtype="float32")
    logits = answer([seen, one_each, presence])
    return keras.Model({"image": image, "question": questions}, ops.reshape(logits, (-1, number, len(ANSWERS))))


def portions(pixels, questions, answers, batch_size, seed=None):
    """Batches of pictures with `AT_ONCE` of their questions, of both kinds; shuffled anew every epoch, given a seed.

    A picture comes as often as it takes to ask all of them.
    """
    import tensorflow as tf

    times = 2 * ASKED // AT_ONCE
    questions, answers = (
        tf.constant(np.stack([x[:, i::times] for i in range(times)], 1).reshape(-1, AT_ONCE, *x.shape[2:]))
        for x in (questions, answers)
    )
    pixels, rows = tf.constant(pixels), tf.data.Dataset.range(len(answers))
    if seed is not None:
        rows = rows.shuffle(len(answers), seed=seed)

    def take(i):
        return {"image": tf.gather(pixels, i // times), "question": tf.gather(questions, i)}, tf.gather(answers, i)

    return rows.batch(batch_size).map(take).prefetch(2)


def in_order(found):
    """What was found of `portions`, `(pictures * times, AT_ONCE)`, as `(pictures, 20)`."""
    return found.reshape(-1, 2 * ASKED // AT_ONCE, AT_ONCE).swapaxes(1, 2).reshape(-1, 2 * ASKED)


def measure(folder, seed, quick):
    """Trains the networks, each on the same pictures; an epoch at which it was interrupted is trained again."""
    share, networks = (10, ("CNN and MLP",)) if quick else (1, NETWORKS)
    splits = {name: generate(count // share, 10 * seed + i) for i, (name, count) in enumerate(PICTURES.items())}
    found = bench.measured(
        folder / "found.json",
        list(networks),
        lambda name: _trained(name, splits, seed, folder, NETWORKS[name].epochs // (3 if quick else 1)),
    )
    values = {f"{network}: {kind}": found[network][kind] for network in networks for kind in KINDS}
    parameters = {network: one["parameters"] for network, one in found.items()}
    read = max(one["test_read"] for one in found.values())  # last; each network's own time is in `found`
    return {"values": values, "parameters": parameters, "test_read": read, "found": found}


def _trained(network, splits, seed, folder, epochs):
    """`{kind: percent, "parameters", "epoch", "test_read"}`, by the epoch that was best on the validation."""
    import keras

    keras.utils.set_random_seed(seed)
    one = NETWORKS[network]
    kind, preset, batch = one.question, one.preset, one.pictures_a_step
    asked, options = {}, {**OPTIONS, **one.changed}
    for name, (_, colors, kinds, _) in splits.items():
        asked[name], options["vocabulary_size"] = words(colors, kinds) if kind == "text" else (code(colors, kinds), 5)
    model = build("vqa", preset=preset, modalities={"image": "image", "question": kind}, **options)
    whole = once_a_picture(model, AT_ONCE)
    data = {
        name: portions(splits[name][0], asked[name], splits[name][3], batch, seed if name == "train" else None)
        for name in splits
    }
    steps = epochs * int(data["train"].cardinality())
    warm = {"warmup_target": LEARNING_RATE, "warmup_steps": steps // 20}
    schedule = keras.optimizers.schedules.CosineDecay(0.0, steps, **warm)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    whole.compile(keras.optimizers.Adam(schedule, clipnorm=1.0), loss, metrics=["accuracy"])
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / f"{preset}-{kind}.weights.h5", folder / f"{preset}-{kind}.csv"
    callbacks = [  # it may be interrupted: then the epochs before count, too
        keras.callbacks.ModelCheckpoint(
            path, "val_accuracy", mode="max", save_best_only=True, save_weights_only=True,
            initial_value_threshold=max(_epochs(log), default=None),
        ),
        keras.callbacks.CSVLogger(log, append=True),
        keras.callbacks.BackupAndRestore(folder / f"{preset}-{kind}-backup"),
    ]  # fmt: skip
    options = {"epochs": epochs, "shuffle": False, "verbose": 2, "callbacks": callbacks}  # they are shuffled already
    whole.fit(data["train"], validation_data=data["validation"], **options)
    whole.load_weights(path)
    right = in_order(whole.predict(data["test"], verbose=0).argmax(-1)) == splits["test"][3]
    of_kind = {kind: right[:, part] for kind, part in zip(KINDS, (slice(ASKED), slice(ASKED, None)), strict=True)}
    return {
        **{kind: float(100 * hits.mean()) for kind, hits in of_kind.items()},
        "parameters": model.count_params(),
        "epoch": int(np.argmax(_epochs(log))) + 1,
        "test_read": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _epochs(log):
    """The validation accuracies of the epochs that are done."""
    if not log.exists():
        return []
    with log.open(newline="") as file:
        return [float(row["val_accuracy"]) for row in csv.DictReader(file)]
