"""Does Grad-CAM point at what the text names? The presets of `vqa` asked for an object's colour, and random weights.

The runs are those of `zoo bench answers`; what is missing of them is trained.
"""

import pathlib

import zoo
from zoo import bench
from zoo.bench import answers

NAMES = answers.NAMES


def run(out="bench/answers", names=None, seed=0):
    """Returns the table of hit rates over the test scenes.

    Args:
        out: folder of the runs of `zoo bench answers`, and of `pointing.json`.
        names: of the presets; all if None.
        seed: of the trainings, and of the random weights.
    """
    out, names = pathlib.Path(out), names or NAMES
    answers.run(out, names, seed)
    return table(bench.measured(out / "pointing.json", names, lambda name: measure(name, out, seed), seed=seed))


def measure(name, out, seed):
    """How often the peak lies on the shape that is asked for: "what color is the ring", in scenes of several shapes."""
    import keras

    run = zoo.load(out / name)
    split = run.split("test", data="scenes")
    pairs = enumerate(zip(split.cells("text"), split.cells("label"), strict=True))
    split = split.take([i for i, (text, shape) in pairs if " and " in text and text.split().count(shape) == 1])
    found = {"trained": hit_rate(run, run.model, split)}
    keras.utils.set_random_seed(seed)
    return {**found, "random": hit_rate(run, run.module.build(run.config), split), "scenes": len(split)}


def hit_rate(run, model, split):
    """Share of the scenes whose map, of the answer that the model gives, peaks on the first object."""
    import numpy as np
    import tensorflow as tf

    from mmkeras.diagnosis import grad_cam

    questions = [f"what color is the {shape}" for shape in split.cells("label")]
    x = run.read(image=split.cells("image"), question=questions)
    given = tf.argmax(model(x, training=False)["answer"], axis=-1)

    def score(outputs):
        return tf.gather(outputs["answer"], given, batch_dims=1)

    maps = grad_cam(score, model, x, "image_encoder", run.config.shape("image"))
    return float(hits(maps, np.array(split.cells("vector"))).mean())


def hits(maps, vectors):
    """Whether the highest place of each map touches the first object, `(scenes,)`.

    Args:
        maps: `(scenes, rows, columns)`.
        vectors: the column `vector` of scenes: middle from the left and from the top, and size, as shares of the side.
    """
    import numpy as np

    sides = np.array(maps.shape[1:])
    places = np.stack(np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), sides), axis=-1)
    middle, half = vectors[:, 1::-1], vectors[:, 2:3] / 2  # from the top, from the left
    nearest = np.clip(middle, places / sides, (places + 1) / sides)  # of the place, to the object's middle
    return (np.abs(nearest - middle) < half).all(axis=1) & (maps.max(axis=(1, 2)) > 0)


def table(found):
    """A Markdown table."""
    lines = ["| preset | peak on the named object | with random weights | scenes |", "|---|---|---|---|"]
    for name in sorted(found):
        lines.append(
            f"| `{name}` | {found[name]['trained']:.3f} | {found[name]['random']:.3f} | {found[name]['scenes']} |"
        )
    return "\n".join(lines)
