"""Classifier over several modalities: an encoder each, one of the fusions, one head.

Every fusion takes any number of modalities (at least two, where it is made of what they say to each other), and any of
them may be missing. A fusion of tokens lets the modalities look at each other before they are joined; with a fusion of
decisions each has a head of its own; a staged one stands between the stages of encoders that are made for it.

Where one modality learns so fast that the others do not, `balance` slows it down (OGM-GE, Peng 2022) or weighs the
losses of heads on each of them (Gradient-Blend, Wang 2020). With a `teacher`, a classifier of the same labels from
other modalities, it learns what that one thinks of each row besides (cross-modal distillation, Gupta 2016).

Inputs: the modalities, and `presence`. Outputs: `label`, logits `(batch, num_classes)`; with a `balance`
`<name>_alone`, those of each modality by itself; with a `teacher` `soft_label`, which are those of `label`.
"""

import dataclasses
import itertools

from zoo import _inputs
from zoo._config import hp

TOKEN_FUSIONS = ("transformer", "cross_modal", "bottleneck", "co_attention")
DECISION_FUSIONS = ("late", "evidential")
STAGED_FUSIONS = ("mmtm", "central")
FUSIONS = (
    "concat", "sum", "weighted_sum", "product", "gated", "attention", "cross_attention", "bilinear", "tensor",
    "low_rank", "film", "deep_sets", "multiplicative", "mfb", "tucker", "mutan", "block", "mcb", "product_of_experts",
    "mixture_of_experts", *TOKEN_FUSIONS, *DECISION_FUSIONS, *STAGED_FUSIONS,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the classifier."""

    fusion: str = hp("gated", "how the modalities are joined", FUSIONS)
    fusion_width: int = hp(128, "size of the fused vector")
    num_classes: int = hp(10, "number of labels; zoo.train takes it from the training split")
    labels: str = hp("one", "one label a row, or many (the column `tags`)", ("one", "many"))
    label_smoothing: float = hp(0.0, "share of the target spread over all labels", high=0.99)
    focusing: float = hp(0.0, "exponent of the focal loss, which counts less what is known already; 0 for none")
    class_weight: str = hp("none", "balanced: rare labels weigh more, in zoo.train", ("none", "balanced"))
    balance: str = hp("none", "what keeps the modalities learning at one pace", ("none", "ogm_ge", "gradient_blend"))
    balance_strength: float = hp(0.3, "how much ogm_ge slows down the modality that is ahead")
    balance_every: int = hp(3, "epochs after which gradient_blend weighs anew")
    teacher: str | None = hp(None, "run of a classifier of the same labels, for zoo.train")
    teacher_weight: float = hp(0.5, "share of the loss that is the teacher's", high=1.0)
    temperature: float = hp(2.0, "by which the teacher's logits are divided", low=0.01)

    def __post_init__(self):
        super().__post_init__()
        if self.fusion in STAGED_FUSIONS and self.freeze:
            raise ValueError(
                f"The encoders of a fusion between stages are its own, none can be frozen. Received: {self.fusion!r}, "
                f"freeze={self.freeze}."
            )
        if self.fusion == "evidential" and self.labels == "many":
            raise ValueError("Evidential fusion is of one label a row. Received: fusion='evidential', labels='many'.")
        for name in ("teacher", "balance", "class_weight") if self.labels == "many" else ():
            if getattr(self, name) not in (None, "none"):
                raise ValueError(
                    f"`{name}` is of one label a row. Received: labels='many', {name}={getattr(self, name)!r}."
                )
        if self.balance != "none" and (len(self.modalities) < 2 or self.fusion in STAGED_FUSIONS):
            raise ValueError(
                "A balance is of two modalities or more with encoders of their own. Received: "
                f"balance={self.balance!r}, fusion={self.fusion!r}, modalities={self.modalities}."
            )

    @property
    def target(self):
        """The column that is predicted."""
        return "label" if self.labels == "one" else "tags"


_NAME = "fusion_classifier"
_BASE = {
    "image_encoder": "resnet", "dropout": 0.2, "modality_dropout": 0.2, "epochs": 15, "augment_shift": 0.1,
    "augment_zoom": 0.1, "augment_tokens": 0.1,
}  # fmt: skip
PRESETS = {
    "base": _BASE,
    "small": {
        **_BASE, "image_encoder": "cnn", "image_grid": 6, "text_dim": 64, "text_width": 128, "dropout": 0.1,
        "modality_dropout": 0.3, "epochs": 10,
    },
    "tiny": {**_inputs.TINY, "fusion_width": 16, "num_classes": 3},
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return _inputs.label_targets(config.target, several=config.labels == "many")


def augment(config):
    return _inputs.augment(config)


def build(config):
    """The classifier."""
    import keras

    from mmkeras import fusion, layers, training

    inputs = _inputs.inputs(config)
    presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(inputs["presence"])
    if config.fusion in STAGED_FUSIONS:
        outputs = _with_soft({"label": _head(config, _staged(config, inputs, presence))}, config)
        return training.MultiInput(inputs, outputs, name=_NAME)
    tokens = {name: _inputs.encode(config, name, inputs[name]) for name in config.names}
    if config.fusion in DECISION_FUSIONS:
        pooled = {name: layers.Pool("mean", name=f"{name}_pool")(tokens[name]) for name in config.names}
        logits = {n: keras.layers.Dense(config.num_classes, name=f"{n}_head")(pooled[n]) for n in config.names}
        label = fusion.DECISION_FUSIONS[config.fusion](name="label")(logits, presence)
    else:
        how, looked = config.fusion, tokens
        if how in TOKEN_FUSIONS:
            look = fusion.TOKEN_FUSIONS[how](config.fusion_width, dropout=config.dropout, name="look")
            looked, how = look(tokens, presence), "concat"
        label = _head(config, fusion.FEATURE_FUSIONS[how](config.fusion_width, name="fusion")(looked, presence))
    outputs = _with_soft({"label": label}, config)
    if config.balance == "none":
        return training.MultiInput(inputs, outputs, name=_NAME)
    outputs.update({f"{name}_alone": _alone(config, name, tokens[name]) for name in config.names})
    how = {"strength": config.balance_strength, "every": config.balance_every}
    return training.ModalityBalance(inputs, outputs, name=_NAME, modalities=config.names, balance=config.balance, **how)


def _with_soft(outputs, config):
    """The outputs, with a teacher the logits once more: an output a loss."""
    import keras

    soft = keras.layers.Identity(dtype="float32", name="soft_label")
    return {**outputs, "soft_label": soft(outputs["label"])} if config.teacher else outputs


def _alone(config, name, tokens):
    """Logits of one modality alone; with ogm_ge they measure its encoder, and do not train it."""
    import keras

    from mmkeras import layers

    pooled = layers.Pool("mean", name=f"{name}_alone_pool")(tokens)
    if config.balance == "ogm_ge":
        pooled = keras.ops.stop_gradient(pooled)
    return keras.layers.Dense(config.num_classes, name=f"{name}_alone")(pooled)


def _head(config, fused):
    import keras

    x = keras.layers.LayerNormalization(name="fused")(fused)
    x = keras.layers.Dropout(config.dropout, name="fused_dropout")(x)
    return keras.layers.Dense(config.num_classes, name="label")(x)


def _staged(config, inputs, presence):
    """The fused vector of encoders that tell each other something after every stage."""
    import keras

    from mmkeras import encoders, fusion

    stages = {name: _inputs.staged_encoder(config, name) for name in config.names}
    features, central = {name: inputs[name] for name in config.names}, []
    for i in range(encoders.NUM_STAGES):
        features = {name: stages[name][i](x) for name, x in features.items()}
        exchange = fusion.STAGED_FUSIONS[config.fusion](config.fusion_width, name=f"exchange_{i}")
        features, *central = exchange(features, presence, *central)
    if config.fusion == "central":
        return central[0]
    tokens = {n: x if len(x.shape) == 3 else keras.layers.Reshape((-1, x.shape[-1]))(x) for n, x in features.items()}
    return fusion.Concat(config.fusion_width, name="fusion")(tokens, presence)


def objective(config):
    """Cross-entropy of one label, or of each of many; with a teacher also the distance from what that one says."""
    import keras

    from mmkeras import losses

    if config.labels == "many":
        loss = losses.TagsCrossentropy(config.label_smoothing, config.focusing)
        metric = keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    else:
        loss = losses.LabelCrossentropy(config.label_smoothing, config.focusing)
        metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    found = {"loss": {"label": loss}, "metrics": {"label": [metric]}}
    if config.teacher:
        found["loss"]["soft_label"] = losses.Distillation(config.temperature)
        found["loss_weights"] = {"label": 1 - config.teacher_weight, "soft_label": config.teacher_weight}
    return found


def signatures(config, model, preprocessor):
    """`serving_default`: best label and all probabilities; `classify`: labels and scores, the best first."""
    import tensorflow as tf

    from mmkeras.export import label_signatures

    def probabilities(raw):
        logits = model(preprocessor.inputs(raw), training=False)["label"]
        return tf.nn.softmax(logits) if config.labels == "one" else tf.sigmoid(logits)

    return label_signatures(preprocessor, config.target, probabilities)


def evaluate(run, split, subsets=False):
    """Metrics from all modalities, and with `subsets` from every subset of them, beside the majority label's share."""
    import numpy as np

    from mmkeras import metrics

    names = run.config.names
    chosen = (
        [s for n in range(1, len(names) + 1) for s in itertools.combinations(names, n)] if subsets else [tuple(names)]
    )
    logits, labels = {subset: [] for subset in chosen}, []
    for x, y in run.batches(split):
        labels.append(y["label"].numpy())
        for subset in chosen:
            mask = np.array([name in subset for name in names], "float32")
            logits[subset].append(run.outputs({**x, "presence": x["presence"] * mask})["label"].numpy())
    labels, report = np.concatenate(labels), {}
    for subset in reversed(chosen):
        scores = np.concatenate(logits[subset])
        if run.config.labels == "many":
            report[" and ".join(subset)] = metrics.multilabel(labels, 1 / (1 + np.exp(-scores)))
        else:
            shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
            report[" and ".join(subset)] = metrics.classification(labels, shares / shares.sum(axis=-1, keepdims=True))
    if run.config.labels == "one":
        report["majority label"] = {"accuracy": float(np.bincount(labels).max() / len(labels))}
    return report


def figures(run, split):
    """`confusion`: true against predicted labels."""
    if run.config.labels == "many":
        return {}
    import numpy as np

    from mmkeras import metrics, plots

    pairs = [(y["label"].numpy(), run.outputs(x)["label"].numpy().argmax(-1)) for x, y in run.batches(split)]
    labels, predicted = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    matrix = metrics.confusion(labels, predicted, run.config.num_classes)
    return {"confusion": plots.confusion(matrix, run.preprocessor.reader("label").vocabulary)}


def judge(run):
    """A function from pixels `(rows, …)` to what the head sees of them, `(rows, width)`, and class probabilities.

    Raises:
        ValueError: if the run sees more than one picture, which pixels alone cannot fill.
    """
    import keras
    import numpy as np

    (name,) = run.config.names if len(run.config.names) == 1 else (None,)
    if name is None or run.config.modalities[name] != "image":
        raise ValueError(
            f"Expected a classifier of pictures alone. Received: {run.path}, over {run.config.modalities}."
        )
    layer = run.model.get_layer("label" if run.config.fusion in DECISION_FUSIONS else "fused")
    model = keras.Model(run.model.input, {"features": layer.output, "label": run.model.output["label"]})

    def of_pixels(pixels):
        pixels = keras.ops.convert_to_numpy(keras.ops.image.resize(pixels, run.config.image_size, antialias=True))
        outputs = model.predict({name: pixels, "presence": np.ones((len(pixels), 1))}, verbose=0)
        return outputs["features"], keras.ops.convert_to_numpy(keras.ops.softmax(outputs["label"]))

    return of_pixels
