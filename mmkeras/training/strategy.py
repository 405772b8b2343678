"""Which devices and machines train: TensorFlow's distribution strategies by name."""

import json
import os
from typing import Literal

import keras
import tensorflow as tf

STRATEGIES = ("auto", "one", "mirrored", "multi_worker")


def make_strategy(name: Literal["auto", "one", "mirrored", "multi_worker"] = "auto") -> tf.distribute.Strategy:
    """A `tf.distribute.Strategy`.

    Args:
        name: `"one"` device; `"mirrored"`, all GPUs of the machine, or where there is none all its logical CPU devices;
            `"multi_worker"`, the machines of the environment variable TF_CONFIG; `"auto"`: the last where that is
            set, mirrored where there are several GPUs, one otherwise.

    Raises:
        ValueError: if there is no such strategy, or TF_CONFIG is missing or unreadable.
    """
    if name not in STRATEGIES:
        raise ValueError(f"Expected a strategy out of {', '.join(STRATEGIES)}. Received: {name!r}.")
    if name == "auto":
        name = "multi_worker" if os.environ.get("TF_CONFIG") else "one"
        if name == "one" and len(tf.config.list_physical_devices("GPU")) > 1:
            name = "mirrored"
    if name == "multi_worker":
        _check_tf_config()
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def _check_tf_config():
    said = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(said)
        config["cluster"]["worker"][config["task"]["index"]]
        others = {*config["cluster"], config["task"]["type"]} - {"worker"}
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(
            'Expected TF_CONFIG to name the workers and this one: {"cluster": {"worker": ["host:port", …]}, "task": '
            f'{{"type": "worker", "index": 0}}}}. Received: {said[:200]!r}. `zoo launch` sets it on one machine.'
        ) from None
    if others:
        received = ", ".join(sorted(others))
        raise ValueError(
            f"Expected TF_CONFIG to name workers alone: the first of them is the chief. Received: {received}."
        )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files and says how far training is."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_id in (None, 0)


def pieces(strategy: tf.distribute.Strategy) -> tuple[int, int, int]:
    """`(first, end, number)` of the replicas that this process has, see `mmkeras.data.batches`."""
    number = strategy.num_replicas_in_sync
    resolver = strategy.cluster_resolver
    workers = len(resolver.cluster_spec().as_dict().get("worker", [])) if resolver else 1
    each = number // max(workers, 1)
    first = each * (resolver.task_id or 0) if workers > 1 else 0
    return first, first + each, number


def synchronize_batch_norm(model, on=True):
    """Has the batch norms of a model take their means over the rows of all replicas, or of each by itself."""
    layers = [model]
    while layers:
        layer = layers.pop()
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = on
        layers += getattr(layer, "layers", [])
