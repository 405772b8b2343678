"""Halves of handwritten digits in one space: a classifier learned on left halves is asked about right ones.

The correlational network (Chandar 2016, tables 1 and 2): MNIST cut into left and right 28 x 14 halves, 50,000 pairs to
train on; then the embeddings of the 10,000 test pairs, in five folds: a linear SVM learns on one view of four of them
and is asked about the other view of the fifth. Nothing learns from a label before that. Half of the pairs are seen from
one view alone (`modality_dropout`), which the paper does not have. The second network, a dual encoder of two residual
networks, is told the digits: its contrast brings together halves of one digit, whoever wrote them, and each embedding
tells the digit. All settings were chosen on the 10,000 pairs that are left, with seeds that are not measured here.
"""

import datetime
from typing import Any

import numpy as np

import zoo
from zoo.protocols import Row

MODEL = "autoencoder"
SEEDS, PAIRS = 3, 50_000
SOURCE = "Chandar 2016"
ROWS = {
    "left -> right": Row(published="77.05", source=SOURCE, reach=77.05),
    "right -> left": Row(published="78.81", source=SOURCE, reach=78.81),
    "sum of correlations": Row(unit="of 50", published="42.57", source=SOURCE, reach=42.57),
    "left -> right, told the digits": Row(reach=95.0),
    "right -> left, told the digits": Row(reach=95.0),
}
QUICK = {"left -> right": (40.0, 85.0), "sum of correlations": (20.0, 50.0)}
NETWORKS: dict[str, tuple[str, int, float, dict[str, Any]]] = {  # model, epochs, the SVM's C, hyperparameters
    # With more epochs the views correlate less, and classifiers cross over better.
    "corrnet": ("autoencoder", 12, 0.03, {
        "preset": "corrnet", "modality_dropout": 0.5, "learning_rate": 3e-3, "batch_size": 100,
    }),
    "told the digits": ("dual_encoder", 10, 1.0, {
        "modalities": {"left": "image", "right": "image"}, "image_size": (28, 14), "image_channels": 1,
        "image_width": 16, "embedding_dim": 50, "label_positives": True, "label_weight": 1.0, "num_classes": 10,
        "augment_shift": 0.1, "augment_zoom": 0.1, "augment_rotate": 5.0, "augment_color": 0.0, "augment_gray": 0.0,
        "augment_erase": 0.0, "learning_rate": 2e-3, "batch_size": 128,
    }),
}  # fmt: skip


def measure(folder, seed, quick):
    """Trains both networks (`--quick`: the published one alone, on a tenth of the pairs)."""
    from mmkeras import data

    source = data.open("halves:tfds:mnist")
    pairs = source.train if "validation" not in source.splits else source.train.append(source.validation)
    order = np.random.default_rng(seed).permutation(len(pairs))
    train = pairs.take(order[: PAIRS // (10 if quick else 1)])
    labels, values, parameters = np.array(source.test.cells("label")), {}, {}
    for network, (name, epochs, penalty, options) in list(NETWORKS.items())[: 1 if quick else None]:
        embed, parameters[network] = _trained(name, epochs, options, train, seed)
        read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        left, right = embed(source.test)
        title = "" if network == "corrnet" else f", {network}"
        values[f"left -> right{title}"] = transfer(left, right, labels, penalty)
        values[f"right -> left{title}"] = transfer(right, left, labels, penalty)
        if network == "corrnet":
            values["sum of correlations"] = correlation(left, right)
    return {"values": values, "parameters": parameters, "test_read": read}


def transfer(view, other, labels, penalty=1.0, folds=5):
    """Accuracy in percent of a linear SVM that learned on one view, on the other view of other rows."""
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import LinearSVC

    right = []
    for known, asked in StratifiedKFold(folds, shuffle=True, random_state=0).split(view, labels):
        svm = LinearSVC(dual=False, C=penalty).fit(view[known], labels[known])
        right.append(np.mean(svm.predict(other[asked]) == labels[asked]))
    return float(100 * np.mean(right))


def correlation(left, right):
    """Sum over the units of the correlation between the views."""
    a, b = (x - x.mean(axis=0) for x in (left, right))
    return float(np.sum((a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0) + 1e-12)))


def _trained(name, epochs, options, train, seed):
    """What embeds a split, `(left, right)`, by a network that was trained, and its number of parameters."""
    import keras

    from mmkeras import data

    keras.utils.set_random_seed(seed)
    pre = zoo.preprocessor(name, **options)
    data.adapt(pre, train)
    model = zoo.build(name, **options)
    batch, peak = options["batch_size"], options["learning_rate"]
    steps = epochs * (len(train) // batch)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(peak, steps)
    for epoch in range(epochs):
        batches = train.batches(pre, batch_size=batch, epoch=epoch, seed=seed)
        model.fit(batches, shuffle=False, verbose=0)

    def embed(split):
        views = [model.predict_on_batch(x) for x, *_ in split.batches(pre, batch_size=1000, training=False)]
        return [np.concatenate([view[f"{side}_embedding"] for view in views]) for side in ("left", "right")]

    return embed, model.count_params()
