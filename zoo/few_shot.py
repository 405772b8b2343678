"""Few-shot learning: new classes from one or a few examples of each, learned by episodes over other classes.

`prototypical` networks (Snell 2017) and `matching` networks (Vinyals 2016, without full context embeddings) compare
features; `maml` (Finn 2017) and `reptile` (Nichol 2018) learn weights from which a few steps of gradient descent on the
examples suffice.

One class in five, drawn by a hash of its name, is kept for testing, and one in five for validation: none of their rows
is trained on. Data whose test classes differ from their training classes already are left as they are.

Inputs: the modalities, and `presence`. Outputs: `embedding (batch, width)`; `label`, logits `(batch, ways)`, where the
method adapts its weights. A batch in training is a number of episodes (`mmkeras.training.Episodic`).
"""

import dataclasses

from zoo import _inputs
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of few-shot learning."""

    modalities: dict[str, str] = hp({"image": "image"}, "name=kind of each input")
    class_column: str | None = hp(None, "column of the classes; `object` if the data have it, `label` otherwise")
    method: str = hp("prototypical", "how it learns", ("prototypical", "matching", "maml", "reptile"))
    ways: int = hp(5, "classes an episode", low=2)
    shots: int = hp(1, "examples a class in training")
    queries: int = hp(5, "queries a class in training")
    tasks: int = hp(4, "episodes a step")
    steps: int = hp(100, "steps an epoch")
    inner_steps: int = hp(3, "steps of gradient descent on the examples (maml, reptile)")
    inner_rate: float = hp(0.1, "learning rate of these steps")
    first_order: bool = hp(False, "maml without the gradient of these steps")
    width: int = hp(128, "size of the features")

    def __post_init__(self):
        super().__post_init__()
        for name in ("dropout", "modality_dropout") if self.method in ("maml", "reptile") else ():
            self.unused(name, f"method={self.method!r} computes as in training also when it is asked")
        rows = self.tasks * self.ways * (self.shots + self.queries)
        object.__setattr__(self, "batch_size", rows)  # a step is a number of episodes, whatever was asked for


_BASE = {"epochs": 15, "dropout": 0.0, "augment_shift": 0.1}
PRESETS = {
    "base": _BASE,
    "tiny": {**_inputs.TINY, "width": 16, "steps": 4, "queries": 3, "ways": 2, "tasks": 2},
    "matching": {**_BASE, "method": "matching"},
    "maml": {**_BASE, "method": "maml"},
    "reptile": {**_BASE, "method": "reptile", "inner_steps": 5, "shots": 5},
}


def prepare(config, splits):
    """The splits with classes of their own."""
    from mmkeras.data import divide_classes

    return divide_classes(splits, _class_column(config, splits))


def _class_column(config, splits):
    known = config.class_column or "object"
    return known if config.class_column or all(known in split.kinds for split in splits.values()) else "label"


def order(config, split, seed, epoch):
    """The rows of an epoch's episodes, one after the other."""
    import numpy as np

    from mmkeras.data import episodes

    classes = split.cells(_class_column(config, {"": split}))
    random = np.random.default_rng([seed, epoch])
    count = config.steps * config.tasks
    return episodes(classes, count, config.ways, config.shots + config.queries, random).reshape(-1)


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return None


def augment(config):
    return _inputs.augment(config)


def build(config):
    """Encoders, the features, and a head where the weights are adapted."""
    import keras

    from mmkeras import fusion, layers, training

    inputs = _inputs.inputs(config)
    presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(inputs["presence"])
    tokens = {name: _inputs.encode(config, name, inputs[name]) for name in config.names}
    pooled = fusion.Concat(config.width, name="fusion")(tokens, presence)
    # No bias under distances: it moves all features alike.
    project = keras.layers.Dense(config.width, use_bias=config.method == "matching", name="embedding")
    outputs = {"embedding": project(pooled)}
    if config.method in ("maml", "reptile"):
        outputs["label"] = keras.layers.Dense(config.ways, name="label")(pooled)
        outputs["embedding"] = pooled
    settings = {name: getattr(config, name) for name in (
        "method", "ways", "shots", "queries", "inner_steps", "inner_rate", "first_order")}  # fmt: skip
    return training.Episodic(inputs, outputs, name="few_shot", **settings)


