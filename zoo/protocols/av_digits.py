"""Digits half seen and half heard: what a fusion of both knows more than either, and what it costs to lose one.

A picture of MNIST and a sound of spoken_digit (Jackson 2016) of the same digit are paired within their splits. Of the
picture one quarter, a corner drawn at random, is left; over the sound lies noise with the spectrum of speech and as
loud as it is (0 dB). The modalities alone are trained by one network. Its encoders are what every fusion begins with
(those that fuse between stages have encoders of their own), trained further with each modality left out now and then.
Asked are the test pairs as they are, with one modality missing, and, half of them with the sound of
another digit, whether the two belong together: the probability that both alone name the same digit.
"""

import datetime
import io
import wave

import numpy as np

from zoo import bench
from zoo._registry import module
from zoo.protocols import Row
from zoo.protocols._training import trained

MODEL = "fusion_classifier"
SEEDS, EPOCHS, FUSED_EPOCHS = 3, 20, 8
PAIRS = {"train": 6_000, "validation": 1_000, "test": 2_000}
FUSIONS, STAGED_FUSIONS = (getattr(module(MODEL), name) for name in ("FUSIONS", "STAGED_FUSIONS"))
KINDS = {"image": "image", "audio": "audio"}
OPTIONS = {
    "modalities": KINDS, "image_size": (28, 28), "image_channels": 1, "image_encoder": "cnn", "image_width": 16,
    "audio_seconds": 1.0, "fusion_width": 64, "modality_dropout": 0.3, "augment_shift": 0.0, "augment_zoom": 0.0,
}  # fmt: skip
ROWS = {
    "picture alone": Row(),
    "sound alone": Row(),
    "the best fusion": Row(),
    "the worst fusion": Row(),
    "the best fusion, above the better modality alone": Row(unit="points", reach=5.0),
    "the best fusion without the sound, above the picture alone": Row(unit="points", reach=-1.0),
    "the best fusion without the picture, above the sound alone": Row(unit="points", reach=-1.0),
    "pairs of different digits found, area under the curve": Row(),
}
QUICK = {"the best fusion": (45.0, 95.0), "pairs of different digits found, area under the curve": (55.0, 95.0)}
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def measure(folder, seed, quick):
    """Trains a classifier of each modality alone, and with each fusion."""
    packed = folder / "data"
    if not (packed / "SHA256SUMS").exists():
        _pack_pairs(packed, seed, 10 if quick else 1)
    options = {"preset": "base", "epochs": EPOCHS, "seed": seed, **OPTIONS}
    singles = {name: {"modalities": {name: kind}, "modality_dropout": 0.0} for name, kind in KINDS.items()}
    fusions = {name: {"fusion": name} for name in (("concat", "low_rank") if quick else FUSIONS)}
    for name in set(fusions).difference(STAGED_FUSIONS):
        fusions[name] |= {"warm_start": [folder / one for one in singles], "epochs": FUSED_EPOCHS}

    def asked(name):
        run = trained(MODEL, str(packed), folder / name, **{**options, **{**singles, **fusions}[name]})
        found = {"validation": _accuracy(run, run.split("validation")), "parameters": run.model.count_params()}
        found["test_read"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        test = run.split("test")
        found["test"] = _accuracy(run, test)
        if name in fusions:
            found |= {f"{other} alone": _accuracy(run, test, other) for other in KINDS}
            found["mismatches"] = _found(run, test)
        return found

    found = bench.measured(folder / "found.json", [*singles, *fusions], asked)
    read = max(one["test_read"] for one in found.values())  # last; each network's own time is in `found`
    best = max(fusions, key=lambda name: found[name]["validation"])
    alone = {name: found[name]["test"] for name in singles}
    values = {
        "picture alone": alone["image"],
        "sound alone": alone["audio"],
        "the best fusion": found[best]["test"],
        "the worst fusion": min(found[name]["test"] for name in fusions),
        "the best fusion, above the better modality alone": found[best]["test"] - max(alone.values()),
        "the best fusion without the sound, above the picture alone": found[best]["image alone"] - alone["image"],
        "the best fusion without the picture, above the sound alone": found[best]["audio alone"] - alone["audio"],
        "pairs of different digits found, area under the curve": found[best]["mismatches"],
    }
    parameters = {name: one["parameters"] for name, one in found.items()}
    return {"values": values, "parameters": parameters, "test_read": read, "best": best, "found": found}


def details(found):
    """A fusion a line: its accuracy on the test pairs, and of one modality, the mean over the seeds."""
    columns = {"both": "test", "picture": "image alone", "sound": "audio alone", "mismatches found": "mismatches"}
    lines = [f"| fusion | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in found[0]["found"]:
        if name not in KINDS:
            means = [np.mean([one["found"][name][key] for one in found]) for key in columns.values()]
            lines.append(f"| `{name}` | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    return "\n".join(lines)


def _pack_pairs(folder, seed, share):
    from mmkeras import data
    from zoo import _pack

    pictures, sounds, splits = data.open("tfds:mnist"), data.open("tfds:spoken_digit"), {}
    for number, (name, rows) in enumerate(PAIRS.items()):
        random = np.random.default_rng([seed, number])
        seen = pictures.split(name)
        seen = seen.take(random.permutation(len(seen))[: rows // share])
        one, other = (data.Source(name, {name: split}, "") for split in (seen, sounds.split(name)))
        pairs = data.pair(one, other, on="label", seed=seed).split(name)
        columns = {
            "image": [quarter(cell, CORNERS[random.integers(4)]) for cell in pairs.cells("image")],
            "audio": noisy(pairs.cells("audio"), random),
        }
        splits[name] = pairs.replace(columns, KINDS)
    _pack.pack(data.Source("av_digits", splits, "those of mnist and spoken_digit"), folder, tell=lambda line: None)


def quarter(picture, corner):
    """PNG bytes of which one corner `(lower, right)` is left, the rest black."""
    from PIL import Image

    from mmkeras.data.scenes import encode_png

    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    left, (rows, columns) = np.zeros_like(pixels), (side // 2 for side in pixels.shape[:2])
    kept = tuple(slice(size * at, size * (at + 1)) for size, at in zip((rows, columns), corner, strict=True))
    left[kept] = pixels[kept]
    return encode_png(left)


def noisy(sounds, random):
    """WAV bytes under noise with the mean spectrum of all of them, each as loud as what it lies over."""
    samples = [_samples(sound) for sound in sounds]
    rate = samples[0][1]
    spectrum = np.sqrt(np.mean([np.abs(np.fft.rfft(x, rate)) ** 2 for x, _ in samples], axis=0))
    mixed = []
    for x, _ in samples:
        noise = np.fft.irfft(np.fft.rfft(random.normal(size=rate)) * spectrum, rate)
        noise = np.resize(noise, len(x))
        x = x + noise * np.sqrt(np.mean(x**2) / np.mean(noise**2))
        mixed.append(_wav(x / max(np.abs(x).max(), 1.0), rate))
    return mixed


def _samples(sound):
    """(samples in -1..1, rate) of WAV bytes in 16 bits."""
    with wave.open(io.BytesIO(sound)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 2**15, file.getframerate()


def _wav(samples, rate):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * (2**15 - 1)).round().astype("<i2").tobytes())
    return buffer.getvalue()


def _probabilities(run, split, alone=None):
    """Each label's probability `(rows, labels)` from both modalities or one, and the true ones."""
    from keras import ops

    there = np.array([alone in (None, name) for name in run.config.names], "float32")
    found, true = [], []
    for x, y in run.batches(split):
        outputs = run.outputs({**x, "presence": x["presence"] * there})
        found.append(ops.convert_to_numpy(ops.softmax(outputs["label"])))
        true.append(y["label"].numpy())
    return np.concatenate(found), np.concatenate(true)


def _accuracy(run, split, alone=None):
    found, true = _probabilities(run, split, alone)
    return float(100 * np.mean(found.argmax(axis=1) == true))


def _found(run, split):
    """Area under the curve, in percent, of telling pairs of one digit from those whose sound is of another."""
    from sklearn.metrics import roc_auc_score

    (seen, true), (heard, _) = (_probabilities(run, split, name) for name in KINDS)
    random = np.random.default_rng(0)
    others = np.array([random.choice(np.flatnonzero(true != label)) for label in true])
    same, different = ((seen * heard[rows]).sum(axis=1) for rows in (np.arange(len(true)), others))
    return float(100 * roc_auc_score(np.repeat([1, 0], len(true)), np.concatenate([same, different])))
