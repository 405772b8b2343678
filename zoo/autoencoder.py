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

from zoo import _inputs, _reconstruction
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

    def __post_init__(self):
        super().__post_init__()
        self.refuse(self.names, ["embedding", *(f"{name}_embedding" for name in self.names)])


_BASE = {"learning_rate": 3e-3, "batch_size": 32, "modality_dropout": 0.3}
PRESETS = {
    "base": _BASE,
    "small": {
        **_BASE, "image_width": 16, "text_dim": 64, "text_width": 48, "embedding_dim": 64, "decoder_width": 12,
        "epochs": 20,
    },
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
    return _reconstruction.signatures(config, model, preprocessor)


def evaluate(run, split):
    """Reconstruction of every modality from every subset of them: `{"text from image": {"exact_match": …}}`."""
    return _reconstruction.report(run, split)


def figures(run, split):
    """`reconstructions`: inputs beside reconstructions from all, and from each modality alone."""
    return _reconstruction.figures(run, split)
