"""SavedModels on disk: one folder a version, published whole."""

import contextlib
import errno
import fcntl
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from mmkeras.export.samples import write_samples
from mmkeras.export.server_files import BATCHING, BATCHING_FILE
from mmkeras.export.signatures import Signature


def export(
    folder: str | os.PathLike[str],
    signatures: Mapping[str, Signature],
    tables: Iterable[Any] = (),
    sample: Callable[[Mapping[str, tf.TensorSpec], int], dict[str, list[Any]]] | None = None,
) -> pathlib.Path:
    """Writes the next free version of a SavedModel below `folder` and returns its path.

    Where the rows of all signatures are independent, its `batching_params.pbtxt` lets a server run requests together.

    Args:
        folder: holds the versions, numbered from one.
        signatures: `{name: Signature}`, `serving_default` among them.
        tables: look-up tables that the signatures use; their variables are found.
        sample: function from a Signature's inputs and a number of rows to values for them, see
            `mmkeras.export.samples`. With these the SavedModel is asked before it is published, and they are kept in
            `assets.extra`: as warm-up requests for TensorFlow Serving, and with their answers for `zoo verify`.

    Raises:
        ValueError: if the SavedModel is none that TensorFlow Serving would run, or answers otherwise than this process.
        OSError: if it cannot be written: the disk is full.
    """
    folder = pathlib.Path(folder)
    blocking = next((p for p in (folder, *folder.parents) if p.is_file()), None)
    if blocking:
        raise ValueError(f"Expected a folder to export to. {blocking} is a file.")
    served = {name: signature.served for name, signature in signatures.items()}
    # Not by keras.export.ExportArchive: it has every function traced twice, which is most of an export's time.
    graphs = {name: signature.compiled.get_concrete_function() for name, signature in served.items()}
    held = tf.Module()
    held.tables = list(tables)
    held.weights = list({weight.ref(): weight for graph in graphs.values() for weight in graph.variables}.values())
    folder.mkdir(parents=True, exist_ok=True)
    with _scratch(folder) as scratch:
        beside = pathlib.Path(scratch, "version")
        try:
            tf.saved_model.save(held, str(beside), graphs)
            _finish(beside / "saved_model.pb", {name: signature.method for name, signature in served.items()})
            if all(signature.independent for signature in signatures.values()):
                (beside / BATCHING_FILE).write_text(BATCHING)
            if sample is not None:
                write_samples(beside, folder.name, signatures, sample)
        except tf.errors.OpError as error:
            raise OSError(f"Could not write a version of {folder}, and left none: {error.message}") from error
        return _published(beside, folder)


@contextlib.contextmanager
def _scratch(folder):
    """A folder within another that no server takes for a version; those of exports that were killed are removed.

    Exports share a lock on the outer folder, which the system takes from a process that ends, however it ends: whoever
    has it alone knows that no other export is under way.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in folder.glob(".export-*"):
                shutil.rmtree(left)
        fcntl.flock(lock, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as scratch:
            yield scratch
    finally:
        os.close(lock)


def _published(beside, folder):
    """The path of the next free version, which `beside` becomes at once: nobody sees half of it."""
    while True:
        versions = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
        path = folder / str(max(versions, default=0) + 1)
        try:
            return beside.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another export took this number meanwhile
                raise


def _finish(file, methods):
    """Names the methods of the signatures, all of which Keras takes for predict, and looks for what no server runs.

    Raises:
        ValueError: naming it.
    """
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = saved.meta_graphs[0]
    for name, method in methods.items():
        graph.signature_def[name].method_name = f"tensorflow/serving/{method}"
    faults = [*_odd_operations(graph.graph_def), *_odd_tensors(graph.signature_def)]
    if faults:
        raise ValueError(f"TensorFlow Serving would not run this model: {faults[0]}")
    file.write_bytes(saved.SerializeToString())


def _odd_operations(graph):
    """Operations of this process alone, and functions that XLA has to compile, which a server does not."""
    functions = {function.signature.name for function in graph.library.function}
    for function in graph.library.function:
        if "_XlaMustCompile" in function.attr and function.attr["_XlaMustCompile"].b:  # asked for, it would be there
            yield f"the function {function.signature.name} has to be compiled by XLA."
    for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
        if "PyFunc" in node.op or (node.op not in functions and op_def_registry.get(node.op) is None):
            yield f"{node.name} is a {node.op}, which only this process knows."


def _odd_tensors(signatures):
    """Inputs and outputs that JSON cannot carry, or whose number of rows is fixed."""
    for key, signature in signatures.items():
        for alias, tensor in [*signature.inputs.items(), *signature.outputs.items()]:
            dtype = tf.dtypes.as_dtype(tensor.dtype) if tensor.dtype else tf.string
            if dtype in (tf.half, tf.bfloat16):
                yield f"`{alias}` of {key} is {dtype.name}."
        for alias, tensor in signature.inputs.items():
            shape = tensor.tensor_shape
            if not shape.unknown_rank and (not shape.dim or shape.dim[0].size != -1):
                yield f"`{alias}` of {key} takes no open number of rows."


_CLIENT = """
import json, sys
import numpy as np
import tensorflow as tf

