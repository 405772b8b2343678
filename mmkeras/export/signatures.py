"""Serving functions: raw values in, answers with meaningful names out."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import tensorflow as tf

if TYPE_CHECKING:  # a server reads this file, and has no use for the data's
    from mmkeras.data import Preprocessor

Function = Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Signature:
    """A serving function.

    Args:
        function: from `{name: tensor}` to `{name: tensor}`, batches both.
        inputs: `{name: tf.TensorSpec}`.
        method: `"predict"`, or `"classify"` where it gives `classes` and `scores (batch, labels)`: a SavedModel takes
            `tf.train.Example`s then, as TensorFlow Serving's Classify call sends them.
        independent: whether a row's answer comes from that row alone, so that a server may put the rows of several
            requests beside each other.
    """

    function: Function
    inputs: dict[str, tf.TensorSpec]
    method: Literal["predict", "classify"] = "predict"
    independent: bool = True

    @functools.cached_property
    def compiled(self) -> tf.types.experimental.PolymorphicFunction:
        """The function as a graph with an argument an input, in the order of `inputs`, as a SavedModel wants it."""

        def call(*values):
            return self.function(dict(zip(self.inputs, values, strict=True)))

        call = functools.partial(call)  # TensorFlow would count the traces of all signatures as one's, and warn
        return tf.function(call, input_signature=list(self.inputs.values()), autograph=False)

    @property
    def served(self) -> "Signature":
        """The signature as a SavedModel has it: one for Classify reads serialised examples, `inputs (batch,)`."""
        if self.method == "predict":
            return self
        features = {}
        for name, spec in self.inputs.items():
            nothing = "" if spec.dtype == tf.string else np.full(spec.shape[1:], np.nan)  # absent, where it is left out
            features[name] = tf.io.FixedLenFeature(spec.shape[1:], spec.dtype, nothing)

        def of_examples(raw):
            return self.function(tf.io.parse_example(raw["inputs"], features))

        inputs = {"inputs": tf.TensorSpec((None,), tf.string, name="inputs")}
        return Signature(of_examples, inputs, self.method, self.independent)

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Raw values `{name: list or array}` to NumPy arrays, in this process."""
        tensors = [tf.convert_to_tensor(raw[name], spec.dtype) for name, spec in self.inputs.items()]
        return {name: value.numpy() for name, value in self.compiled(*tensors).items()}


def examples_of(raw: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """Raw values `{name: list}` as serialised `tf.train.Example`s, a row each."""
    rows = []
    for values in zip(*raw.values(), strict=True):
        example = tf.train.Example()
        for name, value in zip(raw, values, strict=True):
            if isinstance(value, (str, bytes)):
                value = value.encode() if isinstance(value, str) else value
                example.features.feature[name].bytes_list.value.append(value)
            else:
                example.features.feature[name].float_list.value.extend(np.ravel(value).tolist())
        rows.append(example.SerializeToString())
    return rows


def raw_specs(preprocessor: "Preprocessor", names: Sequence[str] | None = None) -> dict[str, tf.TensorSpec]:
    """What a preprocessor takes, `{name: tf.TensorSpec}`, with an open batch."""
    return {
        tensor.name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=tensor.name)
        for tensor in preprocessor.inputs.inputs
        if names is None or tensor.name in names
    }


def submodel(model: keras.Model, inputs: Sequence[str], outputs: Sequence[str]) -> keras.Model:
    """The part of a Functional model between some of its inputs and some of its outputs, both given by name."""
    return keras.Model({n: model.input[n] for n in inputs}, {n: model.output[n] for n in outputs})


def encode_signature(preprocessor: "Preprocessor", model: keras.Model, name: str) -> Signature:
    """The signature `encode_<name>`: one raw modality to `embedding (batch, dim)`, without running the others."""
    read = submodel(preprocessor.inputs, [name], [name])
    tower = submodel(model, [name], [f"{name}_embedding"])

    def encode(raw):
        return {"embedding": tower(read(raw), training=False)[f"{name}_embedding"]}

    return Signature(encode, raw_specs(preprocessor, [name]))


