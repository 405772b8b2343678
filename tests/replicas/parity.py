"""Trains tiny models with one replica and with several, and writes their weights: run as a process of its own.

`python parity.py '[{"name": "autoencoder", "out": "a", "devices": 2, "floatx": "float64"}, …]'`; several workers by
TF_CONFIG. `spoil` takes something out of a training that several replicas need.
"""

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf

import zoo
from mmkeras import data as sources
from mmkeras import training
from mmkeras.layers import replicas
from mmkeras.training import loop, make_optimizer
from mmkeras.training.tensorflow_optimizers import LossScale
from zoo._run import Run

PLAIN = {
    "preset": "tiny", "dropout": 0.0, "modality_dropout": 0.0, "augment_shift": 0.0, "augment_flip": False,
    "text_encoder": "cnn", "batch_size": 12, "clip_norm": 0.5, "epochs": 2, "verbose": 0,
}  # fmt: skip
SPOIL = {
    "gather": (replicas, "gathered", lambda x: x),
    "scaling": (replicas, "count", lambda: 1),
    "share": (replicas, "share", lambda rows: 1.0),
    "batch norm": (loop, "synchronize_batch_norm", lambda model, on: None),
}
batches = sources.batches


def precise(*arguments, **options):
    """`mmkeras.data.batches` with floats of the type that Keras has for weights."""

    def cast(x):
        return tf.cast(x, keras.config.floatx()) if x.dtype.is_floating else x

    return batches(*arguments, **options).map(lambda *batch: tf.nest.map_structure(cast, batch))


def main(jobs):
    sources.batches = precise
    Run.write_figures = lambda *_: None  # drawn from what is read as float32
    if os.environ.get("TF_CONFIG"):
        strategies = {1: training.make_strategy("multi_worker")}
    else:
        logical = [tf.config.LogicalDeviceConfiguration()] * max(job.get("devices", 1) for job in jobs)
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)
        names = [device.name for device in tf.config.list_logical_devices("CPU")]
        strategies = {n: tf.distribute.MirroredStrategy(names[:n]) for n in range(2, len(names) + 1)}
        strategies[1] = tf.distribute.get_strategy()
    for job in jobs:
        train(strategies, **job)


def train(strategies, name, out, devices=1, floatx="float64", spoil=None, scaled=False, data="scenes:160", **options):
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    training.make_strategy = lambda _: strategies[devices]
    training.make_optimizer = make_scaled if scaled else make_optimizer
    if spoil:
        module, attribute, other = SPOIL[spoil]
        kept = getattr(module, attribute)
        setattr(module, attribute, other)
    start = {}

    def fit(model, *arguments):
        start.update({f"start {key}": value for key, value in weights(model).items()})
        return loop.fit(model, *arguments)

    training.fit = fit
    run = zoo.train(name, data, out=out, overwrite=True, **{**PLAIN, **options})
    if spoil:
        setattr(module, attribute, kept)
    if (run.path / "config.json").exists():
        np.savez(run.path / "weights.npz", **start, **weights(run.model))


def make_scaled(*arguments):
    """As float16 has it, in another precision."""
    return LossScale(make_optimizer(*arguments))


def weights(model):
    return {f"{i:03d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.trainable_variables)}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
