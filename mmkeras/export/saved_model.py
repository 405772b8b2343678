"""SavedModels on disk: one folder a version, published whole."""

import json
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

from mmkeras.runs import replaced


def export(folder, signatures, tracked):
    """Writes the next free version of a SavedModel below `folder` and returns its path.

    Args:
        folder: holds the versions, numbered from one.
        signatures: `{name: Signature}`, `serving_default` among them.
        tracked: Keras models and TensorFlow modules whose variables and tables the signatures use.
    """
    folder = pathlib.Path(folder)
    blocking = next((p for p in (folder, *folder.parents) if p.is_file()), None)
    if blocking:
        raise ValueError(f"Expected a folder to export to. {blocking} is a file.")
    versions = [int(p.name) for p in folder.glob("*") if p.name.isdigit()] if folder.exists() else []
    path = folder / str(max(versions, default=0) + 1)
    archive = keras.export.ExportArchive()
    for resource in tracked:
        archive.track(resource)
    for name in sorted(signatures, key=lambda name: name != "serving_default"):
        specs = list(signatures[name].inputs.values())
        archive.add_endpoint(name, _flat(signatures[name]), input_signature=specs)
    with replaced(path) as beside:
        archive.write_out(str(beside), verbose=False)
    return path


def _flat(signature):
    """The function with one argument an input, in the order of the specs, as a SavedModel wants it."""
    names = list(signature.inputs)

    def call(*values):
        return signature.function(dict(zip(names, values, strict=True)))

    return call


_CLIENT = """
import json, sys
import numpy as np
import tensorflow as tf
folder, inputs, outputs, calls = sys.argv[1:]
loaded = tf.saved_model.load(folder)
answers = {}
values = np.load(inputs)
for call in json.loads(calls):  # "number of the call/signature"
    function = loaded.signatures[call.partition("/")[2]]
    given = {}
    for key, spec in function.structured_input_signature[1].items():
        value = values[f"{call}/{key}"]
        given[key] = tf.constant(value.tolist() if spec.dtype == tf.string else value, spec.dtype)
    for key, value in function(**given).items():
        value = value.numpy()
        answers[f"{call}/{key}"] = value.astype("S") if value.dtype == object else value
assert "mmkeras" not in sys.modules and "zoo" not in sys.modules
np.savez(outputs, **answers)
"""


def in_own_process(folder, *calls):
    """Answers of a SavedModel from a process that imports TensorFlow alone.

    Args:
        folder: of the SavedModel.
        *calls: each `{signature: {input: list or array}}`.

    Returns:
        A list with an answer to each call, `{signature: {output: array}}`; strings as bytes.

    Raises:
        RuntimeError: with the last line of what the process said, if it failed.
    """
    folder = pathlib.Path(folder).resolve()  # the process runs elsewhere
    with tempfile.TemporaryDirectory() as scratch:
        inputs, outputs = pathlib.Path(scratch, "inputs.npz"), pathlib.Path(scratch, "outputs.npz")
        named = {f"{i}/{signature}": values for i, call in enumerate(calls) for signature, values in call.items()}
        flat = {f"{call}/{key}": np.array(_bytes(v)) for call, values in named.items() for key, v in values.items()}
        # A NumPy byte string loses trailing zeros: pad none of ours, PNG and WAV files do not end in them.
        np.savez(inputs, **flat)
        command = [sys.executable, "-c", _CLIENT, str(folder), str(inputs), str(outputs), json.dumps(list(named))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
        if done.returncode:
            raise RuntimeError(f"{folder} did not answer: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        answers = [{signature: {} for signature in call} for call in calls]
        with np.load(outputs) as file:
            for path in file.files:
                i, signature, key = path.split("/", 2)
                answers[int(i)][signature][key] = file[path]
    return answers


def _bytes(values):
    if isinstance(values, tf.Tensor):
        values = values.numpy()
    return [v.encode() if isinstance(v, str) else v for v in values]
