"""Multi-task learning: one shared trunk, several heads at once.

The tokens of the pictures (sounds, clips, vectors) are the trunk's memory and, pooled, its vector; heads on them tell
the category and the tags, write the caption, and give the embedding by which the row and its text find each other.
The losses are weighed by fixed weights, by uncertainty (Kendall 2018), by GradNorm (Chen 2018), or their gradients
are rid of conflicts (PCGrad, Yu 2020).

Inputs: the modalities, one of them a text, and `presence`. Outputs, each with its head: `label` and `tags`, logits;
the text under its own name, logits of its tokens; `embedding` and `<text>_embedding`.
"""

import dataclasses

from zoo import _inputs
from zoo._config import hp

HEADS = ("category", "tags", "caption", "retrieval")


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of multi-task learning."""

    heads: dict[str, float] = hp(dict.fromkeys(HEADS, 1.0), "head=weight of its loss: " + ", ".join(HEADS))
    balance: str = hp("fixed", "how the losses are weighed", ("fixed", "uncertainty", "gradnorm", "pcgrad"))
    width: int = hp(128, "size of the trunk's tokens and vector, and of the embeddings")
    num_classes: int = hp(10, "number of labels; zoo.train takes it from the training split")
    num_tags: int = hp(10, "number of tags; zoo.train takes it from the training split")
    temperature: float = hp(0.07, "of the contrastive loss, to begin with", low=0.001)

    def __post_init__(self):
        super().__post_init__()
        unknown = sorted(set(self.heads) - set(HEADS))
        if unknown or not self.heads:
            raise ValueError(f"Expected heads among {', '.join(HEADS)}. Received: {sorted(self.heads)}.")
        if len(self.of_kind("text")) != 1 or not self.sources:
            raise ValueError(f"Expected one text and another modality. Received: modalities={self.modalities}.")
        self.refuse([self.text], ["embedding", "tags"])

    @property
    def text(self):
        """Name of the text."""
        return self.of_kind("text")[0]

    @property
    def sources(self):
        """Names of the trunk's modalities."""
        return [name for name in self.names if self.modalities[name] != "text"]

    @property
    def required(self):
        """Columns that every row must have."""
        return [self.text] if {"caption", "retrieval"} & set(self.heads) else []


_BASE = {"image_encoder": "resnet", "image_grid": 6, "epochs": 12, "learning_rate": 2e-3, "batch_size": 32}
PRESETS = {
    "base": _BASE,
    "tiny": {**_inputs.TINY, "width": 16, "num_classes": 6, "num_tags": 14},
    "uncertainty": {**_BASE, "balance": "uncertainty"},
    "gradnorm": {**_BASE, "balance": "gradnorm"},
    "pcgrad": {**_BASE, "balance": "pcgrad"},
}


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    import keras

    chosen = []
    if "category" in config.heads:
        chosen.append(_inputs.label_targets())
    if "tags" in config.heads:
        chosen.append(_inputs.label_targets("tags", several=True, output="tags"))
    if not chosen:
        return None
    raw = {name: tensor for model in chosen for name, tensor in model.input.items()}
    return keras.Model(raw, {name: value for model in chosen for name, value in model.output.items()}, name="targets")


def augment(config):
    return _inputs.augment(config, config.sources)


