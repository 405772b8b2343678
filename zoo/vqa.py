"""Visual question answering: a picture and a question to an answer.

Five ways of reasoning, each a preset: stacked attention (Yang 2016), hierarchical co-attention (Lu 2016), FiLM (Perez
2018), relation networks (Santoro 2017), and modular co-attention, MCAN (Yu 2019). A sixth, `concat`, is the baseline of
them all: picture and question beside each other through dense layers.

Inputs: the picture, the question, in words or as a vector, and `presence`. Outputs: `answer`, logits `(batch,
num_answers)`, and `attention (batch, places)`, where on the picture's last feature map it looked.
"""

import dataclasses

from zoo import _inputs
from zoo._config import hp

REASONING = ("stacked_attention", "co_attention", "film", "relation_network", "mcan", "concat")


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of visual question answering."""

    modalities: dict[str, str] = hp(
        {"image": "image", "question": "text"}, "name=kind: one image, and one text or vector"
    )
    reasoning: str = hp("film", "how picture and question meet", REASONING)
    width: int = hp(128, "size of the tokens and vectors that reason")
    num_layers: int = hp(2, "looks of stacked attention, blocks of film, layers of mcan")
    num_heads: int = hp(4, "attention heads of mcan")
    num_classes: int = hp(10, "number of answers; zoo.train takes it from the training split")

    def __post_init__(self):
        super().__post_init__()
        if sorted(self.modalities.values()) not in (["image", "text"], ["image", "vector"]):
            raise ValueError(f"Expected one image, and one text or vector. Received: modalities={self.modalities}.")

    @property
    def picture(self):
        """Name of the image."""
        return self.of_kind("image")[0]

    @property
    def question(self):
        """Name of what is asked."""
        return self.of_kind("text", "vector")[0]


_BASE = {
    "image_encoder": "resnet", "image_grid": 6, "modality_dropout": 0.05, "epochs": 15, "learning_rate": 2e-3,
}  # fmt: skip
PRESETS = {
    "base": _BASE,
    "small": {
        **_BASE, "image_encoder": "cnn", "text_dim": 64, "text_width": 64, "width": 96, "batch_size": 32,
        "learning_rate": 1e-3, "epochs": 16, "dropout": 0.0,
    },
    "tiny": {**_inputs.TINY, "width": 16, "num_heads": 2, "num_classes": 17},
    **{name: {**_BASE, "reasoning": name} for name in REASONING},
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return _inputs.label_targets("answer", output="answer")


def augment(config):
    return _inputs.augment(config)


def build(config):
    """Encoders, the reasoning between them, and a head over the answers."""
    import keras

    from mmkeras import layers, training

    inputs = _inputs.inputs(config)
    presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(inputs["presence"])
    tokens = {}
    for i, name in enumerate(config.names):
        x = _inputs.encode(config, name, inputs[name])
        tokens[name] = layers.FillAbsent(name=f"{name}_or_nothing")(x, presence[:, i])
    grid = _inputs.encoder(config, config.picture).get_layer("tokens").input.shape[1:3]
    places = layers.AddCoordinates(grid, name="coordinates")(tokens[config.picture])
    reason = {
        "stacked_attention": _stacked_attention, "co_attention": _co_attention, "film": _film,
        "relation_network": _relation_network, "mcan": _mcan, "concat": _concat,
    }[config.reasoning]  # fmt: skip
    fused, attention = reason(config, places, tokens[config.question], grid)
    x = keras.layers.Dense(config.width, activation="relu", name="hidden")(fused)
    x = keras.layers.Dropout(config.dropout, name="hidden_dropout")(x)
    answer = keras.layers.Dense(config.num_classes, name="answer")(x)
    attention = keras.layers.Identity(name="attention")(attention)
    return training.MultiInput(inputs, {"answer": answer, "attention": attention}, name="vqa")


def _widened(config, places, words):
    """Places and words, each through a dense layer, `(batch, length, width)`."""
    import keras

    places = keras.layers.Dense(config.width, activation="relu", name="places")(places)
    return places, keras.layers.Dense(config.width, activation="relu", name="words")(words)


def _question_vector(config, words):
    """Words `(batch, length, width)` to one vector `(batch, width)`."""
    import keras

    from mmkeras import layers

    return keras.layers.Dense(config.width, activation="tanh", name="question_vector")(
        layers.Pool("both", name="question_pool")(words)
    )


def _stacked_attention(config, places, words, grid):
    """The question looks at the picture, what it saw is added to it, and it looks again."""
    from mmkeras import layers

    places, words = _widened(config, places, words)
    query = _question_vector(config, words)
    for look in range(config.num_layers):
        seen, weights = layers.AttentionPool(config.width, name=f"look_{look}")(places, query)
        query = query + seen
    return query, weights


def _co_attention(config, places, words, grid):
    """Words, phrases and the whole question each look at the picture and it at them; the three are joined in turn."""
    import keras

    from mmkeras import encoders, layers

    places, words = _widened(config, places, words)
    grams = [
        encoders.MaskedConv1D(config.width, n, padding="same", activation="tanh", name=f"grams_{n}")(words)
        for n in (1, 2, 3)
    ]
    phrases = keras.layers.Maximum(name="phrases")(grams)
    whole = keras.layers.LSTM(config.width, return_sequences=True, name="whole")(phrases)
    joined, maps = None, []
    for level, tokens in (("words", words), ("phrases", phrases), ("whole", whole)):
        seen, asked, weights, _ = layers.ParallelCoAttention(config.width, name=f"{level}_look")(places, tokens)
        both = seen + asked if joined is None else keras.layers.Concatenate()([seen + asked, joined])
        joined = keras.layers.Dense(config.width, activation="tanh", name=f"{level}_joined")(both)
        maps.append(weights)
    return joined, keras.layers.Average(name="look")(maps)


def _film(config, places, words, grid):
    """Residual blocks over the feature map whose channels the question scales and shifts."""
    import keras
    from keras import ops

    from mmkeras import layers

    places, words = _widened(config, places, words)
    question = _question_vector(config, words)
    x = keras.layers.Reshape((*grid, config.width), name="map")(places)
    for block in range(config.num_layers):
        x = keras.layers.Conv2D(config.width, 1, activation="relu", name=f"block_{block}_first")(x)
        y = keras.layers.Conv2D(config.width, 3, padding="same", use_bias=False, name=f"block_{block}_second")(x)
        y = layers.BatchNormalization(momentum=0.9, scale=False, center=False, name=f"block_{block}_norm")(y)
        film = keras.layers.Dense(2 * config.width, name=f"block_{block}_film")(question)
        gamma, beta = ops.split(film[:, None, None], 2, axis=-1)
        x = x + ops.relu((1 + gamma) * y + beta)
    tokens = keras.layers.Reshape((-1, config.width), name="modulated")(x)
    highest = ops.max(tokens, axis=1)
    # A place's weight is the share of the channels that are highest there: of those, max pooling takes its answer.
    weights = ops.mean(ops.cast(tokens >= highest[:, None], tokens.dtype), axis=-1)
    return highest, weights / ops.sum(weights, axis=-1, keepdims=True)


def _relation_network(config, places, words, grid):
    """Every pair of places, asked the question; both as they are, since g has layers of its own."""
    from mmkeras import layers

    question = layers.Pool("both", name="question_pool")(words)
    return layers.Relations(config.width, name="relations")(places, question)


def _concat(config, places, words, grid):
    """No reasoning but that of dense layers, and all places alike."""
    import keras
    from keras import ops

    places, words = _widened(config, places, words)
    beside = [keras.layers.Flatten(name="all_places")(places), _question_vector(config, words)]
    fused = keras.layers.Dense(config.width, activation="relu", name="fused")(keras.layers.Concatenate()(beside))
    return fused, ops.full_like(places[:, :, 0], 1 / (grid[0] * grid[1]))


def _mcan(config, places, words, grid):
    """Self-attention among the words; among the places, guided by the words; each then pooled by attention."""
    import keras

    from mmkeras import layers

    places, words = _widened(config, places, words)
    for layer in range(config.num_layers):
        words = layers.TransformerBlock(config.num_heads, config.dropout, name=f"words_{layer}")(words)
    for layer in range(config.num_layers):
        places = layers.TransformerBlock(config.num_heads, config.dropout, name=f"places_{layer}")(places, words)
    asked, _ = layers.AttentionPool(config.width, name="asked")(words)
    seen, weights = layers.AttentionPool(config.width, name="seen")(places)
    fused = keras.layers.Dense(config.width, name="asked_dense")(asked)
    fused = fused + keras.layers.Dense(config.width, name="seen_dense")(seen)
    return keras.layers.LayerNormalization(name="fused")(fused), weights


def objective(config):
    """Cross-entropy of the answer."""
    import keras

    from mmkeras import losses

    metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    return {"loss": {"answer": losses.LabelCrossentropy()}, "metrics": {"answer": [metric]}}


def signatures(config, model, preprocessor):
    """`serving_default`: the answer, its probability and the attention; `answers`: the five best; `classify`: ten."""
    import tensorflow as tf

    from mmkeras.export import Signature, classify_signature, raw_specs

    vocabulary = preprocessor.reader("answer").vocabulary

    def ask(raw):
        outputs = model(preprocessor.inputs(raw), training=False)
        return tf.nn.softmax(outputs["answer"]), outputs["attention"]

    def best(raw, k):
        shares, attention = ask(raw)
        scores, order = tf.math.top_k(shares, k=k)
        return tf.gather(tf.constant(vocabulary), order), scores, attention

    def answer(raw):
        answers, scores, attention = best(raw, 1)
        return {"answer": answers[:, 0], "score": scores[:, 0], "attention": attention}

    def answers(raw):
        found, scores, _ = best(raw, min(5, config.num_classes))
        return {"answers": found, "scores": scores}

    specs = raw_specs(preprocessor)
    return {
        "serving_default": Signature(answer, specs),
        "answers": Signature(answers, specs),
        "classify": classify_signature(vocabulary, lambda raw: ask(raw)[0], specs),
    }


def evaluate(run, split):
    """Accuracy from picture and question and from each alone, and of each question type (column `question_type`).

    `most frequent answer to the question`: what the training split mostly answers to these very words, a control that
    sees no picture.
    """
    import numpy as np

    names = run.config.names
    masks = {" and ".join(names): np.ones(len(names))}
    masks.update({name: np.array([other == name for other in names]) for name in names})
    right = {title: [] for title in masks}
    for x, y in run.batches(split):
        for title, mask in masks.items():
            outputs = run.outputs({**x, "presence": x["presence"] * mask.astype("float32")})
            right[title].append(outputs["answer"].numpy().argmax(-1) == y["answer"].numpy())
    right = {title: np.concatenate(parts) for title, parts in right.items()}
    report = {title: {"accuracy": float(hits.mean()), "questions": len(hits)} for title, hits in right.items()}
    report["most frequent answer to the question"] = {"accuracy": _prior(run, split)}
    if "question_type" in split.kinds:
        types = np.array([str(cell) for cell in split.cells("question_type")])
        for kind in sorted(set(types)):
            hits = {title: float(hits[types == kind].mean()) for title, hits in right.items()}
            report[f"type {kind}"] = {"accuracy": hits.pop(" and ".join(names)), **hits}
    return report


def _prior(run, split):
    """Accuracy of the answer that the training split gives most often to the same question, or to any."""
    import collections

    import numpy as np

    train = run.source.split("train")
    counts = collections.defaultdict(collections.Counter)
    for question, answer in zip(train.cells(run.config.question), train.cells("answer"), strict=True):
        for key in (str(question), None):
            counts[key][str(answer)] += 1
    said = [counts.get(str(q), counts[None]).most_common(1)[0][0] for q in split.cells(run.config.question)]
    return float(np.mean([a == str(b) for a, b in zip(said, split.cells("answer"), strict=True)]))


def figures(run, split, num_rows=8):
    """`attention`: pictures, where the model looked on them, what was asked, answered and true."""
    import numpy as np

    from mmkeras import plots

    rows = split.take(np.linspace(0, len(split) - 1, min(num_rows, len(split))).astype(int))
    x, y = next(iter(run.batches(rows, batch_size=num_rows)))
    outputs = run.outputs(x)
    pictures = x[run.config.picture].numpy()
    grid = run.model.get_layer(f"{run.config.picture}_encoder").get_layer("tokens").input.shape[1:3]
    maps = outputs["attention"].numpy().reshape(-1, *grid)
    vocabulary = run.preprocessor.reader("answer").vocabulary
    said, true = outputs["answer"].numpy().argmax(-1), y["answer"].numpy()
    columns = {
        "picture": [[picture] for picture in pictures],
        "attention": [[plots.overlay(picture, weights)] for picture, weights in zip(pictures, maps, strict=True)],
        "question": [[cell] for cell in rows.cells(run.config.question)],
        "answer (true)": [[f"{vocabulary[a]} ({vocabulary[b]})"] for a, b in zip(said, true, strict=True)],
    }
    return {"attention": plots.table(columns)}
