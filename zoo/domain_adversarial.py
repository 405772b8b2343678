"""Domain adaptation: a classifier whose features look alike in two domains, of which only one is labelled.

A domain classifier reads the features through a layer that reverses its gradient, so that they become such as it cannot
tell apart (DANN, Ganin 2016); with `cdan` it reads them together with the predicted label (CDAN, Long 2018). Its layers
are spectrally normalised (Miyato 2018), which the papers' are not: without, the two outrun each other. `mmd`
(DAN, Long 2015) and `coral` (deep CORAL, Sun 2016) bring the two distributions together without an adversary; `none`
learns from the source alone.

Rows whose column `domain` is `target_domain` take part in training without their labels; with `target_split` it is the
rows of that split. Other domains are the source.

Inputs: the modalities, and `presence`. Targets: `label`, and `domain`, 0 for source and 1 for target. Outputs: `label`,
logits `(batch, num_classes)`; `features (batch, width)`; with an adversary `domain`, logits `(batch, 2)`; with `mmd`
and `coral` `adaptation (batch,)`, their weight.
"""

import dataclasses
import functools

from zoo import _inputs
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of domain adaptation."""

    modalities: dict[str, str] = hp({"image": "image"}, "name=kind of each input")
    target_domain: str = hp("hatched", "value of the column `domain` in the rows whose labels are not used")
    target_split: str | None = hp(None, "split whose rows, without their labels, are the target domain instead")
    method: str = hp("dann", "how the domains are brought together", ("dann", "cdan", "mmd", "coral", "none"))
    adaptation_weight: float = hp(0.3, "weight of bringing them together")
    ramp: int = hp(500, "training steps until that has its full weight", low=0)
    width: int = hp(128, "size of the features")
    num_classes: int = hp(10, "number of labels; zoo.train takes it from the training split")


_BASE = {"image_encoder": "resnet", "epochs": 15, "augment_shift": 0.1}
PRESETS = {
    "base": _BASE,
    "tiny": {**_inputs.TINY, "width": 16, "num_classes": 6, "ramp": 20},
    **{method: {**_BASE, "method": method} for method in ("cdan", "mmd", "coral")},
}


def prepare(config, splits):
    """The splits with a column `is_target`; of target rows, training and validation do not get the labels.

    A split alone, such as a file given to `zoo evaluate`, is neither, whatever it is called. `told` says which labels
    are the row's own.
    """
    from mmkeras.data import DataError

    prepared = {}
    for name, split in splits.items():
        learned_from = name in ("train", "validation") and len(splits) > 1
        if config.target_split:
            is_target = [int(name == config.target_split)] * len(split)
            if name == "train" and learned_from:
                if config.target_split not in splits:
                    raise DataError(f"There is no split `{config.target_split}`. There is: {', '.join(splits)}.")
                is_target += [1] * len(splits[config.target_split])
                split = split.append(splits[config.target_split])
        else:
            is_target = [int(str(domain) == config.target_domain) for domain in split.cells("domain")]
        if name == "train" and learned_from and len(set(is_target)) < 2:
            domains = sorted(set(map(str, split.cells("domain"))))
            raise DataError(
                f"Expected rows of the domain `{config.target_domain}` and of others in the training split. It has: "
                f"{', '.join(domains)}. Say which is the target with --target-domain, or --target-split."
            )
        columns = {"is_target": [str(value) for value in is_target]}
        columns["told"] = [str(int(not (learned_from and target))) for target in is_target]
        if learned_from and "label" in split.kinds:
            labels = split.cells("label")
            known = next((label for label, target in zip(labels, is_target, strict=True) if not target), "")
            columns["label"] = [known if t else label for label, t in zip(labels, is_target, strict=True)]
        prepared[name] = split.replace(columns, {})
    return prepared


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    import keras

    from mmkeras import layers

    label, is_target = (keras.Input((), dtype="string", name=name) for name in ("label", "is_target"))
    read = {"label": layers.EncodeLabel(name="read_label")(label)}
    read["domain"] = layers.ReadNumber(name="read_is_target")(is_target)
    return keras.Model({"label": label, "is_target": is_target}, read, name="targets")


def augment(config):
    return _inputs.augment(config)


def build(config):
    """Encoders, the features, the head for the label and the one for the domain."""
    import keras
    from keras import ops

    from mmkeras import fusion, layers, training

    inputs = _inputs.inputs(config)
    presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(inputs["presence"])
    tokens = {name: _inputs.encode(config, name, inputs[name]) for name in config.names}
    fused = fusion.Concat(config.width, name="fusion")(tokens, presence)
    x = keras.layers.LayerNormalization(name="fused")(fused)
    features = keras.layers.Dense(config.width, activation="tanh", name="features")(x)
    x = keras.layers.Dropout(config.dropout, name="features_dropout")(features)
    label = keras.layers.Dense(config.num_classes, name="label")(x)
    outputs = {"label": label, "features": features}
    if config.method in ("dann", "cdan"):
        x = features
        if config.method == "cdan":  # every feature with the probability of every label
            shares = ops.stop_gradient(ops.softmax(label))
            x = ops.reshape(x[:, :, None] * shares[:, None], (-1, config.width * config.num_classes))
        x = layers.GradientReversal(config.ramp, name="reversal")(x)
        # A domain classifier of any steepness is soon sure of itself: features then leap past the border between the
        # domains, back and forth, and never come to rest on it.
        steady = functools.partial(keras.layers.SpectralNormalization, dtype=keras.config.floatx())
        x = steady(keras.layers.Dense(config.width, activation="relu"), name="domain_hidden")(x)
        outputs["domain"] = steady(keras.layers.Dense(2), name="domain")(x)
    elif config.method != "none":
        outputs["adaptation"] = layers.RisingWeight(config.ramp, name="adaptation")(features)
    return training.ObjectiveModel(inputs, outputs, name="domain_adversarial", objective=objective(config))


def objective(config):
    """The label of source rows; whether a row is of the target, or how unlike the two domains' features are."""
    from mmkeras.training import Discrepancy, Objective, Supervised

    terms = [Supervised("label_loss", "label", "label", without="domain")]
    if config.method in ("dann", "cdan"):
        terms.append(Supervised("domain_loss", "domain", "domain", config.adaptation_weight, against=True))
    elif config.method != "none":
        options = {"level": "adaptation", "weight": config.adaptation_weight}
        terms.append(Discrepancy("discrepancy", "features", "domain", config.method, **options))
    return Objective(terms, config.names)


