"""Masked autoencoder: patches and words are hidden, and predicted from the rest of both (M3AE, Geng 2022).

An encoder sees the patches and words that are not hidden, in one sequence (MAE, He 2022); a smaller one predicts the
hidden ones, pixels and words, a learned vector standing in for each. What the encoder has learned without any label
says something about the row: `zoo evaluate` asks a linear classifier for the column `label`, if the data have it.

Inputs: the modalities; `presence`; `<name>_hidden (batch, places)`, ones for what is hidden, zeros if left out.
Outputs: `embedding (batch, width)`, the mean of the encoded tokens; each picture and sound as pixels, a text as logits
of its tokens, a vector as numbers, under its own name; `<name>_patches`; `<name>_hidden`.
"""

import dataclasses

from zoo import _inputs
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the masked autoencoder."""

    hide_image: float = hp(
        0.8, "of a picture's patches that share is hidden at most, another one in each row", high=1.0
    )
    hide_text: float = hp(0.8, "of a text's tokens", high=1.0)
    hide_audio: float = hp(0.8, "of a sound's patches", high=1.0)
    hide_vector: float = hp(0.8, "of the vectors", high=1.0)
    width: int = hp(128, "size of the tokens")
    num_layers: int = hp(4, "blocks of the encoder")
    num_decoder_layers: int = hp(1, "blocks of what predicts the hidden")
    num_heads: int = hp(4, "attention heads; they share the width")
    image_loss_weight: float = hp(100.0, "weight of the hidden pixels, those of sounds included")
    text_loss_weight: float = hp(1.0, "weight of the hidden words")
    vector_loss_weight: float = hp(1.0, "weight of the hidden vectors")

    def __post_init__(self):
        super().__post_init__()
        for name, kind in self.modalities.items():
            if kind == "video":
                raise ValueError(f"A masked autoencoder takes image, text, audio and vector. Received: {name}=video.")
        if (self.image_encoder, self.text_encoder) != ("patches", "words"):
            raise ValueError(
                "Other encoders would see what is hidden beside what is shown: expected image_encoder='patches' and "
                f"text_encoder='words'. Received: {self.image_encoder!r} and {self.text_encoder!r}."
            )
        self.refuse(self.names, ["embedding"])

    def side(self, name):
        """Pixels on the side of a picture's or sound's patch; None for other modalities."""
        from mmkeras.layers import patch_side

        return patch_side(self.shape(name), self.image_grid) if name in self.of_kind("image", "audio") else None

    def picture(self, name):
        """`(height, width, channels)` of a picture; a spectrogram is one in gray."""
        return self.shape(name) if self.modalities[name] == "image" else (*self.shape(name), 1)


_BASE = {
    "image_encoder": "patches", "image_grid": 6, "text_encoder": "words", "dropout": 0.0, "modality_dropout": 0.1,
    "hide_image": 0.6, "hide_text": 0.6, "image_loss_weight": 10.0, "batch_size": 32, "epochs": 20,
}  # fmt: skip
PRESETS = {
    "base": _BASE,
    "tiny": {
        **_inputs.TINY, "image_encoder": "patches", "text_encoder": "words", "width": 32, "num_layers": 1,
        "num_heads": 2,
    },
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return None


def augment(config):
    return _inputs.augment(config)


def build(config):
    """Tokens, the encoder of those that are shown, and what predicts the others."""
    import keras

    from mmkeras import fusion, layers, training

    inputs, encoded = _inputs.inputs(config), {}
    for i, name in enumerate(config.names):
        tokens = _tokens(config, name, inputs[name])
        inputs[f"{name}_hidden"] = hidden = keras.Input(tokens.shape[1:2], name=f"{name}_hidden")
        absent = 1 - inputs["presence"][:, i : i + 1]
        not_shown = keras.ops.maximum(hidden, absent)
        encoded[name] = layers.HideTokens(name=f"{name}_shown")([tokens, not_shown])
    sizes = {"width": config.width, "num_heads": config.num_heads, "dropout": config.dropout}
    encoded = fusion.SingleStream(num_layers=config.num_layers, name="encoder", **sizes)(encoded, inputs["presence"])
    joined = keras.layers.Concatenate(axis=1, name="tokens")([encoded[name] for name in config.names])
    outputs = {"embedding": layers.Pool("mean", name="embedding")(joined)}
    decoded = {name: layers.StandIn(name=f"{name}_stand_in")(encoded[name]) for name in config.names}
    decoded = fusion.SingleStream(num_layers=config.num_decoder_layers, name="decoder", **sizes)(decoded)
    for name in config.names:
        outputs.update(_predict(config, name, decoded[name]))
        outputs[f"{name}_hidden"] = keras.ops.copy(inputs[f"{name}_hidden"])
    shares = {name: getattr(config, f"hide_{config.modalities[name]}") for name in config.names}
    options = {"objective": objective(config), "shares": shares, "whole": config.modality_dropout}
    return training.Masked(inputs, outputs, name="masked_autoencoder", **options)


def _tokens(config, name, tensor):
    """A modality as tokens that know their own place alone; a spectrogram as the patches of a picture."""
    if config.modalities[name] != "audio":
        return _inputs.encode(config, name, tensor)
    from mmkeras import encoders

    picture = tensor[..., None]
    encode = encoders.image_encoder(
        picture.shape[1:], "patches", config.image_width, grid=config.image_grid, name=f"{name}_encoder"
    )
    encode.trainable = name not in config.freeze
    return encode(picture)


def _predict(config, name, tokens):
    """`{output: ..}` of a modality from the decoder's tokens."""
    import keras

    from mmkeras.layers import from_patches

    kind, side = config.modalities[name], config.side(name)
    if side is None:
        size = config.vocabulary_size if kind == "text" else config.shape(name)[0]
        x = keras.layers.Dense(size, name=f"{name}_head")(tokens)
        return {name: x} if kind == "text" else {name: x[:, 0], f"{name}_patches": x}
    shape = config.picture(name)
    patches = keras.layers.Dense(side * side * shape[-1], name=f"{name}_head")(tokens)
    pixels = keras.ops.clip(from_patches(patches, shape, side), 0.0, 1.0)
    return {name: pixels if kind == "image" else pixels[..., 0], f"{name}_patches": patches}


