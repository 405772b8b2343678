"""Made-up requests: to warm a server up, to check a SavedModel before it is published, and to verify any server."""

import base64
import contextlib
import io
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from mmkeras.export.signatures import examples_of

BATCH_SIZES = (1, 4, 16)  # of the warm-up requests; what a server gathers is filled up to one of them
GOLDEN_ROWS = 3
_TOLERANCE = 1e-4  # between one batch size and another; float32, and convolutions that are computed otherwise


def samples(
    modalities: Mapping[str, str], words: Mapping[str, Sequence[str]]
) -> Callable[[Mapping[str, tf.TensorSpec], int], dict[str, list[Any]]]:
    """A function that makes values up for a signature's inputs; nothing of the training data is in them.

    Args:
        modalities: `{name: kind}`; `support_<name>` is of the same kind.
        words: `{name of a text: list of words}`.

    Returns:
        Function from `{input: tf.TensorSpec}` and a number of rows to `{input: list}`, the same for the same number.
    """

    def make(specs, rows):
        random = np.random.default_rng(rows)
        return {name: [_value(random, name, spec, i) for i in range(rows)] for name, spec in specs.items()}

    def _value(random, name, spec, row):
        kind = modalities.get(name.removeprefix("support_"))
        if kind == "text":
            return " ".join(random.choice(words[name.removeprefix("support_")], 4))
        if kind in _FILES:
            return _FILES[kind](random)
        if spec.dtype == tf.string:
            return "ab"[row % 2]
        if spec.dtype.is_integer:
            return row
        return random.normal(size=spec.shape[1:]).astype("float32")

    return make


