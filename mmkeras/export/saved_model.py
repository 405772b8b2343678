"""SavedModels on disk: one folder a version, published whole."""

import contextlib
import functools
import json
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

from mmkeras.runs import replaced


def export(folder, signatures, tables=()):
    """Writes the next free version of a SavedModel below `folder` and returns its path.

    Args:
        folder: holds the versions, numbered from one.
        signatures: `{name: Signature}`, `serving_default` among them.
        tables: look-up tables that the signatures use; their variables are found.
    """
    folder = pathlib.Path(folder)
    blocking = next((p for p in (folder, *folder.parents) if p.is_file()), None)
    if blocking:
        raise ValueError(f"Expected a folder to export to. {blocking} is a file.")
    versions = [int(p.name) for p in folder.glob("*") if p.name.isdigit()] if folder.exists() else []
    path = folder / str(max(versions, default=0) + 1)
    archive = keras.export.ExportArchive()
    for table in tables:  # not the models that hold them: Keras would trace those once more
        archive.track(table)
    for name in sorted(signatures, key=lambda name: name != "serving_default"):
        signatures[name].compiled.get_concrete_function()  # Keras asks that it be traced
        archive.add_endpoint(name, signatures[name].compiled)
    with replaced(path) as beside:
        archive.write_out(str(beside), verbose=False)
    return path


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
            given[key] = tf.constant(value.tolist() if spec.dtype == tf.string else value, spec.dtype)
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
def own_process():
    """A process that imports TensorFlow alone: gives a function that asks SavedModels there.

    The function takes the folder of a SavedModel and calls, each `{signature: {input: list or array}}`. It returns a
    list with an answer to each call, `{signature: {output: array}}`, strings as bytes, and raises a RuntimeError with
    what the process said if it did not answer.
    """
    with tempfile.TemporaryDirectory() as scratch, pathlib.Path(scratch, "said").open("w+") as said:
        command = [sys.executable, "-c", _CLIENT]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said}
        process = subprocess.Popen(command, cwd=scratch, text=True, **pipes)
        try:
            yield functools.partial(_ask, process, pathlib.Path(scratch))
        finally:
            process.communicate()  # closes its input, which ends it


def _ask(process, scratch, folder, *calls):
    folder = str(pathlib.Path(folder).resolve())  # the process runs elsewhere
    named = {f"{i}/{signature}": values for i, call in enumerate(calls) for signature, values in call.items()}
    flat = {f"{call}/{key}": np.array(_bytes(v)) for call, values in named.items() for key, v in values.items()}
    # A NumPy byte string loses trailing zeros: pad none of ours, PNG and WAV files do not end in them.
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
    return [v.encode() if isinstance(v, str) else v for v in values]
