"""What a training step of `dual_encoder` costs against rows, words, width and number of replicas.

Each point is measured in a process of its own, by the loop of `zoo train`, on random pictures and texts. The replicas
are logical devices of one CPU: what they cost beyond one is what sharing out costs.
"""

import json
import pathlib
import statistics
import subprocess
import sys

import numpy as np

from zoo import bench

AXES = {
    "batch": (8, 16, 32, 64, 128, 256),
    "length": (8, 16, 32, 64, 128),
    "width": (16, 32, 64, 128),
    "replicas": (1, 2, 4),
}
TITLES = {
    "batch": "rows a step", "length": "words a text", "width": "channels of the first stage, text in proportion",
    "replicas": "replicas on two cores, of 64 rows",
}  # fmt: skip
NAMES = list(AXES)
USUAL, STEPS = {"batch": 64, "length": 24, "width": 32, "replicas": 1}, 6


def run(out="bench/scaling", names=None, seed=0):
    """Measures, draws `scaling.png`, and returns the table.

    Args:
        out: folder of `scaling.json` and the figure.
        names: of the axes; all if None.
        seed: of the data.
    """
    out, names = pathlib.Path(out), names or NAMES
    points = [f"{name}={value}" for name in names for value in AXES[name]]
    found = bench.measured(out / "scaling.json", points, lambda point: _asked(point, seed), seed=seed)
    _draw(found, names, out / "scaling.png")
    lines = ["| axis | seconds a step | exponent, of the upper half |", "|---|---|---|"]
    for name in names:
        seconds = [found[f"{name}={value}"] for value in AXES[name]]
        cells = ", ".join(f"{value}: {second:.3f}" for value, second in zip(AXES[name], seconds, strict=True))
        lines.append(f"| {TITLES[name]} | {cells} | {exponent(AXES[name], seconds):.2f} |")
    return "\n".join(lines)


def exponent(values, seconds):
    """The slope of the upper half of the points in a log-log figure."""
    upper = slice(len(values) // 2 - (len(values) < 4), None)
    return float(np.polyfit(np.log(values[upper]), np.log(seconds[upper]), 1)[0])


def _asked(point, seed):
    """Seconds a step at a point such as `"batch=64"`, by a process of its own."""
    name, value = point.split("=")
    given = json.dumps({**USUAL, name: int(value), "seed": seed})
    done = subprocess.run([sys.executable, "-m", "zoo.bench.scaling", given], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The step at {point} could not be measured: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(batch, length, width, replicas, seed=0):
    """Seconds a step, the median of `STEPS` after two."""
    import time

    import keras
    import tensorflow as tf

    import zoo
    from mmkeras import training

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    random, vocabulary = np.random.default_rng(seed), 1000
    sizes = {"text_length": length, "image_width": width, "text_width": 12 * width, "text_dim": 8 * width}
    strategy = training.make_strategy("mirrored" if replicas > 1 else "one")
    with strategy.scope():
        model = zoo.build("dual_encoder", vocabulary_size=vocabulary, **sizes)
        model.optimizer.build(model.trainable_variables)
    rows = batch // replicas
    x = {
        "image": random.random((batch, *model.input["image"].shape[1:]), "float32"),
        "text": random.integers(4, vocabulary, (batch, length), "int32"),
        "presence": np.ones((batch, 2), "float32"),
    }
    dataset = tf.data.Dataset.from_tensor_slices((x,)).batch(rows).cache().repeat(STEPS + 2).prefetch(2)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality((STEPS + 2) * replicas))
    times = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda step, logs: times.append(-time.perf_counter()),
        on_train_batch_end=lambda step, logs: times.append(times.pop() + time.perf_counter()),
    )
    with strategy.scope():
        training.fit(model, lambda epoch, step: dataset, epochs=1, callbacks=[clock], verbose=0)
    return statistics.median(times[2:])


def _draw(found, names, path):
    from matplotlib.figure import Figure

    from mmkeras.runs import replaced

    figure = Figure(figsize=(3.2 * len(names), 3.2), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        axes.loglog(AXES[name], [found[f"{name}={value}"] for value in AXES[name]], marker="o", base=2)
        axes.set_xlabel(TITLES[name], fontsize=8)
        axes.grid(True, which="both", alpha=0.3)
    panels[0].set_ylabel("seconds a step")
    with replaced(path) as beside:
        figure.savefig(beside, dpi=100)


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
