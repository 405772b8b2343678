"""Two replicas, of which one has more rows, or gradients that overflow: prints what comes of it as JSON."""

import json

import keras
import numpy as np
import tensorflow as tf

import zoo
from mmkeras.training.tensorflow_optimizers import SGD, LossScale


def main():
    logical = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)
    strategy = tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices("CPU")])
    print(json.dumps({"overflow": overflow(strategy), "losses": losses(strategy)}))


def overflow(strategy):
    """`[weights, scale]` after a step in which the second replica's gradient overflows, and after one of ones."""
    with strategy.scope():
        weight = keras.Variable([1.0, 2.0])
        optimizer = LossScale(SGD(1.0, momentum=0.0), initial_scale=4.0)
        optimizer.build([weight])

    def step(of_second):
        second = tf.distribute.get_replica_context().replica_id_in_sync_group == 1
        optimizer.apply([tf.fill([2], tf.where(second, of_second, 1.0))])

    found = []
    for of_second in (np.inf, 1.0):
        tf.function(lambda value=of_second: strategy.run(step, args=(tf.constant(value),)))()
        found.append([weight.numpy().tolist(), float(optimizer.dynamic_scale.numpy())])
    return found


def losses(strategy):
    """What `test_step` tells of three rows, by one replica, and by two, the first of which has two of them."""
    random, rows = np.random.default_rng(0), 3
    x = {name: random.normal(size=(rows, 4)).astype("float32") for name in "ab"}
    y = {"label": np.array([0, 1, 2])}
    options = {"modalities": {"a": "vector", "b": "vector"}, "vector_dim": {"a": 4, "b": 4}, "num_classes": 3}
    models = []
    for scope in (tf.distribute.get_strategy(), strategy):
        with scope.scope():
            models.append(zoo.build("fusion_classifier", "tiny", balance="gradient_blend", **options))
    one, two = models
    two.set_weights(one.get_weights())

    def part(i):
        return tf.nest.map_structure(lambda value: tf.constant(value[:2] if i == 0 else value[2:]), (x, y))

    batch = strategy.experimental_distribute_values_from_function(
        lambda context: part(context.replica_id_in_sync_group)
    )
    strategy.run(two.test_step, args=(batch,))
    one.test_step(tf.nest.map_structure(tf.constant, (x, y)))
    return [{name: float(value) for name, value in model.get_metrics_result().items()} for model in models]


if __name__ == "__main__":
    main()
