"""Halves of handwritten digits in one space: a classifier learned on left halves is asked about right ones.

The correlational network (Chandar 2016, tables 1 and 2): MNIST cut into left and right 28 x 14 halves, 50,000 pairs to
train on and 10,000 to choose the epoch by; then the embeddings of the 10,000 test pairs, in five folds: a linear SVM
learns on one view of four of them and is asked about the other view of the fifth. Nothing learns from a label before
that. The second network, a dual encoder of two residual networks, does: its contrast brings together halves of one
digit, whoever wrote them, and each embedding tells the digit.
"""

import datetime
import pathlib
from typing import Any

import numpy as np

import zoo
from zoo.protocols import Row

MODEL = "autoencoder"
SEEDS = 3
SOURCE = "Chandar 2016"
ROWS = {
    "left -> right": Row(published="77.05", source=SOURCE, reach=77.05),
    "right -> left": Row(published="78.81", source=SOURCE, reach=78.81),
    "sum of correlations": Row(unit="of 50", published="42.57", source=SOURCE, reach=42.57),
    "left -> right, told the digits": Row(reach=95.0),
    "right -> left, told the digits": Row(reach=95.0),
}
QUICK = {"left -> right": (40.0, 85.0), "sum of correlations": (20.0, 50.0)}
NETWORKS: dict[str, tuple[str, int, dict[str, Any]]] = {  # model, epochs, hyperparameters
    # On validation pairs: with larger batches or a rate that decays the views correlate more and classifiers cross
    # over less; after more epochs they correlate less.
    "corrnet": ("autoencoder", 4, {"preset": "corrnet", "batch_size": 25, "schedule": "constant"}),
    "told the digits": ("dual_encoder", 10, {
        "modalities": {"left": "image", "right": "image"}, "image_size": (28, 14), "image_channels": 1,
        "image_width": 16, "embedding_dim": 50, "label_positives": True, "label_weight": 1.0, "num_classes": 10,
        "augment_shift": 0.1, "augment_zoom": 0.1, "augment_rotate": 5.0, "augment_color": 0.0, "augment_gray": 0.0,
        "augment_erase": 0.0, "learning_rate": 2e-3, "batch_size": 128, "schedule": "cosine",
    }),
}  # fmt: skip


def measure(folder, seed, quick):
    """Trains both networks (`--quick`: the published one alone, on a tenth of the pairs)."""
    from mmkeras import data

    source = data.open("halves:tfds:mnist")
    pairs = source.train if "validation" not in source.splits else source.train.append(source.validation)
    order = np.random.default_rng(seed).permutation(len(pairs))
    sizes = (5_000, 1_000) if quick else (50_000, 10_000)
    train, held_out = pairs.take(order[: sizes[0]]), pairs.take(order[-sizes[1] :], "validation")
    values, parameters, chosen = {}, {}, {}
    for network in ("corrnet",) if quick else NETWORKS:
        embed, parameters[network], chosen[network] = _trained(network, train, held_out, folder, seed)
        read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        left, right = embed(source.test)
        title = "" if network == "corrnet" else f", {network}"
        labels = np.array(source.test.cells("label"))
        values[f"left -> right{title}"] = transfer(left, right, labels)
        values[f"right -> left{title}"] = transfer(right, left, labels)
        if network == "corrnet":
            values["sum of correlations"] = correlation(left, right)
    return {"values": values, "parameters": parameters, "test_read": read, "epoch": chosen}


def transfer(view, other, labels, folds=5):
    """Accuracy in percent of a linear SVM that learned on one view, on the other view of other rows."""
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import LinearSVC

    right = []
    for known, asked in StratifiedKFold(folds, shuffle=True, random_state=0).split(view, labels):
        svm = LinearSVC(dual=False).fit(view[known], labels[known])
        right.append(np.mean(svm.predict(other[asked]) == labels[asked]))
    return float(100 * np.mean(right))


def correlation(left, right):
    """Sum over the units of the correlation between the views."""
    a, b = (x - x.mean(axis=0) for x in (left, right))
    return float(np.sum((a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0) + 1e-12)))


def _trained(network, train, held_out, folder, seed):
    """What embeds a split, `(left, right)`, by the weights of the epoch that was best on the validation pairs."""
    import keras

    from mmkeras import data
    from mmkeras.metrics import linear_probe

    keras.utils.set_random_seed(seed)
    name, epochs, options = NETWORKS[network]
    pre = zoo.preprocessor(name, **options)
    data.adapt(pre, train)
    model = zoo.build(name, **options)
    if options["schedule"] == "cosine":
        steps = epochs * (len(train) // options["batch_size"])
        warm = {"warmup_target": options["learning_rate"], "warmup_steps": steps // 20}
        model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(0.0, steps, **warm)

    def embed(split):
        views = [model.predict_on_batch(x) for x, *_ in split.batches(pre, batch_size=1000, training=False)]
        return [np.concatenate([view[f"{side}_embedding"] for view in views]) for side in ("left", "right")]

    labels = np.unique(held_out.cells("label"), return_inverse=True)[1]
    known, asked = (slice(i, None, 2) for i in range(2))
    best, path = (0.0, 0), pathlib.Path(folder, f"{name}.weights.h5")
    path.parent.mkdir(parents=True, exist_ok=True)
    for epoch in range(epochs):
        batches = train.batches(pre, batch_size=options["batch_size"], epoch=epoch, seed=seed)
        model.fit(batches, shuffle=False, verbose=0)
        left, right = embed(held_out)
        both = ((left, right), (right, left))
        score = sum(linear_probe(a[known], labels[known], b[asked], labels[asked]) for a, b in both)  # SVMs take long
        if score > best[0]:
            best = (score, epoch + 1)
            model.save_weights(path)
    model.load_weights(path)
    return embed, model.count_params(), best[1]