def signatures(config, model, preprocessor):
    """`serving_default`: best label and all probabilities; `classify`: labels and scores, the best first."""
    import tensorflow as tf

    from mmkeras.export import label_signatures

    def probabilities(raw):
        return tf.nn.softmax(model(preprocessor.inputs(raw), training=False)["label"])

    return label_signatures(preprocessor, "label", probabilities)


def evaluate(run, split):
    """Accuracy of the rows whose labels are known: of the source, of the target, and of every domain.

    Training and validation do not tell the target's labels, not even here.
    """
    import numpy as np

    from mmkeras import metrics

    logits, labels = [], []
    for x, y in run.batches(split):
        logits.append(run.outputs(x)["label"].numpy())
        labels.append(y["label"].numpy())
    logits, labels = np.concatenate(logits), np.concatenate(labels)
    is_target, told = (np.array([float(cell) > 0 for cell in split.cells(name)]) for name in ("is_target", "told"))
    groups = {"source": ~is_target, "target": is_target}
    if "domain" in split.kinds and told.all():
        domains = np.array([str(cell) for cell in split.cells("domain")])
        groups.update({f"domain {name}": domains == name for name in sorted(set(domains))})
    shares = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    report = {}
    for title, rows in groups.items():
        rows = rows & told
        if rows.any():
            report[title] = {**metrics.classification(labels[rows], shares[rows]), "rows": int(rows.sum())}
            most = np.bincount(labels[rows]).max() / rows.sum()
            report[title]["majority"] = float(most)
    return report


def figures(run, split):
    """`features`: the two main axes of the features, of an untrained model and of this one, by domain.

    Where the split is of one domain alone, training rows of the other stand beside it.
    """
    import numpy as np

    from mmkeras import plots

    rows = split.take(_spread(np.arange(len(split))))
    if len(set(rows.cells("is_target"))) == 1:
        train, here = run.split("train"), rows.cells("is_target")[0]
        others = np.flatnonzero(np.array(train.cells("is_target")) != here)
        rows = rows.append(train.take(_spread(others)))
    is_target = np.array([float(cell) > 0 for cell in rows.cells("is_target")])
    panels = {}
    for title, model in (("before training", run.module.build(run.config)), ("after", run.model)):
        found = [model(x, training=False)["features"].numpy() for x, *_ in run.batches(rows)]
        panels[title] = _principal_axes(np.concatenate(found))
    groups = np.where(is_target, "target", "source")
    if "domain" in rows.kinds:
        names = zip(rows.cells("domain"), is_target, strict=True)
        groups = [f"{name} (target)" if target else str(name) for name, target in names]
    return {"features": plots.scatter(panels, groups)}


def _spread(rows, most=500):
    """At most so many of some rows, at even distances."""
    import numpy as np

    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


def _principal_axes(x):
    """Points `(rows, dim)` along the two axes in which they vary most."""
    import numpy as np

    x = x - x.mean(axis=0)
    return x @ np.linalg.svd(x, full_matrices=False)[2][:2].T
