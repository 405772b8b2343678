"""Classify and regress: examples in, labels with scores or numbers out (TensorFlow Serving's own two forms)."""

import numpy as np
from tensorflow.core.example import example_pb2

from mmkeras.serving.errors import ServingError, echoed, invalid
from mmkeras.serving.json_text import type_name
from mmkeras.serving.servable import CLASSIFY, REGRESS
from mmkeras.serving.tensors import decoded, is_base64

_LISTS = {"int64": "int64_list", "float": "float_list", "string": "bytes_list"}


def read_examples(request):
    """The examples of a request in JSON, serialised `tf.train.Example`s, the common `context` before each.

    Raises:
        ServingError: in the original's words.
    """
    if "examples" not in request:
        raise invalid("When method is classify, key 'examples' is expected and was not found")
    if not isinstance(request["examples"], list):
        raise invalid("Expecting 'examples' value to be an list/array")
    if not request["examples"]:
        raise invalid("'examples' value is an empty array")
    context = _example(request["context"]) if "context" in request else b""
    return [context + _example(one) for one in request["examples"]]


def _example(features):
    if not isinstance(features, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(features)}")
    example = example_pb2.Example()
    for name, value in features.items():
        kind = None
        for item in value if isinstance(value, list) else [value]:
            own, item = _item(name, item)
            if kind not in (None, own):
                raise invalid(f"Unexpected element type in feature: {echoed(name)} expecting type: {kind}")
            kind = own
            getattr(example.features.feature[name], _LISTS[kind]).value.append(item)
        if kind is None:
            example.features.feature[name].SetInParent()
    return example.SerializeToString()


def _item(name, item):
    """(kind of feature, value): the way a number is written decides between whole numbers and floats."""
    if isinstance(item, str):
        return "string", item.encode()
    if is_base64(item):
        return "string", decoded(item)
    if isinstance(item, float):
        return "float", item
    if isinstance(item, int) and not isinstance(item, bool):
        if item >= 2**63:
            raise invalid(f"Feature: {echoed(name)} has uint64_t element. Only int64_t is supported.")
        return "int64", item
    raise invalid(f"Feature: {echoed(name)} has element with unexpected JSON type: {type_name(item)}")


def classify(runner, servable, key, examples, timeout_ms=None):
    """`[[(label, score), …], …]`, a list an example.

    Args:
        runner: what runs a signature, see `mmkeras.serving.rest.Rest`.
        servable: a Servable.
        key: of the signature.
        examples: serialised `tf.train.Example`s.
        timeout_ms: see `Servable.run`.

    Raises:
        ServingError: if there is no such signature, or it does not give what it should.
    """
    signature = _signature(servable, key, CLASSIFY, "classification")
    wanted = [name for name in ("classes", "scores") if name in signature.outputs]
    outputs = _run(runner, servable, key, signature, examples, wanted, timeout_ms)
    if not outputs:
        raise ServingError("FAILED_PRECONDITION", "Expected classification signature outputs to contain at least one "
                           'of "classes" or "scores". Signature was: ' + key)  # fmt: skip
    classes, scores = (outputs.get(name) for name in ("classes", "scores"))
    if classes is not None and classes.dtype != object:
        raise invalid(f"Expected classes Tensor of DT_STRING. Got: {_dtype(classes)}")
    if scores is not None and scores.dtype != np.float32:
        raise invalid(f"Expected scores Tensor of DT_FLOAT. Got: {_dtype(scores)}")
    for name, array in outputs.items():
        if array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
        if len(array) != len(examples):
            raise invalid(f"Expected {name} output batch size of {len(examples)}. Got: {len(array)}")
    if len(outputs) == 2 and classes.shape[1] != scores.shape[1]:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    labels = np.full(scores.shape, b"", object) if classes is None else classes
    scores = np.zeros(labels.shape, "float32") if scores is None else scores
    return [
        [(label.decode("utf-8", "replace"), score) for label, score in zip(*row, strict=True)]
        for row in zip(labels.tolist(), scores.tolist(), strict=True)
    ]


def regress(runner, servable, key, examples, timeout_ms=None):
    """A number an example, see `classify`."""
    signature = _signature(servable, key, REGRESS, "regression")
    if "outputs" not in signature.outputs:
        raise ServingError("FAILED_PRECONDITION", f"No regression outputs found in signature: {key}")
    array = _run(runner, servable, key, signature, examples, ["outputs"], timeout_ms)["outputs"]
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(array)}"
        )
    if len(array) != len(examples):
        raise invalid(f"Expected output batch size to be {len(examples)}. Got: {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT. Got: {_dtype(array)}")
    return array.reshape(-1).tolist()


def _signature(servable, key, method, kind):
    signature = servable.signature(key)
    if signature is None:
        raise invalid(f"No signature was found with the name: {echoed(key)}")
    if signature.method != method:
        raise invalid(f"Expected {kind} signature method_name to be {method}. Was: {signature.method}")
    if len(signature.inputs) != 1:
        raise invalid(f"Expected one input Tensor. Got: {len(signature.inputs)}")
    return signature


def _run(runner, servable, key, signature, examples, outputs, timeout_ms):
    if not examples:
        raise invalid("Input is empty")
    if not outputs:
        return {}
    fed = np.empty(len(examples), object)
    fed[:] = examples
    return runner(servable, key, {next(iter(signature.inputs)): fed}, outputs, timeout_ms)


def _dtype(array):
    return "DT_STRING" if array.dtype == object else f"DT_{array.dtype.name.upper().replace('FLOAT32', 'FLOAT')}"


def _shape(array):
    return f"[{','.join(map(str, array.shape))}]"
