"""The run folder: configuration, models, checkpoints, history, metrics, figures.

config.json          format version, model, preset, hyperparameters, data, seed, versions
preprocess.keras     raw bytes and strings to inputs
targets.keras        raw answers to targets, where the model has any
model.keras          the trained model
checkpoints/         the last three states of training, optimiser and random state included
history.csv          a row an epoch
logs/                the same for TensorBoard
metrics/SPLIT.json   what `zoo evaluate` found
figures/*.png
"""

import csv
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from mmkeras.runs.replace import is_beside, replaced, write_json

FORMAT_VERSION = 1
_KEPT = 3  # checkpoints
_START = {"preprocess.keras", "targets.keras"}  # what lies there before config.json makes the folder a run


class RunFolder:
    """One run's folder.

    Args:
        path: of the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def create(self, overwrite: bool = False) -> None:
        """Makes the folder.

        Raises:
            FileExistsError: if it holds something, unless it is a run that may be overwritten.
        """
        if self.path.exists() and (not self.path.is_dir() or not self._is_beginning()):
            is_run = (self / "config.json").exists()
            if not (overwrite and is_run):
                what = "already holds a run" if is_run else "exists and is no run"
                ways = "Continue it with --resume, replace it with --overwrite, or choose" if is_run else "Choose"
                raise FileExistsError(f"{self.path} {what}. {ways} another folder with --out.")
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)

    def _is_beginning(self):
        """Whether there is nothing in the folder, or what a run left that was killed before it had begun."""
        return all(path.name in _START or is_beside(path) for path in self.path.iterdir())

    def read_config(self) -> dict[str, Any]:
        """What `config.json` holds.

        Raises:
            FileNotFoundError: if this is no run.
            ValueError: if a newer version wrote it.
        """
        path = self / "config.json"
        if not path.exists():
            raise FileNotFoundError(f"{self.path} is no run: it has no config.json. Make one with zoo train.")
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["format"] > FORMAT_VERSION:
            raise ValueError(
                f"{path} has format {config['format']}; this version reads up to {FORMAT_VERSION}. Upgrade mmkeras."
            )
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes `config.json`."""
        write_json(self / "config.json", {"format": FORMAT_VERSION, **config})

    def save_model(self, name: str, model: keras.Model) -> None:
        """Writes a model as `<name>.keras`."""
        with replaced(self / f"{name}.keras") as beside:
            model.save(beside)

    def load_model(self, name: str) -> keras.Model | None:
        """The model `<name>.keras`, or None where there is none."""
        path = self / f"{name}.keras"
        return keras.models.load_model(path, compile=False) if path.exists() else None

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes `history.csv`, a dict a row."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        with replaced(self / "history.csv") as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    def save_checkpoint(
        self, model: keras.Model, epoch: int, step: int, history: Sequence[Mapping[str, float]], metrics: bool = True
    ) -> None:
        """Writes everything that training goes on from.

        Args:
            model: built and compiled; its variables, optimisers, random state and metrics are kept.
            epoch, step: epochs done, and steps done of the next one.
            history: the rows of the epochs that are done.
            metrics: whether what the metrics have counted of the epoch is kept as well: with several processes it
                lies scattered among them.

        Raises:
            FloatingPointError: if a weight is not a finite number; the checkpoints that are there stay.
        """
        named = _named_state(model, metrics and step > 0)
        state = {name: keras.ops.convert_to_numpy(variable) for name, variable in named}
        if not all(np.isfinite(value).all() for value in state.values() if value.dtype.kind == "f"):
            raise FloatingPointError(f"A weight is no longer a finite number after epoch {epoch}, step {step}.")
        position: dict[str, Any] = {"epoch": epoch, "step": step, "history": json.dumps(history)}
        path = self / "checkpoints" / f"epoch-{epoch:05d}-step-{step:06d}.npz"
        with replaced(path) as beside:
            np.savez(beside, **position, **state)
        written = self.checkpoints()
        newest = written.index(path) + 1
        for other in (*written[: max(newest - _KEPT, 0)], *written[newest:]):  # later ones could not be read
            other.unlink()

    def checkpoints(self) -> list[pathlib.Path]:
        """Paths of the checkpoints, the oldest first."""
        return sorted((self / "checkpoints").glob("epoch-*.npz"))

    def restore_checkpoint(self, model: keras.Model) -> tuple[int, int, list[dict[str, float]]]:
        """Puts the newest readable checkpoint into a built and compiled model.

        Returns:
            (epoch, step, history): epochs done, steps done of the next one, and the rows of the epochs;
            (0, 0, []) where there is no checkpoint.

        Raises:
            ValueError: if the checkpoint belongs to another model, or there are some and none can be read.
        """
        for path in reversed(self.checkpoints()):
            try:
                with path.open("rb") as opened, np.load(opened) as file:
                    state = {name: file[name] for name in file.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                if getattr(error, "errno", None):  # the system's: the file may be whole
                    raise
                print(f"skipped a checkpoint that cannot be read: {path} ({error})")
                continue
            epoch, step, history = int(state.pop("epoch")), int(state.pop("step")), str(state.pop("history"))
            variables = dict(_named_state(model, any(name.startswith("metric") for name in state)))
            shapes = [{name: tuple(value.shape) for name, value in values.items()} for values in (variables, state)]
            if shapes[0] != shapes[1]:
                raise ValueError(f"{path} belongs to another model than {self / 'config.json'} describes.")
            for name, variable in variables.items():
                variable.assign(state[name])
            return epoch, step, json.loads(history)
        if self.checkpoints():
            raise ValueError(f"No checkpoint in {self / 'checkpoints'} can be read. Train anew with --overwrite.")
        return 0, 0, []


def _named_state(model, metrics):
    """`(name, variable)` of all that a checkpoint holds: `state_variables`, and what the metrics have counted."""
    for i, variable in enumerate(state_variables(model)):
        yield f"{i:05d}", variable
    for i, variable in enumerate(v for metric in model.metrics for v in metric.variables) if metrics else ():
        yield f"metric-{i:05d}", variable


def state_variables(model):
    """All variables of a model and its optimisers, the state of its random seeds included, those of metrics not."""
    optimizers = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    variables = [*model.variables, *(v for optimizer in optimizers for v in optimizer.variables)]
    return list({id(v): v for v in variables if id(v) not in metrics}.values())
