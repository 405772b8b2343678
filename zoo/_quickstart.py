"""`zoo quickstart`: from nothing to a SavedModel that answers, in a few minutes."""

import pathlib
import time

import numpy as np

from mmkeras import data, export
from zoo import _train


def quickstart(out="quickstart", overwrite=False, verbose=1):
    """Generates scenes, trains an autoencoder, evaluates, exports, and asks the SavedModel in a process of its own.

    Args:
        out: folder for the run, the servable and the pictures.
        overwrite: replace what an earlier quickstart wrote there.
        verbose: see `zoo.train`.
    """
    began = time.monotonic()
    out = pathlib.Path(out)
    print("1. Training the autoencoder on generated pictures and captions (`scenes`, 4,000 rows).")
    run = _train.train("autoencoder", "scenes", out / "run", overwrite=overwrite, verbose=verbose, epochs=9)

    print("\n2. How well each modality is reconstructed, from both and from the other alone (test split):")
    for title, numbers in run.evaluate("test").items():
        print(f"   {title:28}" + "  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))

    print("\n3. Exporting a SavedModel and asking it in a process that imports TensorFlow alone.")
    path = run.export(out / "servables")
    split = data.open("scenes").test
    raw = {"image": split.cells("image")[:3], "text": split.cells("text")[:3]}
    with export.own_process() as ask:
        (served,) = ask(path, {"serving_default": raw, "encode_text": {"text": raw["text"]}})
    own = run.signatures["serving_default"]({name: list(values) for name, values in raw.items()})
    gap = float(np.abs(served["serving_default"]["embedding"] - own["embedding"]).max())
    said = [text.decode() for text in served["serving_default"]["text"]]
    print(f"   asked: {raw['text'][0]!r} and its picture; answered: {said[0]!r} and a picture.")
    print(f"   largest difference from this process: {gap:.1e}")
    if gap > 1e-5 or said != [text.decode() for text in own["text"]]:
        raise RuntimeError("The SavedModel answers otherwise than the model in this process.")

    print(f"\nDone in {(time.monotonic() - began) / 60:.1f} minutes. Everything lies in {out}:")
    for what, where in (
        ("reconstructions to look at", run.path / "figures" / "reconstructions-test.png"),
        ("curves of the training", run.path / "figures" / "history.png"),
        ("the trained model", run.path / "model.keras"),
        ("the SavedModel", path),
    ):
        print(f"   {what:28}{where}")
    print("\nTry next:")
    print(f"   zoo predict {run.path} text='a large red circle' --out {out}      # a picture from a text alone")
    print("   zoo train dual_encoder --data YOUR.jsonl --out runs/mine          # search your pictures by text")
    print("   zoo list; zoo describe fusion_classifier")