def objective(config):
    """Squared error of the hidden patches, cross-entropy of the hidden words."""
    from mmkeras.training import Hidden, Objective

    terms = []
    for name in config.names:
        kind = config.modalities[name]
        weight = getattr(config, f"{'image' if kind == 'audio' else kind}_loss_weight")
        output = name if kind == "text" else f"{name}_patches"
        terms.append(Hidden(f"{name}_loss", name, output, kind, config.side(name), weight=weight))
    return Objective(terms, config.names)


def signatures(config, model, preprocessor):
    """`serving_default` embeds a row, `encode_<input>` one modality of it; `fill` gives every modality back.

    `fill` predicts what is absent from the rest, and in a text every word that the vocabulary lacks: "a ? circle".
    """
    import tensorflow as tf

    from mmkeras.export import Signature, alone_signature, raw_specs, readable
    from mmkeras.layers.tokenize_text import SPECIAL, UNKNOWN

    readers = {name: preprocessor.reader(name) for name in config.names}

    def embed(inputs):
        return {"embedding": model(inputs, training=False)["embedding"]}

    def fill(raw):
        inputs = preprocessor.inputs(raw)
        for name in config.of_kind("text"):
            inputs[f"{name}_hidden"] = tf.cast(inputs[name] == SPECIAL.index(UNKNOWN), tf.float32)
        outputs, filled = model(inputs, training=False), {}
        for i, name in enumerate(config.names):
            given, drawn = inputs[name], outputs[name]
            absent = tf.reshape(inputs["presence"][:, i] < 0.5, (-1, *[1] * (len(drawn.shape) - 1)))
            if config.modalities[name] == "text":
                hidden = absent | (inputs[f"{name}_hidden"] > 0)[..., None]
                given = tf.one_hot(given, config.vocabulary_size)
                filled[name] = tf.where(hidden, _sayable(drawn), given)
            else:
                filled[name] = tf.where(absent, drawn, given)
        return readable(config.modalities, filled, readers)

    specs = raw_specs(preprocessor)
    return {
        "serving_default": Signature(lambda raw: embed(preprocessor.inputs(raw)), specs),
        **{f"encode_{name}": alone_signature(preprocessor, name, embed) for name in config.names},
        "fill": Signature(fill, specs),
    }


def _sayable(logits):
    """Logits of tokens without padding and the unknown word, which no text would be filled with."""
    import tensorflow as tf

    return tf.concat([tf.fill(tf.shape(logits[..., :2]), -1e9), logits[..., 2:]], axis=-1)


def evaluate(run, split):
    """What was hidden, predicted from the rest: of all modalities, of its own alone, of the others alone.

    Pictures: mean squared error of the hidden patches, beside that of the split's mean patch; texts: share of the
    hidden words that are right. `linear probe`: accuracy of a linear classifier of the column `label` on the
    embeddings of all modalities, and of each alone, learned on the training split, beside an untrained encoder's and
    the most frequent label's. Where a text says the label, that of pictures tells more.
    """
    import numpy as np

    config, names, seen, drawn = run.config, run.config.names, {}, {}
    givens = list(dict.fromkeys([tuple(names), *((n,) for n in names), *(tuple(set(names) - {n}) for n in names)]))
    for x, hidden in _hidden_batches(run, split):
        for i, name in enumerate(names):
            rows = hidden[f"{name}_hidden"] * np.array(x["presence"])[:, i : i + 1]
            seen.setdefault(name, []).append((_true(config, name, x), rows))
        for given in filter(None, givens):
            mask = np.array([name in given for name in names], "float32")
            outputs = run.outputs({**x, **hidden, "presence": x["presence"] * mask})
            for name in names:
                value = outputs[name if config.modalities[name] == "text" else f"{name}_patches"].numpy()
                value = value.argmax(-1) if config.modalities[name] == "text" else value
                drawn.setdefault((name, given), []).append(value)
    report = {}
    for (name, given), parts in drawn.items():
        true, rows = (np.concatenate(values) for values in zip(*seen[name], strict=True))
        title = f"hidden {name} from {' and '.join(sorted(given))}"
        numbers = _of_hidden(config.modalities[name], true, np.concatenate(parts), rows > 0)
        report.update({title: numbers} if numbers else {})
    if "label" in split.kinds and "label" in run.source.train.kinds:
        untrained = build(config)
        for given in dict.fromkeys([tuple(names), *((name,) for name in names)]):
            report[f"linear probe of {' and '.join(given)}"] = _probe(run, split, given, untrained)
    return report