def objective(config):
    """The loss is the training step's own."""
    return {}


def signatures(config, model, preprocessor):
    """`serving_default` embeds; `classify` names each row's class, by examples `support_<input>`, `support_label`."""
    import tensorflow as tf

    from mmkeras.export import Signature, raw_specs

    specs = raw_specs(preprocessor)
    supports = {f"support_{n}": tf.TensorSpec(s.shape, s.dtype, name=f"support_{n}") for n, s in specs.items()}
    supports["support_label"] = tf.TensorSpec((None,), tf.string, name="support_label")

    def embed(raw):
        return {"embedding": model(preprocessor.inputs(raw), training=False)["embedding"]}

    def classify(raw):
        classes, numbers = tf.unique(raw["support_label"])
        labels = tf.one_hot(numbers, tf.size(classes))
        examples = preprocessor.inputs({name: raw[f"support_{name}"] for name in specs})
        logits = classify_by(config, model, examples, labels, preprocessor.inputs({name: raw[name] for name in specs}))
        batch = tf.shape(logits)[0]
        return {
            "label": tf.gather(classes, tf.argmax(logits, axis=-1)),
            "classes": tf.tile(classes[None], [batch, 1]),
            "probabilities": tf.nn.softmax(logits),
        }

    # A request's rows are told by its own examples, not by those of another.
    by_examples = Signature(classify, {**specs, **supports}, independent=False)
    return {"serving_default": Signature(embed, specs), "classify": by_examples}


def classify_by(config, model, examples, labels, queries):
    """Logits `(queries, classes)` of queries by some examples, both `{input: (rows, ..)}`.

    Args:
        labels: zeros and ones `(examples, classes)`; no more classes than `ways` where the weights are adapted.
    """
    import tensorflow as tf

    from mmkeras import losses

    if not model.adapts:
        features = [model(x, training=False)["embedding"] for x in (examples, queries)]
        return losses.EPISODIC_LOGITS[config.method](features[0], labels, features[1])
    num_classes = tf.shape(labels)[1]
    fits = tf.debugging.assert_less_equal(
        num_classes, config.ways, f"Expected {config.ways} classes or fewer: it was trained so (--ways)."
    )
    with tf.control_dependencies([fits] if fits is not None else []):
        padded = tf.pad(labels, [[0, 0], [0, config.ways - num_classes]])
    padded = tf.ensure_shape(padded, (None, config.ways))
    weights = model.adapted(examples, padded, [v + 0.0 for v in model.trainable_variables])
    return model.logits(queries, weights)[:, :num_classes]


def evaluate(run, split, num_episodes=None):
    """Accuracy over episodes of classes that were never trained on: `{"5-way 1-shot": {"accuracy", "interval", ..}}`.

    The interval is half of the 95 % one, over the episodes. Beside it prototypes of the raw inputs, no network at all.

    Args:
        num_episodes: 600 if None, or 200 where each adapts the weights.
    """
    import numpy as np

    from mmkeras import data

    config = run.config
    classes = split.cells(_class_column(config, {"": split}))
    batches = [{name: np.array(value) for name, value in x.items()} for x, *_ in run.batches(split)]
    x = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    features = np.concatenate([run.outputs(batch)["embedding"].numpy() for batch in batches])
    numbers = [x[name].reshape(len(split), -1) for name in config.names if config.modalities[name] != "text"]
    count, report = num_episodes or (200 if run.model.adapts else 600), {}
    for shots in sorted({1, 5, config.shots}):
        size = shots + config.queries
        if shots > 1 and not _enough(classes, config.ways, size):
            continue
        rows = data.episodes(classes, count, config.ways, size, np.random.default_rng(0))
        title = f"{config.ways}-way {shots}-shot"
        if run.model.adapts:
            found = _adapted_accuracies(run, x, rows, shots)
        else:
            found = _accuracies(config.method, features, rows, shots)
        report[title] = _interval(found, config.ways)
        if numbers:
            raw = _accuracies("prototypical", np.concatenate(numbers, axis=-1), rows, shots)
            report[f"{title}, raw inputs"] = _interval(raw, config.ways)
    return report


