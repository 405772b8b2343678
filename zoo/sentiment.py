"""Sentiment: a picture and a text, and what else there is, to a polarity; the modalities may disagree.

What each modality says is split into a part in a space shared by all and a part of its own (MISA, Hazarika 2020):
one projection for the shared parts, whose distributions are brought together; another a modality for the private
ones, held orthogonal to the shared ones and to each other; from both the features are rebuilt, so that none is
empty. Self-attention over all these parts, and a head: a number, or one of several labels.

Inputs: the modalities, and `presence`. Outputs: `polarity`, `(batch,)` or logits `(batch, num_classes)`, and of each
modality `<name>_features`, `<name>_shared`, `<name>_private` and `<name>_rebuilt`, `(batch, width)` each.
"""

import dataclasses
import itertools

from zoo import _inputs
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of sentiment."""

    modalities: dict[str, str] = hp({"image": "image", "remark": "text"}, "name=kind of each input")
    task: str = hp("regression", "a number, or one of several labels", ("regression", "classification"))
    target: str = hp("sentiment", "the column that is predicted, below 0 negative and above 0 positive")
    num_classes: int = hp(3, "number of labels; zoo.train takes it from the training split")
    width: int = hp(64, "size of each modality's features and of their parts")
    num_heads: int = hp(4, "attention heads over the parts")
    similarity_weight: float = hp(0.1, "weight of the distance between the shared parts' distributions")
    difference_weight: float = hp(0.1, "weight of what shared and private parts have in common")
    rebuilding_weight: float = hp(0.1, "weight of the features' reconstruction")

    def __post_init__(self):
        super().__post_init__()
        if self.target in self.modalities:
            raise ValueError(f"Expected target to be a column besides the modalities. Received: {self.target!r}.")


_BASE = {"image_encoder": "cnn", "modality_dropout": 0.2, "epochs": 10}
PRESETS = {
    "base": _BASE,
    "tiny": {**_inputs.TINY, "width": 16, "num_heads": 2, "modality_dropout": 0.2},
    "classification": {**_BASE, "task": "classification"},
}


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    import keras

    from mmkeras import layers

    if config.task == "classification":
        return _inputs.label_targets(config.target, output="polarity")
    raw = keras.Input((), dtype="string", name=config.target)
    return keras.Model({config.target: raw}, {"polarity": layers.ReadNumber(name="read_number")(raw)}, name="targets")


def augment(config):
    return _inputs.augment(config)


def build(config):
    """Encoders, shared and private parts, attention over them, and the head."""
    import keras

    from mmkeras import layers, training

    inputs = _inputs.inputs(config)
    presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(inputs["presence"])
    share = keras.layers.Dense(config.width, activation="tanh", name="shared")
    outputs, parts = {}, []
    for i, name in enumerate(config.names):
        pooled = layers.Pool("both", name=f"{name}_pool")(_inputs.encode(config, name, inputs[name]))
        x = keras.layers.Dense(config.width, name=f"{name}_dense")(pooled)
        x = keras.layers.LayerNormalization(name=f"{name}_features")(x)
        shared = share(x)
        private = keras.layers.Dense(config.width, activation="tanh", name=f"{name}_private")(x)
        rebuilt = keras.layers.Dense(config.width, name=f"{name}_rebuilt")(shared + private)
        outputs.update({f"{name}_features": x, f"{name}_shared": shared, f"{name}_private": private})
        outputs[f"{name}_rebuilt"] = rebuilt
        for kind, part in (("shared", shared), ("private", private)):
            parts.append(layers.FillAbsent(name=f"{name}_{kind}_or_nothing")(part, presence[:, i])[:, None])
    tokens = layers.AddPosition(len(parts), name="part")(keras.layers.Concatenate(axis=1, name="parts")(parts))
    tokens = layers.TransformerBlock(config.num_heads, config.dropout, name="attention")(tokens)
    x = keras.layers.LayerNormalization(name="joined")(layers.Pool("flatten", name="flat")(tokens))
    x = keras.layers.Dense(config.width, activation="relu", name="hidden")(x)
    x = keras.layers.Dropout(config.dropout, name="hidden_dropout")(x)
    if config.task == "classification":
        outputs["polarity"] = keras.layers.Dense(config.num_classes, name="polarity")(x)
    else:
        number = keras.layers.Dense(1, name="number")(x)
        outputs["polarity"] = keras.layers.Reshape((), name="polarity")(number)
    return training.ObjectiveModel(inputs, outputs, name="sentiment", objective=objective(config))


def objective(config):
    """The error of the polarity; shared parts alike, private parts apart, features rebuilt."""
    from mmkeras.training import Objective, Pairwise, Regression, Supervised

    kind = Supervised if config.task == "classification" else Regression
    terms = [kind("error", "polarity", "polarity")]
    for a, b in itertools.combinations(config.names, 2):
        pair = (a, b)
        terms.append(
            Pairwise(f"{a}_{b}_similarity", [f"{n}_shared" for n in pair], pair, "moments", config.similarity_weight)
        )
        terms.append(
            Pairwise(f"{a}_{b}_difference", [f"{n}_private" for n in pair], pair, "overlap", config.difference_weight)
        )
    for name in config.names:
        parts = [f"{name}_shared", f"{name}_private"]
        terms.append(Pairwise(f"{name}_difference", parts, [name], "overlap", config.difference_weight))
        both = [f"{name}_features", f"{name}_rebuilt"]
        terms.append(Pairwise(f"{name}_rebuilding", both, [name], "distance", config.rebuilding_weight))
    return Objective(terms, config.names)


def signatures(config, model, preprocessor):
    """`serving_default`: the polarity, or of labels the best, their probabilities and `classify`; `contributions`: of
    each modality.
    """
    import tensorflow as tf

    from mmkeras.export import Signature, label_signatures, raw_specs

    def predict(raw):
        return {"polarity": model(preprocessor.inputs(raw), training=False)["polarity"]}

    def contribute(raw):
        return contributions(config, lambda x: model(x, training=False), preprocessor.inputs(raw))

    specs = raw_specs(preprocessor)
    result = {"serving_default": Signature(predict, specs)}
    if config.task == "classification":
        result = label_signatures(preprocessor, config.target, lambda raw: tf.nn.softmax(predict(raw)["polarity"]))
    return {**result, "contributions": Signature(contribute, specs)}


def contributions(config, predict, x):
    """How far each modality of a row moves the answer: its Shapley value over all subsets of those present.

    The answer is the polarity, or the probability of the label that all modalities together give. The values of a
    row, and `base`, the neutral answer, add up to the answer (Shapley 1953). Neutral is 0, or one over the number of
    labels. The value of an absent modality is zero.

    Args:
        predict: function from the model's inputs to its outputs.
        x: the model's inputs.

    Returns:
        `{"base": (batch,), "<name>": (batch,) of each modality}`, tensors.
    """
    import math

    import tensorflow as tf

    names, label = config.names, None
    if config.task == "classification":
        label = tf.argmax(predict(x)["polarity"], axis=-1)

    def value(subset):
        presence = x["presence"] * tf.constant([[float(name in subset) for name in names]])
        polarity = predict({**x, "presence": presence})["polarity"]
        answer = polarity if label is None else tf.gather(tf.nn.softmax(polarity), label, batch_dims=1)
        neutral = 0.0 if label is None else 1 / config.num_classes
        return tf.where(tf.reduce_any(presence > 0, axis=-1), answer, neutral)

    subsets = [s for size in range(len(names) + 1) for s in itertools.combinations(names, size)]
    values = {frozenset(subset): value(subset) for subset in subsets}
    result = {"base": values[frozenset()]}
    for name in names:
        without = [s for s in values if name not in s]
        shares = [math.factorial(len(s)) * math.factorial(len(names) - len(s) - 1) for s in without]
        gains = [values[s | {name}] - values[s] for s in without]
        result[name] = sum(w * g for w, g in zip(shares, gains, strict=True)) / math.factorial(len(names))
    return result


def evaluate(run, split):
    """Error and agreement in sign from all modalities and from each alone, beside always saying training's mean.

    `where they disagree`: the rows in which two modalities alone give answers of opposite sign.
    """
    import numpy as np

    from mmkeras import metrics

    names, config = run.config.names, run.config
    said, true = {}, []
    for x, y in run.batches(split):
        true.append(y["polarity"].numpy())
        for given in dict.fromkeys([tuple(names), *((name,) for name in names)]):
            mask = np.array([name in given for name in names], "float32")
            outputs = run.outputs({**x, "presence": x["presence"] * mask})
            said.setdefault(given, []).append(outputs["polarity"].numpy())
    said, true = {given: np.concatenate(parts) for given, parts in said.items()}, np.concatenate(true)
    if config.task == "classification":
        shares = {given: np.exp(x - np.logaddexp.reduce(x, axis=-1, keepdims=True)) for given, x in said.items()}
        report = {" and ".join(given): metrics.classification(true, value) for given, value in shares.items()}
        report["majority label"] = {"accuracy": float(np.bincount(true).max() / len(true))}
        return report
    report = {" and ".join(given): metrics.polarity(true, value) for given, value in said.items()}
    mean = np.mean([float(cell) for cell in run.source.split("train").cells(config.target)])
    report["mean of training"] = metrics.polarity(true, np.full(len(true), mean))
    alone = np.sign(np.round([said[(name,)] for name in names], 1))
    apart = (alone.max(axis=0) > 0) & (alone.min(axis=0) < 0)
    if apart.any():
        error = np.abs(true[apart] - said[tuple(names)][apart]).mean()
        report["where they disagree"] = {"mae": float(error), "rows": int(apart.sum())}
    return report


def figures(run, split, num_rows=8):
    """`contributions`: rows, their polarity, and how far each modality moved it."""
    import numpy as np

    from mmkeras import plots

    rows = split.take(np.linspace(0, len(split) - 1, min(num_rows, len(split))).astype(int))
    x = next(iter(run.batches(rows, batch_size=num_rows)))[0]
    parts = {name: value.numpy() for name, value in contributions(run.config, run.outputs, x).items()}
    moved = [[f"{name} {parts[name][i]:+.2f}" for name in run.config.names] for i in range(len(rows))]
    answers = sum(parts.values())
    cells = rows.cells(run.config.target)
    if run.config.task == "regression":
        what, cells = "polarity", [f"{float(cell):+.2f}" for cell in cells]
    else:
        what = "probability"
    columns = {
        "input": run.show(x),
        f"{what} (true label)": [[f"{answer:+.2f} ({cell})"] for answer, cell in zip(answers, cells, strict=True)],
        "moved by": [[", ".join(lines)] for lines in moved],
    }
    return {"contributions": plots.table(columns)}
