"""Whether a server answers as the models it serves did when they were exported."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from mmkeras.export.samples import largest_difference, read_golden
from mmkeras.serving.client import Client


def verify(client: Client, folder: str | os.PathLike[str]) -> Iterator[tuple[str, int, str, float]]:
    """Asks a server what each model in a folder was asked at its export.

    Args:
        client: a `Client`.
        folder: of the models, as `zoo export` writes them.

    Yields:
        (model, version, signature, largest difference of the answers).

    Raises:
        ValueError: if there is no exported model.
        ServingError: what the server said.
    """
    paths = sorted(pathlib.Path(folder).glob("*/*/saved_model.pb"))
    latest = {path.parent.parent.name: path.parent for path in sorted(paths, key=lambda path: int(path.parent.name))}
    if not latest:
        raise ValueError(f"There is no exported model in {folder}: expected MODEL/VERSION/saved_model.pb.")
    for model, path in sorted(latest.items()):
        version = int(path.name)
        for signature, golden in read_golden(path).items():
            expected = {name: np.array(value, object) for name, value in golden["outputs"].items()}
            if golden["method"] == "classify":
                rows = [
                    dict(zip(golden["inputs"], v, strict=True)) for v in zip(*golden["inputs"].values(), strict=True)
                ]
                found = client.classify(model, rows, signature, version)
                answer = {
                    "classes": np.array([[label for label, _ in row] for row in found], object),
                    "scores": np.array([[score for _, score in row] for row in found], object),
                }
            else:
                answer = client.predict(model, signature, version, golden["inputs"])
            yield model, version, signature, largest_difference(expected, answer)
