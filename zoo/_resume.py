"""Going on with a run: what has to be as it was."""

import os
import pathlib

from mmkeras import training
from zoo._run import load


def resumed(folder, name, data, columns, hyperparameters, mixed_precision):
    """The run that lies in a folder, to be trained on; a ValueError if anything but `epochs` is to be another."""
    run = load(folder.path, needs_model=False)
    if run.name != name:
        raise ValueError(f"{folder.path} holds a run of `{run.name}`, not of `{name}`.")
    changes = {key: value for key, value in hyperparameters.items() if getattr(run.config, key, None) != value}
    if set(changes) - {"epochs"}:
        raise ValueError(
            f"A run is resumed with its own hyperparameters; only --epochs may change. Received: {changes}."
        )
    if mixed_precision not in (None, run.mixed_precision):
        raise ValueError(
            f"A run is resumed in its own precision, {run.mixed_precision or 'float32'}. Received: {mixed_precision}."
        )
    if data is not None and relative(data, folder.path) != relative(run.data, folder.path):
        raise ValueError(f"A run is resumed with its own data, {run.data}: leave --data out. Received: {data}.")
    if columns and dict(columns) != run.columns:
        raise ValueError(
            f"A run is resumed with its own columns, {run.columns}: leave --columns out. Received: {columns}."
        )
    run.config = run.config.replace(**changes)
    training.set_seed(run.seed, run.deterministic)
    return run


def check_rows(run, folder, rows):
    """Raises ValueError if a run that is resumed would be trained on another number of rows than it began with."""
    before = folder.read_config().get("rows", rows)
    if before != rows:
        raise ValueError(
            f"The data of {folder.path} have changed: it began with {before} rows that it can use, now there are "
            f"{rows}. Bring them back, or begin anew with --overwrite."
        )


def relative(name, folder):
    """A source's name as it stands in a run: paths as seen from the run's folder, the rest as it is."""
    name = str(name).removeprefix("path:")
    if pathlib.Path(name).exists():
        return "path:" + pathlib.Path(os.path.relpath(name, folder)).as_posix()
    return name