def alone_signature(preprocessor: "Preprocessor", name: str, function: Function) -> Signature:
    """A signature of one raw modality, all others being absent.

    Args:
        preprocessor: a fitted Preprocessor.
        name: of the modality.
        function: from a model's inputs to `{name: tensor}`.
    """

    def call(raw):
        batch, given = tf.shape(raw[name])[0], dict(raw)
        for other, spec in raw_specs(preprocessor).items():
            if other != name:
                nothing = "" if spec.dtype == tf.string else float("nan")
                given[other] = tf.fill([batch, *spec.shape[1:]], tf.constant(nothing, spec.dtype))
        return function(preprocessor.inputs(given))

    return Signature(call, raw_specs(preprocessor, [name]))


def label_signatures(
    preprocessor: "Preprocessor", column: str, probabilities: Callable[[dict[str, tf.Tensor]], tf.Tensor]
) -> dict[str, Signature]:
    """`serving_default`: best label and all probabilities; `classify`: labels and scores, the best first.

    Args:
        preprocessor: a fitted Preprocessor.
        column: the labels' column.
        probabilities: function from raw values to `(batch, classes)`.
    """
    vocabulary = preprocessor.reader(column).vocabulary

    def predict(raw):
        shares = probabilities(raw)
        return {"label": tf.gather(tf.constant(vocabulary), tf.argmax(shares, axis=-1)), "probabilities": shares}

    specs = raw_specs(preprocessor)
    return {
        "serving_default": Signature(predict, specs),
        "classify": classify_signature(vocabulary, probabilities, specs, len(vocabulary)),
    }


def classify_signature(
    vocabulary: Sequence[str],
    probabilities: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    inputs: dict[str, tf.TensorSpec],
    most: int = 10,
) -> Signature:
    """The signature `classify`: the likeliest labels `classes` and their `scores`, `(batch, most)`, the best first.

    Args:
        vocabulary: the labels.
        probabilities: function from raw values to `(batch, labels)`.
        inputs: what it takes, see Signature.
        most: labels a row.
    """

    def classify(raw):
        scores, order = tf.math.top_k(probabilities(raw), k=min(most, len(vocabulary)))
        return {"classes": tf.gather(tf.constant(vocabulary), order), "scores": scores}

    return Signature(classify, inputs, "classify")


def encode_png(pixels: tf.Tensor) -> tf.Tensor:
    """Pixels `(batch, height, width, channels)` in 0..1 to PNG bytes `(batch,)`."""
    levels = tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 1.0) * 255), tf.uint8)
    return tf.map_fn(tf.io.encode_png, levels, fn_output_signature=tf.TensorSpec((), tf.string))


def readable(
    modalities: Mapping[str, str], outputs: Mapping[str, tf.Tensor], readers: Mapping[str, keras.layers.Layer]
) -> dict[str, tf.Tensor]:
    """Decoded modalities for a client: pictures, sounds and clips as `<name>_bytes` (PNG, WAV, a PNG a frame), texts as
    strings, numbers on their own scale.

    Args:
        modalities: `{name: kind}`.
        outputs: `{name: pixels, logits of tokens, spectrogram, or numbers}`.
        readers: `{name: layer that read it}`: a TokenizeText, DecodeAudio, StandardizeVector …
    """
    answer = {}
    for name, kind in modalities.items():
        if kind == "image":
            answer[f"{name}_bytes"] = encode_png(outputs[name])
        elif kind == "audio":
            answer[f"{name}_bytes"] = readers[name].restore(outputs[name])
        elif kind == "video":
            frames, *picture = outputs[name].shape[1:]
            pictures = encode_png(tf.reshape(outputs[name], (-1, *picture)))
            answer[f"{name}_bytes"] = tf.reshape(pictures, (-1, frames))
        elif kind == "text":
            answer[name] = readers[name].texts(tf.argmax(outputs[name], axis=-1))
        else:
            answer[name] = readers[name].restore(outputs[name])
    return answer
