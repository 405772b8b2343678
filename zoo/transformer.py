"""Transformer over several modalities: patches and words that look at each other.

Three ways: `single`, all in one sequence (UNITER, Chen 2020); `cross_modal`, a stream for each pair of modalities
(MulT, Tsai 2019); `bottleneck`, a stream a modality and a few tokens that they share (MBT, Nagrani 2021).

Three tasks: `classification` by the column `label`; `answering` a question by the column `answer`; `retrieval`, where
each modality given alone becomes an embedding, trained by contrast (CLIP, Radford 2021) and searched like a
dual_encoder's, though by one network for all.

Inputs: the modalities, and `presence`. Outputs: `label` or `answer`, logits `(batch, num_classes)`; for retrieval
`<name>_embedding (batch, width)` of length one, and `similarity_scale (batch, 2)`.
"""

import dataclasses
import itertools

from zoo import _inputs, _retrieval
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the transformer."""

    stream: str = hp("single", "how the modalities look at each other", ("single", "cross_modal", "bottleneck"))
    task: str = hp("classification", "what is learned", ("classification", "answering", "retrieval"))
    width: int = hp(128, "size of the tokens")
    num_layers: int = hp(3, "layers of blocks")
    num_heads: int = hp(4, "attention heads; they share the width")
    temperature: float = hp(0.07, "initial temperature of retrieval", low=0.001)
    num_classes: int = hp(10, "number of labels or answers; zoo.train takes it from the training split")

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.num_heads:
            raise ValueError(
                f"Expected a width divisible by num_heads. Received: width={self.width}, num_heads={self.num_heads}."
            )
        if self.task == "retrieval" and len(self.modalities) < 2:
            raise ValueError(f"Expected two modalities or more to find one another. Received: {self.modalities}.")
        if self.task == "retrieval":
            self.unused("modality_dropout", "Where modalities are compared, no modality can be left out")

    @property
    def target(self):
        """The column that is predicted, and the output that predicts it; None for retrieval."""
        return {"classification": "label", "answering": "answer", "retrieval": None}[self.task]


_BASE = {
    "image_encoder": "patches", "image_grid": 6, "text_encoder": "words", "modality_dropout": 0.1, "epochs": 20,
}  # fmt: skip
PRESETS = {
    "base": _BASE,
    "tiny": {
        **_inputs.TINY, "image_encoder": "patches", "text_encoder": "words", "width": 16, "num_layers": 1,
        "num_heads": 2, "num_classes": 6, "learning_rate": 2e-3,
    },
    "cross_modal": {**_BASE, "stream": "cross_modal"},
    "bottleneck": {**_BASE, "stream": "bottleneck"},
    "retrieval": {**_BASE, "task": "retrieval", "modality_dropout": 0.0},
    "answering": {**_BASE, "task": "answering", "modalities": {"image": "image", "question": "text"}},
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return _inputs.label_targets(config.target, output=config.target) if config.target else None


def augment(config):
    return _inputs.augment(config)


def build(config):
    """Tokens, the blocks, what they say together, and a head."""
    import keras
    from keras import ops

    from mmkeras import fusion, layers, training

    stream = {"single": fusion.SingleStream, "cross_modal": fusion.CrossModal, "bottleneck": fusion.Bottleneck}
    inputs = _inputs.inputs(config)
    tokens = {name: _inputs.encode(config, name, inputs[name]) for name in config.names}
    look = stream[config.stream](config.width, config.num_layers, config.num_heads, config.dropout, name="look")
    join = fusion.Concat(config.width, name="fusion")
    if config.target:
        presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(inputs["presence"])
        x = keras.layers.Dropout(config.dropout, name="fused_dropout")(join(look(tokens, presence), presence))
        outputs = {config.target: keras.layers.Dense(config.num_classes, name=config.target)(x)}
        return training.MultiInput(inputs, outputs, name="transformer")
    outputs = {}
    for i, name in enumerate(config.names):
        alone = inputs["presence"] * ops.one_hot(i, len(config.names))
        x = join(look(tokens, alone), alone)
        outputs[f"{name}_embedding"] = layers.L2Normalize(name=f"{name}_embedding")(x)
    scale = layers.SimilarityScale(1 / config.temperature, name="similarity_scale")
    outputs["similarity_scale"] = scale(inputs["presence"])
    return training.ObjectiveModel(inputs, outputs, name="transformer", objective=objective(config))


def objective(config):
    """Cross-entropy of the label or answer; for retrieval a contrastive term a pair of modalities."""
    import keras

    from mmkeras import losses
    from mmkeras.training import Contrastive, Objective

    if config.target:
        metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        return {"loss": {config.target: losses.LabelCrossentropy()}, "metrics": {config.target: [metric]}}
    texts = config.of_kind("text")
    pairs = itertools.combinations(config.names, 2)
    return Objective([Contrastive(f"{a}_{b}_contrast", (a, b), "clip", texts) for a, b in pairs], config.names)


def signatures(config, model, preprocessor):
    """As a fusion_classifier's: `serving_default` and `classify`; for retrieval a score, and `encode_<input>`."""
    import tensorflow as tf

    from mmkeras.export import Signature, alone_signature, label_signatures, raw_specs

    if config.target:

        def probabilities(raw):
            return tf.nn.softmax(model(preprocessor.inputs(raw), training=False)[config.target])

        return label_signatures(preprocessor, config.target, probabilities)

    def encode(name):
        def embed(inputs):
            return {"embedding": model(inputs, training=False)[f"{name}_embedding"]}

        return alone_signature(preprocessor, name, embed)

    result = {f"encode_{name}": encode(name) for name in config.names}
    first, second = config.names[:2]

    def score(raw):
        outputs = model(preprocessor.inputs(raw), training=False)
        return {"score": tf.reduce_sum(outputs[f"{first}_embedding"] * outputs[f"{second}_embedding"], axis=-1)}

    return {"serving_default": Signature(score, raw_specs(preprocessor)), **result}


def evaluate(run, split):
    """Accuracy from all modalities and from each alone, beside the most frequent label's; or retrieval both ways."""
    import numpy as np

    from mmkeras import metrics

    if not run.config.target:
        return _retrieval.report(run, split)
    names, target = run.config.names, run.config.target
    logits, labels = {}, []
    for x, y in run.batches(split):
        labels.append(y[target].numpy())
        for given in dict.fromkeys([tuple(names), *((name,) for name in names)]):
            mask = np.array([name in given for name in names], "float32")
            outputs = run.outputs({**x, "presence": x["presence"] * mask})
            logits.setdefault(given, []).append(outputs[target].numpy())
    labels, report = np.concatenate(labels), {}
    for given, parts in logits.items():
        scores = np.concatenate(parts)
        shares = np.exp(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True))
        report[" and ".join(given)] = metrics.classification(labels, shares)
    report["majority label"] = {"accuracy": float(np.bincount(labels).max() / len(labels))}
    return report


def figures(run, split):
    """`confusion`: true against predicted labels; for retrieval `retrieval`: the nearest pictures of some texts."""
    import numpy as np

    from mmkeras import metrics, plots

    target = run.config.target
    if not target:
        return _retrieval.figures(run, split)
    pairs = [(y[target].numpy(), run.outputs(x)[target].numpy().argmax(-1)) for x, y in run.batches(split)]
    labels, predicted = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    matrix = metrics.confusion(labels, predicted, run.config.num_classes)
    return {"confusion": plots.confusion(matrix, run.preprocessor.reader(target).vocabulary)}
