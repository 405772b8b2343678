"""Every fusion on what two modalities say together, alone, or only in concert, against the Bayes optimum.

Two vectors of 16 numbers are noisy views of hidden bits: one that both see (redundancy), one that each sees alone
(uniqueness), and two whose exclusive or, or conjunction, is asked for (synergy; Liang, "Quantifying & modeling
multimodal interactions", 2023). The noise is normal, so that what can be known at best has a closed form. The best of
the epochs by the validation rows is taken; the test rows are read once, after that.
"""

import datetime
import math

import numpy as np

from zoo import bench
from zoo._registry import build, module
from zoo.protocols import Row

MODEL = "fusion_classifier"
POINTS = {"train": 14_000, "validation": 2_000, "test": 4_000}
DIM, NOISE, EPOCHS, SEEDS = 16, 0.5, 20, 3
TASKS = ("redundancy", "unique", "and", "xor", "mixed")
FUSIONS = module("fusion_classifier").FUSIONS
WITHIN = 1.0  # points from the optimum
ROWS = {
    "fusions within 1 point of the optimum on every task": Row(unit="fusions", reach=3),
    "xor, the best fusion": Row(published="75", source="best of ten, Liang 2023, other data"),
    "xor, the worst fusion": Row(published="54", source="worst of ten, Liang 2023, other data"),
    **{f"{task}, the optimum": Row() for task in TASKS},
}
QUICK = {"xor, the best fusion": (88.0, 97.0), "xor, the worst fusion": (45.0, 85.0)}
OPTIONS = {
    "modalities": {"a": "vector", "b": "vector"}, "vector_dim": {"a": DIM, "b": DIM}, "vector_width": 64,
    "fusion_width": 64, "dropout": 0.3, "modality_dropout": 0.0, "learning_rate": 1e-3,
}  # fmt: skip


def points(task, seed, share=1):
    """`{split: ({"a", "b"}, labels)}`: vectors `(rows, 16)` and class numbers; of all points one in `share`."""
    random = np.random.default_rng(seed)
    views = {name: np.linalg.qr(random.normal(size=(DIM, 3)))[0] for name in ("a", "b")}  # orthonormal columns
    splits = {}
    for split, rows in POINTS.items():
        rows //= share
        both = random.integers(0, 2, rows)
        alone, part = ({name: random.integers(0, 2, rows) for name in views} for _ in range(2))
        vectors = {}
        for name, view in views.items():
            bits = 2.0 * np.stack([both, alone[name], part[name]], axis=1) - 1
            vectors[name] = (bits @ view.T + NOISE * random.normal(size=(rows, DIM))).astype("float32")
        xor, conjunction = part["a"] ^ part["b"], part["a"] & part["b"]
        labels = {
            "redundancy": both, "unique": alone["a"], "and": conjunction, "xor": xor,
            "mixed": both + 2 * alone["a"] + 4 * alone["b"] + 8 * xor,
        }  # fmt: skip
        splits[split] = vectors, labels[task].astype("int32")
    return splits


def optimum(task):
    """Accuracy in percent of who knows the distribution."""
    seen = _normal(1 / NOISE)  # how often the sign of a bit's noisy view is right
    twice, xor = _normal(math.sqrt(2) / NOISE), seen**2 + (1 - seen) ** 2
    alone = {"redundancy": twice, "unique": seen, "xor": xor, "mixed": twice * seen**2 * xor}
    return 100 * (alone[task] if task in alone else _conjunction())


def _normal(x):
    return (1 + math.erf(x / math.sqrt(2))) / 2


def _conjunction(steps=2001):
    """`E max(q, 1 - q)`, where `q` is the product of what each view makes of its bit; by the trapezoidal rule."""
    x = np.linspace(-1 - 8 * NOISE, 1 + 8 * NOISE, steps)
    density = sum(np.exp(-((x - bit) ** 2) / (2 * NOISE**2)) for bit in (-1, 1)) / 2
    density /= density.sum()
    one = 1 / (1 + np.exp(-2 * x / NOISE**2))
    both = one[:, None] * one[None]
    return float(density @ np.maximum(both, 1 - both) @ density)