def build(config):
    """The trunk and the heads that are asked for."""
    import keras

    from mmkeras import decoders, layers, training

    inputs = _inputs.inputs(config)
    memory, counts = _inputs.memory(config, inputs, config.sources, config.width)
    pooled = layers.Pool("both", name="pool")(memory)
    trunk = keras.layers.Dense(config.width, activation="relu", name="trunk")(pooled)
    trunk = keras.layers.Dropout(config.dropout, name="trunk_dropout")(trunk)
    outputs = {}
    if "category" in config.heads:
        outputs["label"] = keras.layers.Dense(config.num_classes, name="label")(trunk)
    if "tags" in config.heads:
        outputs["tags"] = keras.layers.Dense(config.num_tags, name="tags")(trunk)
    if "caption" in config.heads:
        decoder = decoders.caption_decoder(
            memory.shape[1:], config.text_length, config.vocabulary_size, "lstm", config.width, dropout=config.dropout,
            name="decoder",
        )  # fmt: skip
        # What is written begins with what the trunk's vector says, so that this head shares it too.
        told = keras.layers.RepeatVector(1)(keras.layers.Dense(config.width, name="told")(trunk))
        told = keras.layers.Add(name="told_memory")([memory, told])
        outputs[config.text] = decoder({"words": inputs[config.text], "memory": told, "counts": counts})["logits"]
    if "retrieval" in config.heads:
        words = layers.Pool("mean", name="text_pool")(_inputs.encode(config, config.text, inputs[config.text]))
        for name, x in (("embedding", trunk), (f"{config.text}_embedding", words)):
            x = keras.layers.Dense(config.width, name=f"{name}_projection")(x)
            outputs[name] = layers.L2Normalize(name=name)(x)
        scale = layers.SimilarityScale(1 / config.temperature, name="similarity_scale")
        outputs["similarity_scale"] = scale(inputs["presence"])
    if config.balance in ("uncertainty", "gradnorm"):
        learned = config.balance == "uncertainty"
        weights = training.TaskWeights(len(config.heads), 0.0 if learned else 1.0, learned, name="task_weights")
        outputs["task_weights"] = weights(inputs["presence"])
    return training.MultiTask(
        inputs, outputs, name="multitask", objective=objective(config), balance=config.balance, shared="trunk"
    )


def objective(config):
    """A term a head: cross-entropy of the label, of the tags and of the words; contrast between row and text."""
    from mmkeras.training import Contrastive, Objective, Reconstruction, Supervised

    terms = {
        "category": lambda w: Supervised("category", "label", "label", w),
        "tags": lambda w: Supervised("tagging", "tags", "tags", w, several=True),
        "caption": lambda w: Reconstruction("caption", config.text, config.text, "tokens", weight=w),
        "retrieval": lambda w: Contrastive(
            "retrieval", (config.sources[0], config.text), texts=[config.text], weight=w,
            outputs=("embedding", f"{config.text}_embedding"),
        ),
    }  # fmt: skip
    return Objective([terms[head](config.heads[head]) for head in HEADS if head in config.heads], config.names)


def captions(config, model, x, width=4):
    """Token ids `(batch, text_length)` of the best captions that a beam finds, and their scores `(batch,)`."""
    import keras
    import tensorflow as tf

    from mmkeras.decoders import word_by_word
    from mmkeras.export import beam_search

    memory = [model.get_layer("told_memory").output, model.get_layer("memory").output[1]]
    inputs = {name: model.input[name] for name in (*config.sources, "presence")}
    remember = keras.Model(inputs, memory)
    memory, counts = remember({name: x[name] for name in inputs}, training=False)
    repeated = [tf.repeat(value, width, axis=0) for value in (memory, counts)]
    logits_of, state = word_by_word(model.get_layer("decoder"), *repeated)
    words, scores = beam_search(logits_of, state, tf.shape(memory)[0], config.text_length, width, 0.7)
    return words[:, 0], scores[:, 0]


def signatures(config, model, preprocessor):
    """`serving_default`: what every head says of the trunk's modalities; `classify`: the category's labels, the best
    first; `encode_<text>`: a text's embedding.
    """
    import tensorflow as tf

    from mmkeras.export import Signature, classify_signature, encode_signature, raw_specs

    def read(raw):
        given = {name: raw[name] for name in config.sources}
        return preprocessor.inputs({**given, config.text: tf.fill(tf.shape(given[config.sources[0]])[:1], "")})

    def shares(raw):
        return tf.nn.softmax(model(read(raw), training=False)["label"])

    def predict(raw):
        x = read(raw)
        outputs, answer = model(x, training=False), {}
        if "category" in config.heads:
            labels = tf.constant(preprocessor.reader("label").vocabulary)
            answer["label"] = tf.gather(labels, tf.argmax(outputs["label"], axis=-1))
            answer["label_probabilities"] = tf.nn.softmax(outputs["label"])
        if "tags" in config.heads:
            answer["tag_probabilities"] = tf.sigmoid(outputs["tags"])
        if "caption" in config.heads:
            words, answer["caption_score"] = captions(config, model, x)
            answer["caption"] = preprocessor.reader(config.text).texts(words)
        if "retrieval" in config.heads:
            answer["embedding"] = outputs["embedding"]
        return answer

    specs = raw_specs(preprocessor, config.sources)
    result = {"serving_default": Signature(predict, specs)}
    if "category" in config.heads:
        result["classify"] = classify_signature(preprocessor.reader("label").vocabulary, shares, specs)
    if "retrieval" in config.heads:
        result[f"encode_{config.text}"] = encode_signature(preprocessor, model, config.text)
    return result