def answer(folder, calls):
    loaded, values, answers = tf.saved_model.load(folder), np.load("inputs.npz"), {}
    for call in calls:  # "number of the call/signature"
        function = loaded.signatures[call.partition("/")[2]]
        given = {}
        for key, spec in function.structured_input_signature[1].items():
            value = values[f"{call}/{key}"]
            given[key] = tf.constant([v[:-1] for v in value.tolist()] if spec.dtype == tf.string else value, spec.dtype)
        for key, value in function(**given).items():
            value = value.numpy()
            answers[f"{call}/{key}"] = value.astype("S") if value.dtype == object else value
    assert "mmkeras" not in sys.modules and "zoo" not in sys.modules
    np.savez("outputs.npz", **answers)

for line in sys.stdin:
    try:
        answer(*json.loads(line))
        fault = None
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    print(json.dumps({"fault": fault}), flush=True)
"""


@contextlib.contextmanager
def own_process() -> Iterator[Callable[..., list[dict[str, dict[str, np.ndarray]]]]]:
    """A process that imports TensorFlow alone: gives a function that asks SavedModels there.

    The function takes the folder of a SavedModel and calls, each `{signature: {input: list or array}}`. It returns a
    list with an answer to each call, `{signature: {output: array}}`, strings as bytes, and raises a RuntimeError with
    what the process said if it did not answer.
    """
    with tempfile.TemporaryDirectory() as scratch, pathlib.Path(scratch, "said").open("w+") as said:
        command = [sys.executable, "-c", _CLIENT]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said}
        process = subprocess.Popen(command, cwd=scratch, text=True, **pipes)
        try:
            yield functools.partial(_ask, process, pathlib.Path(scratch))
        finally:
            process.communicate()  # closes its input, which ends it


def _ask(process, scratch, folder, *calls):
    folder = str(pathlib.Path(folder).resolve())  # the process runs elsewhere
    named = {f"{i}/{signature}": values for i, call in enumerate(calls) for signature, values in call.items()}
    flat = {f"{call}/{key}": np.array(_bytes(v)) for call, values in named.items() for key, v in values.items()}
    # A NumPy byte string loses trailing zeros: each gets a byte more, which the process takes off.
    np.savez(scratch / "inputs.npz", **flat)
    try:
        process.stdin.write(json.dumps([folder, list(named)]) + "\n")
        process.stdin.flush()
        fault = json.loads(process.stdout.readline())["fault"]
    except (BrokenPipeError, json.JSONDecodeError):  # it has ended
        process.wait()
        fault = (scratch / "said").read_text().strip() or "no message"
    if fault:
        raise RuntimeError(f"{folder} did not answer: {fault.splitlines()[-1]}")
    answers = [{signature: {} for signature in call} for call in calls]
    with np.load(scratch / "outputs.npz") as file:
        for path in file.files:
            i, signature, key = path.split("/", 2)
            answers[int(i)][signature][key] = file[path]
    return answers


def _bytes(values):
    if isinstance(values, tf.Tensor):
        values = values.numpy()
    return [(v.encode() if isinstance(v, str) else v) + b"." if isinstance(v, (str, bytes)) else v for v in values]
