"""From encoded pictures and texts to ready batches, beside PyTorch's DataLoader with Pillow and two workers.

The same files, sizes, words and rows a batch, nothing augmented. `kept` is what `zoo train` does with pictures that
take less than half a gigabyte when they are decoded: after the first time they come from memory. PyTorch: the extra
`bench`.
"""

import importlib.util
import json
import pathlib
import statistics
import time

import numpy as np

from mmkeras import data
from mmkeras.data import pipeline
from zoo import _registry

NAMES = ["png", "jpeg"]
TITLES = {"png": "PNG, scenes of 48 x 48", "jpeg": "JPEG, 256 x 256"}
ROWS, BATCH, ROUNDS, WORKERS = 4096, 64, 5, 2


def run(out="bench/input", names=None, seed=0):
    """Measures, and returns the table.

    Args:
        out: folder of the pictures, which are made first.
        names: of the formats; both if None.
        seed: of the pictures and the order.

    Raises:
        AssertionError: if the two make other batches.
    """
    if importlib.util.find_spec("torch") is None:
        raise ValueError('There is no PyTorch here: pip install -e ".[bench]".')
    titles = ["pictures", "examples a second: `zoo`", "`zoo`, kept", "DataLoader", "`zoo` over the DataLoader"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in names or NAMES:
        found = measure(pathlib.Path(out, name), name, seed)
        speeds = " | ".join(f"{statistics.median(speed):,.0f}" for speed in found)
        ratios = sorted(ours / theirs for ours, _, theirs in zip(*found, strict=True))
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        lines.append(f"| {TITLES[name]} | {speeds} | {ratio} |")
    return "\n".join(lines)


def measure(folder, name, seed=0, rows=ROWS, rounds=ROUNDS):
    """Examples a second in every round: three lists, decoded by us, kept by us, and by the DataLoader."""
    from zoo.bench import _loader

    write_rows(folder, name, seed, rows)
    config = _registry.configure("autoencoder", "base")
    split, kept = (data.checked(data.open(str(folder)).train, config.modalities, []) for _ in range(2))
    preprocessor = _registry.make_preprocessor(_registry.module("autoencoder"), config)
    data.adapt(preprocessor, split, config.vocabulary_size)
    words = preprocessor.reader("text").vocabulary
    dataset = _loader.Rows(split.cells("image"), split.cells("text"), config.image_size, words, config.text_length)
    in_order = _loader.loader(dataset, BATCH, 0, shuffle=False)
    _check(data.batches(kept, preprocessor, BATCH, training=False), in_order)
    theirs = _loader.loader(dataset, BATCH, WORKERS, shuffle=True)
    list(theirs)  # its workers start
    options = {"training": True, "seed": seed}
    found = [], [], []
    for epoch in range(rounds):
        most, pipeline.CACHE_BYTES = pipeline.CACHE_BYTES, 0
        try:
            ours = data.batches(split, preprocessor, BATCH, epoch=epoch, **options)
        finally:
            pipeline.CACHE_BYTES = most
        from_memory = data.batches(kept, preprocessor, BATCH, epoch=epoch, **options)
        for speeds, batches in zip(found, (ours, from_memory, theirs), strict=True):
            began = time.perf_counter()
            for _ in batches:
                pass
            speeds.append(len(split) / (time.perf_counter() - began))
    return found


def write_rows(folder, name, seed=0, rows=ROWS):
    """Pictures as files and their texts in a manifest: scenes as PNG, or coloured clouds as JPEG."""
    from PIL import Image

    if (folder / "train.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    split, random = data.open("scenes").split("train"), np.random.default_rng(seed)
    lines = []
    for i in range(rows):
        row, path = i % len(split), folder / f"{i}.{name}"
        if name == "png":
            path.write_bytes(split.cells("image")[row])
        else:
            coarse = Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype="uint8"))
            coarse.resize((256, 256), Image.Resampling.BICUBIC).save(path, quality=90)
        lines.append(json.dumps({"image": path.name, "text": split.cells("text")[row]}))
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _check(ours, theirs):
    """The same ids, and pixels that differ as two libraries' rounding does.

    Raises:
        AssertionError: if they do not.
    """
    for (x,), (pixels, ids) in zip(ours, theirs, strict=True):
        if not np.array_equal(x["text"], ids):
            raise AssertionError("The DataLoader's token ids are others: what is compared is not the same work.")
        difference = np.abs(x["image"] - pixels.permute(0, 2, 3, 1).numpy()).mean()
        if not difference < 0.01:
            raise AssertionError(f"The DataLoader's pixels differ by {difference:.3f}: it is not the same work.")