def evaluate(run, split):
    """Each head by its own metrics, beside what is had without looking: the majority, every tag, a random order."""
    import numpy as np
    import tensorflow as tf

    from mmkeras import metrics

    config, parts = run.config, {}
    write = tf.function(lambda x: captions(config, run.model, x)[0], autograph=False, reduce_retracing=True)
    for batch in run.batches(split):
        x, y = batch[0], batch[1] if len(batch) > 1 else {}
        outputs = run.outputs(x)
        for name in ("label", "tags"):
            if name in outputs:
                parts.setdefault(f"true {name}", []).append(y[name].numpy())
        if "caption" in config.heads:
            parts.setdefault("written", []).append(write(x).numpy())
        if {"caption", "retrieval"} & set(config.heads):
            parts.setdefault("words", []).append(x[config.text].numpy())
        for name in ("label", "tags", "embedding", f"{config.text}_embedding"):
            if name in outputs:
                parts.setdefault(name, []).append(outputs[name].numpy())
    parts, report = {name: np.concatenate(values) for name, values in parts.items()}, {}
    if "category" in config.heads:
        true, shares = parts["true label"], np.exp(parts["label"])
        report["category"] = metrics.classification(true, shares / shares.sum(axis=-1, keepdims=True))
        report["category, majority"] = {"accuracy": float(np.bincount(true).max() / len(true))}
    if "tags" in config.heads:
        true = parts["true tags"]
        report["tags"] = metrics.multilabel(true, 1 / (1 + np.exp(-parts["tags"])))
        report["tags, every tag always"] = metrics.multilabel(true, np.tile(true.mean(axis=0), (len(true), 1)), 0.0)
    if "caption" in config.heads:
        report["caption"] = run.compare(config.text, parts["words"], parts["written"])
        other = run.compare(config.text, parts["words"], np.roll(parts["written"], 1, axis=0))
        report["caption, another row's"] = other
    if "retrieval" in config.heads:
        texts = [tuple(row) for row in parts["words"]]
        same = np.array([[a == b for b in texts] for a in texts])
        ours, theirs = parts["embedding"], parts[f"{config.text}_embedding"]
        report["row -> text"] = metrics.retrieval(ours, theirs, lambda i: same[i])
        report["row -> text, by chance"] = {
            f"recall@{k}": metrics.recall_by_chance(same.sum(axis=1), len(ours), k) for k in (1, 5, 10)
        }
    return report


def figures(run, split, num_rows=8):
    """`heads`: rows, and what each head says of them."""
    import numpy as np

    from mmkeras import plots

    config = run.config
    rows = split.take(np.linspace(0, len(split) - 1, min(num_rows, len(split))).astype(int))
    x = next(iter(run.batches(rows, batch_size=num_rows)))[0]
    outputs = run.outputs(x)
    columns = {"input": run.show(x, config.sources)}
    if "category" in config.heads:
        labels = run.preprocessor.reader("label").vocabulary
        said = outputs["label"].numpy().argmax(-1)
        columns["category (true)"] = [[f"{labels[a]} ({b})"] for a, b in zip(said, rows.cells("label"), strict=True)]
    if "tags" in config.heads:
        tags = run.preprocessor.reader("tags").vocabulary
        said = [[tags[i] for i in np.flatnonzero(row > 0)] for row in outputs["tags"].numpy()]
        columns["tags (true)"] = [
            [f"{', '.join(a)} ({', '.join(b)})"] for a, b in zip(said, rows.cells("tags"), strict=True)
        ]
    if "caption" in config.heads:
        written = captions(config, run.model, x)[0].numpy()
        columns["caption"] = [[text] for text in run.texts(config.text, written)]
    return {"heads": plots.table(columns)}
