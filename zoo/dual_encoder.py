"""Dual encoder: a tower a modality into one space, trained by contrast, searched by cosine similarity.

CLIP (Radford 2021), SigLIP (Zhai 2023) and VSE++ (Faghri 2018) differ in the loss. Rows that share a text, or with
`label_positives` a label, belong together. Other losses have no negatives: Barlow twins (Zbontar 2021), VICReg (Bardes
2022), and deep CCA (Andrew 2013), whose embeddings are the canonical directions of the training rows, found after the
last epoch.

Inputs: the modalities, and `presence`. Outputs: `<name>_embedding (batch, embedding_dim)` of length one,
with the losses clip, siglip and supcon `similarity_scale (batch, 2)`, with `label_weight` `<name>_label`, logits.
"""

import dataclasses
import itertools

from zoo import _inputs, _retrieval
from zoo._config import hp

WITHOUT_NEGATIVES = ("barlow_twins", "vicreg", "cca")


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the dual encoder."""

    embedding_dim: int = hp(256, "size of the shared space")
    loss: str = hp(
        "clip",
        "what brings a row's embeddings together",
        ("clip", "siglip", "triplet", "l2", "supcon", *WITHOUT_NEGATIVES),
    )
    temperature: float = hp(0.07, "initial temperature of clip; siglip begins at a tenth and a bias of -10", low=0.001)
    margin: float = hp(0.2, "margin of the triplet loss, in cosines")
    negatives: str = hp("hardest", "negatives of the triplet loss", ("sum", "hardest", "semi_hard", "soft"))
    label_positives: bool = hp(False, "rows with the same label belong together")
    label_weight: float = hp(0.0, "weight of predicting the label from each embedding, by one head for all")
    num_classes: int = hp(0, "number of labels; zoo.train takes it from the training split", low=0)
    queue: int = hp(0, "embeddings of earlier batches that are negatives besides, with loss clip", low=0)
    chunk: int = hp(0, "rows of a batch that go through the towers at once in training, to save memory; 0: all", low=0)
    pool: str = hp(
        "both",
        "tokens to one vector; flatten: the places of a picture beside each other, of other modalities both",
        ("mean", "max", "both", "flatten", "attention"),
    )

    def __post_init__(self):
        super().__post_init__()
        if len(self.modalities) < 2:
            raise ValueError(f"Expected two modalities or more to bring together. Received: {self.modalities}.")
        self.unused("modality_dropout", "Where modalities are compared, no modality can be left out")
        if self.loss == "cca" and len(self.modalities) != 2:
            raise ValueError(f"loss='cca' is of two modalities. Received: {self.modalities}.")
        if self.loss == "cca" and self.batch_size <= self.embedding_dim:
            raise ValueError(
                "With loss='cca' more rows a step than dimensions are needed, or any two modalities correlate. "
                f"Received: batch_size={self.batch_size}, embedding_dim={self.embedding_dim}."
            )
        if self.queue and self.loss != "clip":
            raise ValueError(f"Expected loss='clip' with a queue. Received: queue={self.queue}, loss={self.loss!r}.")
        if self.queue and self.chunk:  # chunks would meet those before them as earlier batches
            raise ValueError(
                f"A queue is for small batches, chunks are for large ones. Received: queue={self.queue}, "
                f"chunk={self.chunk}."
            )
        if self.loss in WITHOUT_NEGATIVES and self.label_positives:
            raise ValueError(f"loss={self.loss!r} knows no rows that belong together. Received: label_positives=True.")

    @property
    def uses_label(self):
        """Whether training needs labels."""
        return self.label_positives or self.label_weight > 0


_BASE = {
    "image_encoder": "resnet", "text_dim": 256, "text_width": 384, "epochs": 30, "augment_shift": 0.1,
    "augment_zoom": 0.2, "augment_rotate": 10.0, "augment_color": 0.25, "augment_gray": 0.1, "augment_erase": 0.25,
    "augment_tokens": 0.1,
}  # fmt: skip
PRESETS = {
    "base": _BASE,
    "small": {
        **_BASE, "image_encoder": "cnn", "image_width": 24, "text_dim": 64, "text_width": 128, "embedding_dim": 64,
        "epochs": 15,
    },
    "tiny": {**_inputs.TINY, "embedding_dim": 16},
    "siglip": {**_BASE, "loss": "siglip"},
    "vse++": {**_BASE, "loss": "triplet", "negatives": "hardest"},
    "deep_cca": {**_BASE, "loss": "cca", "embedding_dim": 64, "batch_size": 256},
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return _inputs.label_targets() if config.uses_label else None


def augment(config):
    return _inputs.augment(config)


def build(config):
    """The dual encoder."""
    import keras

    from mmkeras import layers, training

    inputs = _inputs.inputs(config)
    head = keras.layers.Dense(config.num_classes, name="label_head") if config.label_weight else None
    outputs = {}
    for name in config.names:
        tokens = _inputs.encode(config, name, inputs[name])
        if config.pool == "attention":
            x, _ = layers.AttentionPool(config.embedding_dim, name=f"{name}_pool")(tokens)
        else:
            flat = config.pool == "flatten" and config.modalities[name] != "image"
            x = layers.Pool("both" if flat else config.pool, name=f"{name}_pool")(tokens)
        x = keras.layers.Dropout(config.dropout, name=f"{name}_dropout")(x)
        x = keras.layers.Dense(config.embedding_dim, name=f"{name}_projection")(x)
        if head:
            outputs[f"{name}_label"] = head(x)
        if config.loss == "cca":
            outputs[f"{name}_view"] = keras.layers.Identity(name=f"{name}_view")(x)
            x = layers.Projection(name=f"{name}_canonical")(x)
        outputs[f"{name}_embedding"] = layers.L2Normalize(name=f"{name}_embedding")(x)
    for a, b in itertools.permutations(config.names, 2) if config.queue else ():
        queued = layers.QueuedSimilarity(config.queue, name=f"{a}_{b}_queued")
        present = inputs["presence"][:, config.names.index(b)]
        outputs[f"{a}_{b}_queued"] = queued(outputs[f"{a}_embedding"], outputs[f"{b}_embedding"], present)
    if config.loss in ("clip", "siglip", "supcon"):  # the others compare cosines as they are
        scale, bias = (10.0, -10.0) if config.loss == "siglip" else (1 / config.temperature, None)
        outputs["similarity_scale"] = layers.SimilarityScale(scale, bias, name="similarity_scale")(inputs["presence"])
    options = {"objective": objective(config), "chunk": config.chunk}
    return training.Chunked(inputs, outputs, name="dual_encoder", **options)


def objective(config):
    """A term a pair of modalities, and where it is asked for the label from each embedding."""
    from mmkeras.training import Contrastive, Objective, Pairwise, Supervised

    options = {"margin": config.margin, "negatives": config.negatives} if config.loss == "triplet" else {}
    label = "label" if config.label_positives else None
    pairs = itertools.combinations(config.names, 2)
    if config.loss in WITHOUT_NEGATIVES:
        # A vector of length one has a variance of 1 / dim in each dimension; Barlow twins and VICReg are made for one.
        what, scale = ("view", 1.0) if config.loss == "cca" else ("embedding", config.embedding_dim**0.5)
        terms = [
            Pairwise(f"{a}_{b}_{config.loss}", (f"{a}_{what}", f"{b}_{what}"), (a, b), config.loss, scale=scale)
            for a, b in pairs
        ]
    else:
        texts = config.of_kind("text")
        more = {"options": options, "rows": config.chunk}
        terms = [Contrastive(f"{a}_{b}_contrast", (a, b), config.loss, texts, label, **more) for a, b in pairs]
    if config.label_weight:
        terms += [
            Supervised(f"{n}_label_loss", f"{n}_label", "label", config.label_weight, given=[n]) for n in config.names
        ]
    return Objective(terms, config.names)


def calibrate(run, split):
    """With `loss="cca"`, finds the canonical directions of the training rows that have both modalities."""
    if run.config.loss != "cca":
        return
    import numpy as np

    from mmkeras import layers

    views = {name: [] for name in run.config.names}
    for x, *_ in run.batches(run.split("train")):
        both, outputs = x["presence"].numpy().all(axis=1), run.outputs(x)
        for name in views:
            views[name].append(outputs[f"{name}_view"].numpy()[both])
    directions = layers.canonical_directions(*(np.concatenate(parts) for parts in views.values()))
    for name, (mean, matrix) in zip(views, directions, strict=True):
        run.model.get_layer(f"{name}_canonical").set(mean, matrix)


def signatures(config, model, preprocessor):
    """`encode_<input>`: the embedding of one modality; `score`: the cosine of a row's first two, the default."""
    import tensorflow as tf

    from mmkeras.export import Signature, encode_signature, raw_specs

    result = {f"encode_{name}": encode_signature(preprocessor, model, name) for name in config.names}
    first, second = config.names[:2]

    def score(raw):
        a, b = (result[f"encode_{name}"].function({name: raw[name]})["embedding"] for name in (first, second))
        return {"score": tf.reduce_sum(a * b, axis=-1)}

    result["score"] = Signature(score, raw_specs(preprocessor, [first, second]))
    return {"serving_default": result["score"], **result}


def evaluate(run, split):
    """Recall, median rank and mAP between each two modalities, see `zoo._retrieval.report`."""
    return _retrieval.report(run, split)


def figures(run, split):
    """`retrieval`: the nearest pictures of some texts."""
    return _retrieval.figures(run, split)
