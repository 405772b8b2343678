"""Tagging: any modalities to several tags.

The tokens of all modalities, beside each other, are a memory; learned queries look at it, and each tag is told from
what its query saw (ML-Decoder, Ridnik 2023, after Query2Label, Liu 2021) and from the memory's mean. Each tag has a
threshold of its own, the one that gives it the highest F1 on the validation split; `zoo.train` finds it after the last
epoch. Tags that are rare there share one threshold: a few examples fit any.

Inputs: the modalities, and `presence`. Outputs: `tags`, logits `(batch, num_classes)`; `predicted`, zeros and ones;
`attention (batch, num_classes, places)`.
"""

import dataclasses
import itertools

from zoo import _inputs
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the tagger."""

    width: int = hp(128, "size of the memory's tokens")
    num_heads: int = hp(4, "attention heads")
    num_queries: int = hp(100, "most queries; where there are more tags, neighbours share one")
    num_classes: int = hp(10, "number of tags; zoo.train takes it from the training split")
    threshold_rows: int = hp(10, "validation rows that a tag needs for a threshold of its own")
    label_smoothing: float = hp(0.0, "how far the targets are moved towards one half", high=0.99)
    focusing: float = hp(0.0, "exponent of the focal loss, which counts less what is known already; 0 for none")


_BASE = {
    "image_encoder": "resnet", "image_grid": 6, "modality_dropout": 0.2, "epochs": 12, "learning_rate": 2e-3,
}  # fmt: skip
PRESETS = {
    "base": _BASE,
    "tiny": {**_inputs.TINY, "width": 16, "num_heads": 2, "num_classes": 14},
}


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return _inputs.label_targets("tags", several=True, output="tags")


def augment(config):
    return _inputs.augment(config)


def build(config):
    """Encoders, their memory, a query a tag, and the thresholds."""
    import keras

    from mmkeras import layers, training

    inputs = _inputs.inputs(config)
    memory, counts = _inputs.memory(config, inputs, config.names, config.width)
    queries = layers.LabelQueries(
        config.num_classes, config.num_queries, config.num_heads, config.dropout, name="queries"
    )
    logits, attention = queries(memory, counts)
    whole = layers.Pool("mean", name="whole")(memory, mask=counts > 0)
    logits = logits + keras.layers.Dense(config.num_classes, name="whole_logits")(whole)
    outputs = {
        "tags": keras.layers.Identity(name="tags")(logits),
        "predicted": layers.Thresholds(name="predicted")(logits),
        "attention": keras.layers.Identity(name="attention")(attention),
    }
    return training.MultiInput(inputs, outputs, name="tagger")


def objective(config):
    """Cross-entropy of every tag."""
    from mmkeras import losses

    return {"loss": {"tags": losses.TagsCrossentropy(config.label_smoothing, config.focusing)}}


def calibrate(run, split):
    """Sets the threshold of every tag to the one that gives it the highest F1 on a split."""
    from mmkeras import metrics

    tags, shares = _shares(run, split)
    run.model.get_layer("predicted").set_thresholds(metrics.best_thresholds(tags, shares, run.config.threshold_rows))


def signatures(config, model, preprocessor):
    """`serving_default`: every tag's probability and whether it is predicted; `classify`: tags, the likeliest first."""
    import tensorflow as tf

    from mmkeras.export import Signature, classify_signature, raw_specs

    vocabulary = preprocessor.reader("tags").vocabulary

    def predict(raw):
        outputs = model(preprocessor.inputs(raw), training=False)
        said = tf.where(outputs["predicted"] > 0, tf.constant([f"{tag}\t" for tag in vocabulary]), "")
        tags = tf.strings.strip(tf.strings.reduce_join(said, axis=-1))  # a tab between two
        return {"tags": tags, "probabilities": tf.sigmoid(outputs["tags"]), "predicted": outputs["predicted"]}

    def shares(raw):
        return tf.sigmoid(model(preprocessor.inputs(raw), training=False)["tags"])

    specs = raw_specs(preprocessor)
    return {"serving_default": Signature(predict, specs), "classify": classify_signature(vocabulary, shares, specs)}


def _shares(run, split, given=None):
    """True tags `(rows, tags)`, zeros and ones, and the probabilities of all, from some modalities."""
    import numpy as np

    names = run.config.names
    mask = np.array([given is None or name in given for name in names], "float32")
    tags, shares = [], []
    for x, y in run.batches(split):
        logits = run.outputs({**x, "presence": x["presence"] * mask})["tags"].numpy()
        tags.append(y["tags"].numpy())
        shares.append(1 / (1 + np.exp(-logits)))
    return np.concatenate(tags), np.concatenate(shares)


def evaluate(run, split):
    """F1, AUROC and mAP from every subset of the modalities, with each tag's own threshold.

    `thresholds of one half` shows what these are worth, `every tag always` what knowing nothing gives.
    """
    import collections

    import numpy as np

    from mmkeras import metrics

    names, thresholds = run.config.names, run.model.get_layer("predicted").thresholds.numpy()
    report = {}
    for size in range(len(names), 0, -1):
        for given in itertools.combinations(names, size):
            tags, shares = _shares(run, split, given)
            report[" and ".join(given)] = metrics.multilabel(tags, shares, thresholds)
            if size == len(names):
                report["thresholds of one half"] = metrics.multilabel(tags, shares)
    train = run.source.split("train")
    counts = collections.Counter(str(tag) for cell in train.cells("tags") for tag in cell)
    often = np.array([counts[tag] / len(train) for tag in run.labels])
    report["every tag always"] = metrics.multilabel(tags, np.tile(often, (len(tags), 1)), threshold=0.0)
    return report


def figures(run, split, num_rows=8):
    """`tags`: pictures, the predicted and the true tags, and where the two likeliest tags looked."""
    import numpy as np

    from mmkeras import plots

    config = run.config
    rows = split.take(np.linspace(0, len(split) - 1, min(num_rows, len(split))).astype(int))
    x, y = next(iter(run.batches(rows, batch_size=num_rows)))
    outputs = {name: value.numpy() for name, value in run.outputs(x).items()}

    def named(marks):
        return [[", ".join(tag for tag, mark in zip(run.labels, row, strict=True) if mark > 0)] for row in marks]

    columns = {"input": run.show(x), "predicted": named(outputs["predicted"]), "true": named(y["tags"].numpy())}
    pictures = config.of_kind("image")
    if pictures:
        first = sum(_inputs.encoder(config, n).output_shape[1] for n in config.names[: config.names.index(pictures[0])])
        grid = _inputs.encoder(config, pictures[0]).get_layer("tokens").input.shape[1:3]
        best = (-outputs["tags"]).argsort(axis=-1)[:, :2]
        for rank in range(best.shape[1]):
            cells = []
            for i, picture in enumerate(x[pictures[0]].numpy()):
                weights = outputs["attention"][i, best[i, rank], first : first + grid[0] * grid[1]]
                cells.append([plots.overlay(picture, weights.reshape(grid)), run.labels[best[i, rank]]])
            columns[f"looked at, tag {rank + 1}"] = cells
    return {"tags": plots.table(columns)}
