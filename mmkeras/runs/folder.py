"""The run folder: configuration, models, checkpoints, history, metrics, figures.

config.json          format version, model, preset, hyperparameters, data, seed, versions
preprocess.keras     raw bytes and strings to inputs
targets.keras        raw answers to targets, where the model has any
model.keras          the trained model
checkpoints/         the last two states of training, optimiser and random state included
history.csv          a row an epoch
logs/                the same for TensorBoard
metrics/SPLIT.json   what `zoo evaluate` found
figures/*.png
"""

import csv
import json
import pathlib
import shutil
import zipfile

import keras
import numpy as np

from mmkeras.runs.replace import replaced, write_json

FORMAT_VERSION = 1
_KEPT = 2  # checkpoints


class RunFolder:
    """One run's folder.

    Args:
        path: of the folder.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def __truediv__(self, name):
        return self.path / name

    def create(self, overwrite=False):
        """Makes the folder.

        Raises:
            FileExistsError: if it holds something, unless it is a run that may be overwritten.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            is_run = (self / "config.json").exists()
            if not (overwrite and is_run):
                what = "already holds a run" if is_run else "exists and is no run"
                ways = "Continue it with --resume, replace it with --overwrite, or choose" if is_run else "Choose"
                raise FileExistsError(f"{self.path} {what}. {ways} another folder with --out.")
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)

    def read_config(self):
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

    def write_config(self, config):
        """Writes `config.json`."""
        write_json(self / "config.json", {"format": FORMAT_VERSION, **config})

    def save_model(self, name, model):
        """Writes a model as `<name>.keras`."""
        with replaced(self / f"{name}.keras") as beside:
            model.save(beside)

    def load_model(self, name):
        """The model `<name>.keras`, or None where there is none."""
        path = self / f"{name}.keras"
        return keras.models.load_model(path, compile=False) if path.exists() else None

    def write_history(self, rows):
        """Writes `history.csv`, a dict a row."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        with replaced(self / "history.csv") as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    def save_checkpoint(self, model, epoch, history):
        """Writes everything that training goes on from: variables, optimisers, random state, epoch and history."""
        state = {f"{i:05d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(state_variables(model))}
        with replaced(self / "checkpoints" / f"epoch-{epoch:05d}.npz") as beside:
            np.savez(beside, epoch=epoch, history=json.dumps(history), **state)
        for old in self.checkpoints()[:-_KEPT]:
            old.unlink()

    def checkpoints(self):
        """Paths of the checkpoints, the oldest first."""
        return sorted((self / "checkpoints").glob("epoch-*.npz"))

    def restore_checkpoint(self, model):
        """Puts the newest readable checkpoint into a built and compiled model.

        Returns:
            (epoch, history): epochs done and their rows; (0, []) where there is no checkpoint.

        Raises:
            ValueError: if the checkpoint belongs to another model.
        """
        for path in reversed(self.checkpoints()):
            try:
                with path.open("rb") as opened, np.load(opened) as file:
                    state = {name: file[name] for name in file.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                print(f"skipped a checkpoint that cannot be read: {path} ({error})")
                continue
            epoch, history = int(state.pop("epoch")), json.loads(str(state.pop("history")))
            variables = state_variables(model)
            shapes = [tuple(v.shape) for v in variables]
            if shapes != [state[name].shape for name in sorted(state)]:
                raise ValueError(f"{path} belongs to another model than {self / 'config.json'} describes.")
            for variable, name in zip(variables, sorted(state), strict=True):
                variable.assign(state[name])
            return epoch, history
        return 0, []


def state_variables(model):
    """All variables of a model and its optimisers, the state of its random seeds included, each once.

    Those of metrics are left out: they begin anew every epoch.
    """
    optimizers = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    variables = [*model.variables, *(v for optimizer in optimizers for v in optimizer.variables)]
    return list({id(v): v for v in variables if id(v) not in metrics}.values())
