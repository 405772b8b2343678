"""A process that trains when it is told to: `python -m zoo.bench._trainer IMPLEMENTATION FOLDER`.

It writes what the model answers before any training to the folder, and says so in a line; for each line that comes it
takes some steps, and says how long they took, or, where the line is `profile`, what they spent it on. The folder is
that of `zoo.bench.train`.
"""

import contextlib
import json
import os
import pathlib
import sys
import time
import types

import numpy as np

from zoo.bench import _profile


def main(implementation, folder):
    folder = pathlib.Path(folder)
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    with np.load(folder / "batches.npz") as file:
        batches = dict(file)
    ready = _keras if implementation == "keras" else _torch
    answers, train, counted = ready(folder, asked, batches, implementation)
    np.savez(folder / f"{implementation}.npz", **answers)
    _tell(**counted)
    train()


def _told():
    """Waits for the next line, and ends where none comes; whether the steps are to be profiled."""
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    return line.strip() == "profile"


@contextlib.contextmanager
def _counted(profiled):
    """Tells at the end of the block how long it took, or what a profiler found."""
    began = time.perf_counter()
    with profiled() if profiled else contextlib.nullcontext() as found:
        yield
    _tell(profile=found, seconds=time.perf_counter() - began)


def _tell(**found):
    status = pathlib.Path("/proc/self/status").read_text()  # `resource` counts the parent's memory in
    print(json.dumps({**found, "megabytes": int(status.split("VmHWM:")[1].split()[0]) / 1024}), flush=True)


def _keras(folder, asked, batches, implementation):
    """The loop of `zoo train`; each of its epochs waits to be told."""
    import keras
    import tensorflow as tf

    from mmkeras import training
    from zoo import _registry
    from zoo._run import load

    run = load(folder / "run")
    model = run.model
    first = {name: tf.constant(array[0]) for name, array in batches.items()}
    if run.name == "conditional_gan":
        drawn = model.generator({"text": first["text"], "noise": first["noise"]}, training=False)
        answers = {"image": drawn["image"], **model.discriminator({"image": first["image"], "text": first["text"]})}
        targets, inputs = ["image"], ["text"]
    else:
        inputs, targets = ["image", "text", "presence"], ["label"] if "label" in batches else []
        answers = run.outputs({name: first[name] for name in inputs})
    _registry.compile_model(run.module, model, run.config, steps=100_000)
    x, y = ({name: batches[name] for name in names} for names in (inputs, targets))
    if run.name != "conditional_gan":
        given = {name: first[name] for name in inputs}, {name: first[name] for name in targets}
        answers = {**answers, "loss": model.compute_loss(*given, answers, training=False)}
    kept = tf.nest.map_structure(tf.constant, (x, y) if targets else (x,))
    options = tf.data.Options()
    options.autotune.enabled = False  # as `mmkeras.data.batches`
    rows = np.arange(asked["steps"]) % len(batches["text"])
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    dataset = dataset.map(lambda i: tf.nest.map_structure(lambda array: array[i], kept)).prefetch(2)
    dataset = dataset.with_options(options)
    epochs = []  # in which we are: what ends it

    def begin(epoch, logs=None):
        epochs.append(_counted(_profile.of_tensorflow if _told() else None))
        epochs[-1].__enter__()

    def end(epoch, logs=None):
        epochs.pop().__exit__(None, None, None)

    waiting = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)
    return answers, lambda: training.fit(model, lambda *_: dataset, 1_000_000, callbacks=[waiting], verbose=0), {}


def _torch(folder, asked, batches, implementation):
    """A plain loop: eager, or with what gives the loss compiled."""
    import torch

    from zoo.bench import _torch_models, _torch_weights

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    network = _torch_models.MODELS[asked["model"]](types.SimpleNamespace(**asked["hyperparameters"]))
    with np.load(folder / "weights.npz") as file:
        _torch_weights.load(network, dict(file))
    network = network.to(memory_format=torch.channels_last)
    rows = [_torch_models.batch({n: array[i] for n, array in batches.items()}) for i in range(len(batches["text"]))]
    with torch.no_grad():
        answers = {name: value.numpy() for name, value in network.eval().answers(rows[0]).items()}
    network.train()
    counted = {"operations": _operations(network, rows[0]), "peak": _peak()} if implementation == "torch" else {}
    compiled = torch.compile if implementation == "torch.compile" else lambda function: function
    parts = [(compiled(loss), *made) for loss, *made in network.parts()]

    def train():
        while True:
            with _counted(_profile.of_pytorch if _told() else None):
                for i in range(asked["steps"]):
                    for loss, optimizer, weights in parts:
                        optimizer.zero_grad()
                        loss(rows[i % len(rows)]).backward()
                        if asked["hyperparameters"]["clip_norm"]:
                            torch.nn.utils.clip_grad_norm_(weights, asked["hyperparameters"]["clip_norm"])
                        optimizer.step()
                    network.after_step()

    return answers, train, counted


def _operations(network, batch):
    """Multiplications and additions of a step's matrix products and convolutions, forward and backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    plain = torch.backends.mkldnn.flags(enabled=False)  # whose LSTM is an operation that is not counted
    with plain, FlopCounterMode(display=False) as counter:
        for loss, *_ in network.parts():
            loss(batch).backward()
    return counter.get_total_flops()


def _peak(size=2048):
    """Multiplications and additions a second of a large matrix product, the most of ten."""
    import torch

    a, times = torch.rand(size, size), []
    for _ in range(10):
        began = time.perf_counter()
        torch.matmul(a, a)
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)


if __name__ == "__main__":
    main(*sys.argv[1:])