def _picture(random, size=48):
    blocks = random.integers(0, 255, (4, 4, 3), "uint8")
    return Image.fromarray(np.kron(blocks, np.ones((size // 4, size // 4, 1), "uint8")))


def _png(random):
    buffer = io.BytesIO()
    _picture(random).save(buffer, "PNG")
    return buffer.getvalue()


def _gif(random):
    buffer = io.BytesIO()
    first, *rest = (_picture(random).convert("P") for _ in range(3))
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=100)
    return buffer.getvalue()


def _wav(random):
    wave = 0.5 * np.sin(np.arange(4000) * random.uniform(0.1, 0.5))
    return tf.audio.encode_wav(tf.constant(wave[:, None], tf.float32), 8000).numpy()


_FILES = {"image": _png, "audio": _wav, "video": _gif}


def write_samples(folder, name, signatures, sample):
    """Keeps warm-up requests and golden answers in `assets.extra`; asks a SavedModel all, and compares with the model.

    Args:
        folder: of the SavedModel.
        name: of the model.
        signatures: `{name: Signature}`, those it was written from.
        sample: see `samples`.

    Raises:
        ValueError: if an answer differs, or bytes that are no text lie in an output that is not called `…_bytes`.
    """
    golden, extra = {}, pathlib.Path(folder, "assets.extra")
    extra.mkdir()
    file, asked = str(extra / "tf_serving_warmup_requests"), []
    with tf.io.TFRecordWriter(file) as warm_up:
        for key, signature in signatures.items():
            for rows in BATCH_SIZES:
                asked.append((key, sample(signature.inputs, rows)))
                warm_up.write(_request(name, key, signature, asked[-1][1]).SerializeToString())
    with loaded(folder) as run:
        # What was written is read again: a server is asked just this.
        for record, (key, raw) in zip(tf.data.TFRecordDataset(file).as_numpy_iterator(), asked, strict=True):
            _compared(key, signatures[key](raw), _answer(run, key, _given(record)))
        for key, signature in signatures.items():
            raw = sample(signature.inputs, GOLDEN_ROWS)
            given = {"inputs": examples_of(raw)} if signature.method == "classify" else raw
            answer = _answer(run, key, given)
            _compared(key, signature(raw), answer)
            golden[key] = {"method": signature.method, "inputs": plain(raw), "outputs": plain(answer)}
    (extra / "golden.json").write_text(json.dumps({"model": name, "signatures": golden}, indent=1))


def _compared(key, expected, answer):
    difference = largest_difference(expected, answer)
    if not difference <= _TOLERANCE:
        raise ValueError(f"The exported signature {key} answers otherwise than the model: {difference}.")


def _given(record):
    """`{input: values}` of a warm-up request."""
    log = prediction_log_pb2.PredictionLog.FromString(record)
    if log.WhichOneof("log_type") == "classify_log":
        examples = log.classify_log.request.input.example_list.examples
        return {"inputs": [example.SerializeToString() for example in examples]}
    return {alias: tf.make_ndarray(value) for alias, value in log.predict_log.request.inputs.items()}


@contextlib.contextmanager
def loaded(folder):
    """A function from a signature's name and `{input: list}` to `{output: array}` of a SavedModel.

    In a session, as a server runs it: nothing of this process gets in, as it does by `tf.saved_model.load`.
    """
    logger, level = tf.get_logger(), tf.get_logger().level
    graph, options = tf.Graph(), tf.compat.v1.ConfigProto()
    # Each signature is asked a few times alone: making its graph faster would take longer than that.
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    session = tf.compat.v1.Session(graph=graph, config=options)
    try:
        logger.setLevel("ERROR")  # that sessions are of TensorFlow 1
        with graph.as_default():
            signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def
        logger.setLevel(level)

        def run(key, given):
            outputs = {name: tensor.name for name, tensor in signatures[key].outputs.items()}
            return session.run(outputs, {signatures[key].inputs[name].name: value for name, value in given.items()})

        yield run
    finally:
        session.close()


def _answer(run, key, given):
    answer = run(key, given)
    for name, value in answer.items():
        if value.dtype == object and not name.endswith("_bytes"):
            try:
                [item.decode("utf-8") for item in value.ravel()]
            except UnicodeDecodeError:
                raise ValueError(f"The output `{name}` of {key} holds bytes: expected {name}_bytes.") from None
    return answer


def _request(name, key, signature, raw):
    log = prediction_log_pb2.PredictionLog()
    if signature.method == "classify":
        request = log.classify_log.request
        for example in examples_of(raw):
            request.input.example_list.examples.add().ParseFromString(example)
    else:
        request = log.predict_log.request
        for alias, spec in signature.inputs.items():
            request.inputs[alias].CopyFrom(tf.make_tensor_proto(tf.convert_to_tensor(raw[alias], spec.dtype)))
    request.model_spec.name, request.model_spec.signature_name = name, key
    return log


def largest_difference(expected, found):
    """The largest difference of two answers `{name: array}`: of numbers, of pixels in 0..1 where outputs are PNG.

    Infinite where they have other outputs, shapes or texts.
    """
    if set(expected) != set(found):
        return np.inf
    largest = 0.0
    for name, value in expected.items():
        value, other = np.asarray(value), np.asarray(found[name])
        if value.shape != other.shape:
            return np.inf
        pairs = zip(value.ravel().tolist(), other.ravel().tolist(), strict=True)
        largest = max([largest, *(_difference(*pair) for pair in pairs)])
    return float(largest)


def _difference(a, b):
    a, b = (value.encode() if isinstance(value, str) else value for value in (a, b))
    if a == b or (a != a and b != b):  # a NaN is like another
        return 0.0
    if not isinstance(a, bytes):
        return abs(a - b) if not isinstance(b, bytes) and np.isfinite(a) and np.isfinite(b) else np.inf
    if not isinstance(b, bytes) or not (a.startswith(b"\x89PNG") and b.startswith(b"\x89PNG")):
        return np.inf
    a, b = (np.asarray(Image.open(io.BytesIO(png)), "float64") / 255 for png in (a, b))
    # A level more or less is rounding: it does not count.
    return max(float(np.abs(a - b).max()) - 1.01 / 255, 0.0) if a.shape == b.shape else np.inf


def plain(values):
    """Lists or arrays by name, as JSON has them; bytes as `{"b64": ...}`."""

    def one(value):
        if isinstance(value, (list, np.ndarray)):
            return [one(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
        if isinstance(value, bytes):
            return _text_or_b64(value)
        return value.item() if isinstance(value, np.generic) else value

    return {name: one(value) for name, value in values.items()}


def _text_or_b64(value):
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def read_golden(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """What `write_samples` kept of a SavedModel, bytes as bytes: `{signature: {"method", "inputs", "outputs"}}`.

    Raises:
        ValueError: if the SavedModel has none.
    """
    file = pathlib.Path(folder, "assets.extra", "golden.json")
    if not file.exists():
        raise ValueError(f"There is no {file}: export the model again.")

    def back(found):
        if set(found) == {"b64"}:
            return base64.b64decode(found["b64"])
        return found

    return json.loads(file.read_text(), object_hook=back)["signatures"]
