"""Cross-modal mapping: an encoder-decoder from some modalities to another.

The modality `target` is predicted from all others: text to image, image to text, image to image, vector to image.

Inputs: the modalities without the target, and `presence`. Outputs: the target under its own name (pixels in 0..1,
logits of the tokens, standardised numbers) and `embedding`.
"""

import dataclasses

from zoo import _inputs
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the cross-modal mapping."""

    target: str = hp("image", "the modality that is predicted from the others")
    embedding_dim: int = hp(128, "size of the embedding between encoder and decoder")
    decoder_width: int = hp(32, "channels of the image decoder at half resolution; other decoders four times as many")
    image_loss: str = hp("mse", "loss of predicted pictures", ("mse", "bce"))

    def __post_init__(self):
        super().__post_init__()
        if self.target not in self.modalities or len(self.modalities) < 2:
            raise ValueError(
                f"Expected target to be one of the modalities {self.names} and another to predict it from. "
                f"Received: target={self.target!r}."
            )
        self.refuse([self.target], ["embedding"])

    @property
    def sources(self):
        """Names of the modalities that are given."""
        return [name for name in self.names if name != self.target]


PRESETS = {
    "base": {},
    "tiny": {**_inputs.TINY, "embedding_dim": 16, "decoder_width": 8},
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config, config.sources)


def targets(config):
    import keras

    raw = _inputs.raw_input(config, config.target)
    return keras.Model({config.target: raw}, {config.target: _inputs.read(config, config.target, raw)}, name="targets")


def augment(config):
    return _inputs.augment(config, config.sources)


def build(config):
    """The encoder-decoder."""
    import keras

    from mmkeras import fusion, layers, training

    inputs = _inputs.inputs(config, config.sources)
    presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(inputs["presence"])
    tokens = {name: _inputs.encode(config, name, inputs[name]) for name in config.sources}
    fused = fusion.Concat(config.embedding_dim, name="fusion")(tokens, presence)
    embedding = keras.layers.Activation("relu", name="embedding")(fused)
    output = _inputs.decode(config, config.target, embedding, config.decoder_width)(embedding)
    return training.MultiInput(inputs, {config.target: output, "embedding": embedding}, name="cross_modal")


def objective(config):
    """Pixel MSE or cross-entropy, token cross-entropy with padding left out, or MSE of the rest."""
    import keras

    from mmkeras import losses

    kind = config.modalities[config.target]
    if kind == "text":
        loss = losses.token_cross_entropy  # a number a row: of several replicas each computes those of its rows
    else:
        use_bce = kind == "image" and config.image_loss == "bce"
        loss = keras.losses.BinaryCrossentropy() if use_bce else keras.losses.MeanSquaredError()
    return {"loss": {config.target: loss}}


def signatures(config, model, preprocessor):
    """`serving_default`: the target, readable, and `embedding`."""
    from mmkeras.export import Signature, raw_specs, readable

    kind = {config.target: config.modalities[config.target]}
    reader = preprocessor.reader(config.target)

    def predict(raw):
        outputs = model(preprocessor.inputs(raw), training=False)
        return {**readable(kind, outputs, {config.target: reader}), "embedding": outputs["embedding"]}

    return {"serving_default": Signature(predict, raw_specs(preprocessor))}


def evaluate(run, split):
    """How near the predicted modality comes: `{"image from text": {"mse": …, "mse_of_mean": …}}`."""
    import numpy as np

    target, true, predicted = run.config.target, [], []
    is_text = run.config.modalities[target] == "text"
    for x, y in run.batches(split):
        output = run.outputs(x)[target].numpy()
        predicted.append(output.argmax(-1) if is_text else output)
        true.append(y[target].numpy())
    report = run.compare(target, np.concatenate(true), np.concatenate(predicted))
    return {f"{target} from {' and '.join(run.config.sources)}": report}


def figures(run, split, num_rows=8):
    """`predictions`: what was given, what was predicted, what is true."""
    from mmkeras import plots

    x, y = next(iter(run.batches(split, batch_size=num_rows)))
    outputs = run.outputs(x)
    target = run.config.target
    columns = {
        "given": run.show(x, run.config.sources),
        "predicted": run.show(outputs, [target], decoded=True),
        "true": run.show(y, [target]),
    }
    return {"predictions": plots.table(columns)}