def _hidden_batches(run, split):
    """Batches of a split, and what is hidden of them, the same at every call: `{"<name>_hidden": (batch, places)}`."""
    import numpy as np

    random = np.random.default_rng(0)
    for x, *_ in run.batches(split):
        hidden = {}
        for name, share in run.model.shares.items():
            shape = (len(x["presence"]), run.model.input[f"{name}_hidden"].shape[1])
            shares = share * random.random((shape[0], 1))
            hidden[f"{name}_hidden"] = (random.random(shape) < shares).astype("float32")
        yield x, hidden


def _true(config, name, x):
    """What stands at a modality's places: patches, token ids, or the numbers."""
    import numpy as np

    from mmkeras.layers import to_patches

    if config.modalities[name] == "text":
        return np.array(x[name])
    if config.side(name) is None:
        return np.array(x[name])[:, None]
    return np.array(to_patches(np.reshape(x[name], (-1, *config.picture(name))), config.side(name)))


def _of_hidden(kind, true, found, hidden):
    """A metric over the places that are hidden; none where there are none."""
    import numpy as np

    hidden = hidden & (true != 0) if kind == "text" else hidden
    if not hidden.any():
        return {}
    if kind == "text":
        most = np.bincount(true[hidden]).max() / hidden.sum()
        return {"accuracy": float((true == found)[hidden].mean()), "most_frequent": float(most)}
    of_mean = (true - true.mean(axis=0)) ** 2
    return {"mse": float(((true - found) ** 2)[hidden].mean()), "mse_of_mean": float(of_mean[hidden].mean())}


def _probe(run, split, given, untrained):
    """`{"accuracy", "untrained", "majority"}` of a linear classifier of the labels from some of the modalities."""
    import numpy as np

    from mmkeras import metrics

    train = run.split("train")
    names = {label: i for i, label in enumerate(sorted({*train.cells("label"), *split.cells("label")}))}
    labels, test_labels = (np.array([names[label] for label in s.cells("label")]) for s in (train, split))

    mask = np.array([name in given for name in run.config.names], "float32")

    def embed(model, rows):
        batches = ({**x, "presence": x["presence"] * mask} for x, *_ in run.batches(rows))
        return np.concatenate([model.predict_on_batch(x)["embedding"] for x in batches])

    found = {}
    for title, model in (("accuracy", run.model), ("untrained", untrained)):
        found[title] = metrics.linear_probe(embed(model, train), labels, embed(model, split), test_labels)
    return {**found, "majority": float(np.bincount(test_labels).max() / len(test_labels))}


def figures(run, split, num_rows=8):
    """`hidden`: rows, what was shown of them, and what was predicted for the rest."""
    import numpy as np

    from mmkeras import plots
    from mmkeras.layers import from_patches

    x, hidden = next(iter(_hidden_batches(run, split.take(list(range(min(num_rows, len(split))))))))
    outputs, shown, filled = run.outputs({**x, **hidden}), {}, {}
    for name in run.config.names:
        rows, true = hidden[f"{name}_hidden"][..., None] > 0, _true(run.config, name, x)
        if run.config.modalities[name] == "text":
            real = true != 0
            shown[name] = np.where(rows[..., 0] & real, 1, true)
            filled[name] = np.where(rows[..., 0] & real, outputs[name].numpy()[..., 1:].argmax(-1) + 1, true)
            continue
        patches = outputs[f"{name}_patches"].numpy()
        values = {"shown": np.where(rows, 0.5, true), "filled": np.where(rows, patches, true)}
        side, shape = run.config.side(name), np.shape(x[name])
        for title, into in (("shown", shown), ("filled", filled)):
            value = values[title]
            value = np.array(from_patches(value, run.config.picture(name), side)) if side else value[:, 0]
            into[name] = np.reshape(value, shape)
    return {"hidden": plots.table({"row": run.show(x), "shown": run.show(shown), "predicted": run.show(filled)})}
