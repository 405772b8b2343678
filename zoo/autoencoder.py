"""Autoencoder with one embedding shared by all modalities.

Each modality has an encoder; the embeddings of those that are present are averaged; from the average every modality
is reconstructed, also the absent ones. Ngiam et al., "Multimodal deep learning" (2011). The preset `corrnet` is the
correlational network of Chandar et al. (2016): linear views, their sum through a sigmoid, reconstruction of both
views from both and from each alone, and the correlation of the views' embeddings.

Inputs: the modalities, and `presence`. Outputs: each modality's reconstruction under its own name (pixels in 0..1,
logits of the tokens, numbers), `embedding`, and `<name>_embedding`; with `reconstruct_each` also
`<name>_from_<other>`.
"""

import dataclasses
import itertools

from zoo import _inputs
from zoo._config import hp

_LOSSES = {"text": "tokens", "vector": "vector_mse", "audio": "vector_mse", "video": "pixel_mse"}
_IMAGE_LOSSES = {"mse": "pixel_mse", "bce": "pixel_bce"}


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the autoencoder."""

    embedding_dim: int = hp(128, "size of the shared embedding")
    combine: str = hp("mean", "how the embeddings of the modalities are joined", ("mean", "sum"))
    activation: str = hp("linear", "activation of the embedding", ("linear", "sigmoid", "tanh"))
    decoder_width: int = hp(32, "channels of the image decoder at half resolution; other decoders four times as many")
    image_loss: str = hp("mse", "reconstruction loss of pictures", ("mse", "bce"))
    image_loss_weight: float = hp(60.0, "weight of the pictures' reconstruction")
    text_loss_weight: float = hp(3.0, "weight of the texts' reconstruction")
    vector_loss_weight: float = hp(1.0, "weight of the vectors' reconstruction")
    audio_loss_weight: float = hp(20.0, "weight of the spectrograms' reconstruction")
    video_loss_weight: float = hp(20.0, "weight of the clips' reconstruction")
    reconstruct_each: bool = hp(False, "reconstruct from each modality alone besides, in every step")
    contrastive_weight: float = hp(0.0, "weight of the contrastive term between the modalities' embeddings")
    correlation_weight: float = hp(0.0, "weight of the correlation between the modalities' embeddings")


_BASE = {"learning_rate": 3e-3, "batch_size": 32, "modality_dropout": 0.3}
PRESETS = {
    "base": _BASE,
    "tiny": {**_inputs.TINY, "embedding_dim": 16, "decoder_width": 8},
    "corrnet": {
        "modalities": {"left": "image", "right": "image"}, "image_size": (28, 14), "image_channels": 1,
        "image_encoder": "flat", "embedding_dim": 50, "combine": "sum", "activation": "sigmoid", "image_loss": "bce",
        "image_loss_weight": 392.0,  # the paper's loss is the sum over 392 pixels
        "reconstruct_each": True, "correlation_weight": 2.0, "dropout": 0.0,
        "optimizer": "adam", "clip_norm": 0.0, "batch_size": 100, "epochs": 50,
    },
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return None


def augment(config):
    return _inputs.augment(config)


def build(config):
    """The autoencoder."""
    import keras

    from mmkeras import layers, training

    inputs = _inputs.inputs(config)
    presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(inputs["presence"])
    features = []
    for name in config.names:
        tokens = _inputs.encode(config, name, inputs[name])
        pooled = layers.Pool("flatten", name=f"{name}_pool")(tokens)  # where a thing stands must not be averaged away
        features.append(keras.layers.Dense(config.embedding_dim, name=f"{name}_projection")(pooled))
    joined = layers.PresentMean(config.combine == "mean", name="joined")(features, presence)
    activate = keras.layers.Activation(config.activation, name="activation")
    views = {"embedding": activate(joined)}
    views.update({f"{name}_embedding": activate(x) for name, x in zip(config.names, features, strict=True)})
    outputs = dict(views)
    for name in config.names:
        decoder = _inputs.decode(config, name, views["embedding"], config.decoder_width)
        outputs[name] = decoder(views["embedding"])
        if config.reconstruct_each:
            outputs.update({f"{name}_from_{other}": decoder(views[f"{other}_embedding"]) for other in config.names})
    return training.ObjectiveModel(inputs, outputs, name="autoencoder", objective=objective(config))


def objective(config):
    """Reconstruction of every modality, and where they are asked for a contrastive and a correlation term."""
    from mmkeras.training import Contrastive, Correlation, Objective, Reconstruction

    terms = []
    for name in config.names:
        kind = config.modalities[name]
        loss = _IMAGE_LOSSES[config.image_loss] if kind == "image" else _LOSSES[kind]
        weight = getattr(config, f"{kind}_loss_weight")
        terms.append(Reconstruction(f"{name}_loss", name, name, loss, weight=weight))
        for other in config.names if config.reconstruct_each else ():
            output = f"{name}_from_{other}"
            terms.append(Reconstruction(f"{output}_loss", name, output, loss, given=[other], weight=weight))
    for a, b in itertools.combinations(config.names, 2):
        if config.contrastive_weight:
            texts = config.of_kind("text")
            terms.append(Contrastive(f"{a}_{b}_contrastive", (a, b), texts=texts, weight=config.contrastive_weight))
        if config.correlation_weight:
            terms.append(Correlation(f"{a}_{b}_correlation", (a, b), weight=config.correlation_weight))
    return Objective(terms, config.names)


def signatures(config, model, preprocessor):
    """`serving_default` reconstructs, `encode` and `encode_<input>` embed, `decode` goes back from an embedding."""
    import tensorflow as tf

    from mmkeras.export import Signature, encode_signature, raw_specs, readable

    readers = {name: preprocessor.reader(name) for name in config.names}

    def reconstruct(raw):
        outputs = model(preprocessor.inputs(raw), training=False)
        return {**readable(config.modalities, outputs, readers), "embedding": outputs["embedding"]}

    def encode(raw):
        return {"embedding": model(preprocessor.inputs(raw), training=False)["embedding"]}

    def decode(raw):
        outputs = {name: model.get_layer(f"{name}_decoder")(raw["embedding"]) for name in config.names}
        return readable(config.modalities, outputs, readers)

    specs = raw_specs(preprocessor)
    embedding = tf.TensorSpec((None, config.embedding_dim), tf.float32, name="embedding")
    return {
        "serving_default": Signature(reconstruct, specs),
        "encode": Signature(encode, specs),
        **{f"encode_{name}": encode_signature(preprocessor, model, name) for name in config.names},
        "decode": Signature(decode, {"embedding": embedding}),
    }


def evaluate(run, split):
    """Reconstruction of every modality from every subset of them: `{"text from image": {"exact_match": …}}`.

    Pictures: mean squared error, beside that of the mean picture of the split. Texts: share of the tokens that are
    right, of the texts that are exactly right, BLEU-4. Vectors: mean squared error.
    """
    import numpy as np

    config, names = run.config, run.config.names
    results, seen = {}, {}
    subsets = [s for n in range(1, len(names) + 1) for s in itertools.combinations(names, n)]
    for (
        x,
        *_,
    ) in run.batches(split):
        seen.setdefault("presence", []).append(x["presence"].numpy())
        for name in names:
            seen.setdefault(name, []).append(x[name].numpy())
        for subset in subsets:
            mask = np.array([name in subset for name in names], "float32")
            outputs = run.outputs({**x, "presence": x["presence"] * mask})
            for name in names:
                value = outputs[name].numpy()
                value = value.argmax(-1) if config.modalities[name] == "text" else value
                results.setdefault((name, subset), []).append(value)
    seen = {name: np.concatenate(parts) for name, parts in seen.items()}
    report = {}
    for (name, subset), parts in results.items():
        given = [names.index(other) for other in {name, *subset}]
        rows = (seen["presence"][:, given] > 0).all(axis=1)
        if rows.any():
            value, true = np.concatenate(parts)[rows], seen[name][rows]
            report[f"{name} from {' and '.join(subset)}"] = run.compare(name, true, value)
    return report


def figures(run, split, num_rows=8):
    """`reconstructions`: inputs beside reconstructions from all, and from each modality alone."""
    import numpy as np

    from mmkeras import plots

    names = run.config.names
    x = next(iter(run.batches(split, batch_size=num_rows)))[0]
    masks = {"all": np.ones(len(names))}
    if len(names) > 1:
        masks.update({name: np.array([other == name for other in names]) for name in names})
    columns = {"input": run.show(x)}
    for given, mask in masks.items():
        outputs = run.outputs({**x, "presence": x["presence"] * mask.astype("float32")})
        columns[f"from {given}"] = run.show(outputs, decoded=True)
    return {"reconstructions": plots.table(columns)}