def _enough(classes, ways, size):
    import collections

    counts = collections.Counter(str(name) for name in classes if name)
    return sum(count >= size for count in counts.values()) >= ways


def _interval(accuracies, ways):
    import numpy as np

    half = 1.96 * np.std(accuracies, ddof=1) / len(accuracies) ** 0.5
    mean = float(np.mean(accuracies))
    return {"accuracy": mean, "interval": float(half), "episodes": len(accuracies), "chance": 1 / ways}


def _accuracies(method, features, rows, shots):
    """Share of right queries of each episode: rows `(episodes, ways, shots + queries)`, features `(all rows, dim)`."""
    import numpy as np

    from mmkeras import losses

    (_, ways, size), found = rows.shape, []
    labels = np.repeat(np.eye(ways, dtype="float32"), shots, axis=0)
    true = np.repeat(np.arange(ways), size - shots)
    for episode in rows:
        support, queries = features[episode[:, :shots].ravel()], features[episode[:, shots:].ravel()]
        logits = losses.EPISODIC_LOGITS[method](support, labels, queries)
        found.append(np.mean(np.array(logits).argmax(axis=-1) == true))
    return found


def _adapted_accuracies(run, x, rows, shots):
    """As `_accuracies`, of a model that adapts its weights to each episode; x: inputs of all rows."""
    import numpy as np
    import tensorflow as tf

    (_, ways, size), found = rows.shape, []
    labels = np.repeat(np.eye(ways, dtype="float32"), shots, axis=0)
    true = np.repeat(np.arange(ways), size - shots)
    classify = tf.function(
        lambda examples, queries: classify_by(run.config, run.model, examples, labels, queries), autograph=False
    )
    for episode in rows:
        parts = episode[:, :shots].ravel(), episode[:, shots:].ravel()
        examples, queries = ({name: tf.constant(value[part]) for name, value in x.items()} for part in parts)
        found.append(np.mean(classify(examples, queries).numpy().argmax(axis=-1) == true))
    return found


def figures(run, split):
    """`episode`: examples of new classes, and what the queries are taken for; of a model of pictures."""
    import numpy as np

    from mmkeras import data, plots

    images = run.config.of_kind("image")
    classes = split.cells(_class_column(run.config, {"": split}))
    if not images or not _enough(classes, run.config.ways, 4):
        return {}
    ways, shown = run.config.ways, 3
    (episode,) = data.episodes(classes, 1, ways, 1 + shown, np.random.default_rng(run.seed))
    examples, queries = episode[:, 0], episode[:, 1:].T.ravel()
    xs = []
    for rows in (examples, queries):
        (batch,) = run.batches(split.take(rows), batch_size=len(rows))
        xs.append(batch[0])
    logits = classify_by(run.config, run.model, xs[0], np.eye(ways, dtype="float32"), xs[1])
    taken = [classes[examples[i]] for i in np.array(logits).argmax(axis=-1)]
    captions = [f"example: {classes[i]}" for i in examples]
    captions += [f"{name}{'' if name == classes[i] else ' (wrong)'}" for name, i in zip(taken, queries, strict=True)]
    pictures = [picture for x in xs for picture in np.array(x[images[0]])]
    return {"episode": plots.grid(pictures, captions, columns=ways)}
