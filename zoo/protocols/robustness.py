"""What is left of a classifier's accuracy when a picture or its text is damaged, missing, or belongs to something else.

The label is the shape of a scene's first object, which is the largest, and which the caption names first: either
modality tells it. Training sees a third of the pictures and of the texts left out, and nothing damaged. The test rows
are asked as they are, with noise (standard deviations of a pixel in 0..1), blur (Gaussian, pixels), without one of the
modalities, with the words of the caption in any order (it then names the shapes, not which is meant), and with the
caption of another row, by which the label is not counted.
"""

import datetime
import functools
import io

import numpy as np

from zoo.protocols import Row
from zoo.protocols._training import trained

MODEL = "fusion_classifier"
SEEDS = 3
OPTIONS = {"modality_dropout": 0.3, "epochs": 12}
NOISE, BLUR = (0.1, 0.2, 0.4), (1, 2, 4)
DAMAGES = ["as it is", *(f"noise {scale:g}" for scale in NOISE), *(f"blur {radius:g}" for radius in BLUR)]
TEXTS = ["words shuffled", "another row's"]
ROWS = {
    **{f"picture and text, picture: {damage}": Row() for damage in DAMAGES},
    **{f"picture alone: {damage}": Row() for damage in DAMAGES},
    "text alone": Row(),
    **{f"picture and text, text: {text}": Row() for text in TEXTS},
    "text alone: words shuffled": Row(),
    "always the most frequent": Row(),
}
QUICK = {"picture and text, picture: as it is": (60.0, 100.0), "always the most frequent": (15.0, 30.0)}


def measure(folder, seed, quick):
    """Trains one classifier, and asks it everything."""
    options = {**OPTIONS, "epochs": OPTIONS["epochs"] // 6} if quick else OPTIONS
    run = trained(MODEL, "scenes", folder / "run", seed=seed, **options)
    read = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    test = run.split("test")
    accuracy = functools.partial(_accuracy, run)
    values = {}
    for damage in DAMAGES:
        pictures = [damaged(picture, damage, row) for row, picture in enumerate(test.cells("image"))]
        split = test.replace({"image": pictures}, {})
        values[f"picture and text, picture: {damage}"] = accuracy(split)
        values[f"picture alone: {damage}"] = accuracy(split, "image")
    values["text alone"] = accuracy(test, "text")
    for text, cells in zip(TEXTS, (shuffled(test.cells("text")), np.roll(test.cells("text"), 1).tolist()), strict=True):
        split = test.replace({"text": cells}, {})
        values[f"picture and text, text: {text}"] = accuracy(split)
        if text == TEXTS[0]:
            values[f"text alone: {text}"] = accuracy(split, "text")
    labels = test.cells("label")
    values["always the most frequent"] = 100 * max(map(labels.count, set(labels))) / len(labels)
    return {"values": values, "parameters": {MODEL: run.model.count_params()}, "test_read": read}


def damaged(picture, damage, row):
    """PNG bytes after a damage, the same for the same row."""
    from PIL import Image, ImageFilter

    from mmkeras.data.scenes import encode_png

    kind, _, strength = damage.partition(" ")
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if kind == "blur":
        image = image.filter(ImageFilter.GaussianBlur(float(strength)))
    pixels = np.asarray(image, "float32")
    if kind == "noise":
        pixels = pixels + 255 * np.random.default_rng(row).normal(scale=float(strength), size=pixels.shape)
    return encode_png(pixels.round().clip(0, 255).astype("uint8"))


def shuffled(texts):
    """Each text's words in another order."""
    return [" ".join(np.random.default_rng(row).permutation(text.split())) for row, text in enumerate(texts)]


def _accuracy(run, split, alone=None):
    """Percent of the labels that are right, from all modalities or one."""
    there = np.array([alone in (None, name) for name in run.config.names], "float32")
    hits = []
    for x, y in run.batches(split):
        outputs = run.outputs({**x, "presence": x["presence"] * there})
        hits.append(outputs["label"].numpy().argmax(-1) == y["label"].numpy())
    return float(100 * np.concatenate(hits).mean())