def measure(folder, seed, quick):
    """Trains a classifier with each fusion on each task; what is trained already is not trained again."""
    tasks, fusions = (("xor",), ("sum", "tensor", "low_rank")) if quick else (TASKS, FUSIONS)

    def trained(key):
        task, fusion = key.split()
        splits = points(task, 100 + seed, 3 if quick else 1)  # data below 100 were for trying
        return _trained(fusion, 16 if task == "mixed" else 2, splits, seed, folder / "best.weights.h5")

    folder.mkdir(parents=True, exist_ok=True)
    found = bench.measured(folder / "found.json", [f"{task} {fusion}" for task in tasks for fusion in fusions], trained)
    accuracy = {key: one["accuracy"] for key, one in found.items()}
    parameters = {key.split()[1]: one["parameters"] for key, one in found.items()}
    best = {task: [accuracy[f"{task} {fusion}"] for fusion in fusions] for task in tasks}
    near = [all(accuracy[f"{t} {f}"] >= optimum(t) - WITHIN for t in tasks) for f in fusions]
    values = {
        "fusions within 1 point of the optimum on every task": sum(near),
        "xor, the best fusion": max(best["xor"]),
        "xor, the worst fusion": min(best["xor"]),
        **{f"{task}, the optimum": optimum(task) for task in tasks},
    }
    read = max(one["test_read"] for one in found.values())  # last; some were perhaps measured before an interruption
    return {"values": values, "parameters": parameters, "test_read": read, "accuracy": accuracy}


def _trained(fusion, classes, splits, seed, path):
    """`{"accuracy", "parameters", "test_read"}`: percent of the test rows, by the epoch best on the validation rows."""
    import keras

    keras.utils.clear_session()  # hundreds of models would fill the memory
    keras.utils.set_random_seed(seed)
    model = build("fusion_classifier", fusion=fusion, num_classes=classes, **OPTIONS)
    metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    (x, y), held_out, (test, true) = (splits[name] for name in POINTS)
    model.compile(optimizer=model.optimizer, loss={"label": loss}, metrics={"label": metric})
    kept = keras.callbacks.ModelCheckpoint(
        path, "val_accuracy", save_best_only=True, save_weights_only=True, mode="max"
    )
    held_out = (held_out[0], {"label": held_out[1]})
    options = {"batch_size": 256, "epochs": EPOCHS, "validation_data": held_out, "callbacks": [kept], "verbose": 0}
    model.fit(x, {"label": y}, **options)
    model.load_weights(path)
    read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found = model(test, training=False)["label"].numpy().argmax(axis=-1)  # `predict` would be traced a model
    return {"accuracy": float(100 * np.mean(found == true)), "parameters": model.count_params(), "test_read": read}


def details(found):
    """A fusion a line: its accuracy on each task, the mean over the seeds, those within a point of the optimum bold."""
    tasks = [task for task in TASKS if any(key.startswith(f"{task} ") for one in found for key in one["accuracy"])]
    fusions = list(dict.fromkeys(key.split()[1] for one in found for key in one["accuracy"]))
    lines = [f"| fusion | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for fusion in fusions:
        means = [np.mean([one["accuracy"][f"{task} {fusion}"] for one in found]) for task in tasks]
        near = [mean >= optimum(task) - WITHIN for task, mean in zip(tasks, means, strict=True)]
        cells = [f"**{mean:.1f}**" if good else f"{mean:.1f}" for mean, good in zip(means, near, strict=True)]
        lines.append(f"| `{fusion}` | {' | '.join(cells)} |")
    lines.append(f"| the optimum | {' | '.join(f'{optimum(task):.1f}' for task in tasks)} |")
    return "\n".join(lines)
