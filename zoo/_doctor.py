"""What ails a run: its model on its own data."""

import csv
import pathlib

import numpy as np
import tensorflow as tf

from mmkeras import data as sources
from mmkeras import diagnosis

NUM_ROWS = 256  # of the validation split that are looked at
FEWEST_ROWS = 20  # below, what a modality seems to bring is the luck of a row or two


def examine(run):
    """Looks at a run's model, history and data.

    Args:
        run: a trained Run.

    Returns:
        `(measured, faults)`: `{what: {name: number}}`, and a line of advice for each fault.

    Raises:
        ValueError: if the model is two networks against each other.
    """
    x, y = one_batch(run, run.split("validation"))
    names = [n for n in run.config.names if n in run.model.input]
    measured, faults = {}, list(diagnosis.collapsed_embeddings(run.model(x, training=False)))
    measured["share of the gradient"] = diagnosis.gradient_shares(run.model, x, y, names)
    faults += diagnosis.small_shares(measured["share of the gradient"])
    faults += diagnosis.dead_modalities(run.model, x, names)
    output = next((n for n in ("label", "answer") if n in (y or {}) and n in run.model.output and y[n].ndim == 1), None)
    if output:
        asked = getattr(run.config, "sources", names)  # of multitask, whose text is one of the answers
        told = np.flatnonzero(diagnosis.told_rows(run.model, output, y))
        given = run.model, {name: tf.gather(value, told) for name, value in x.items()}, np.array(y[output])[told]
        measured["accuracy"] = diagnosis.accuracies(*given, output, asked, run.config.names)
        rows = len(told)
        if rows >= FEWEST_ROWS:
            faults += diagnosis.useless_modalities(measured["accuracy"], asked)
        elif len(asked) > 1:
            faults.append(
                f"With {rows} rows the validation split is too small to tell what each modality brings. Give it "
                f"{FEWEST_ROWS} or more."
            )
    history = pathlib.Path(run.stored, "history.csv")
    if history.exists():  # weights that come with the zoo have none
        with history.open(encoding="utf-8") as file:
            last = {key: float(value) for key, value in list(csv.DictReader(file))[-1].items() if value}
        batch_size = min(run.config.batch_size, len(run.source.train))
        faults += diagnosis.stuck_losses(last, diagnosis.chances(run.model, batch_size))
    return measured, faults + list(_shared_rows(run))


def one_batch(run, split):
    """A batch of a split to look at: `(inputs, targets or None)`.

    Raises:
        ValueError: if the model is two networks against each other.
    """
    if not hasattr(run.model, "matched"):
        raise ValueError(f"The doctor looks at models of one network. {run.path} holds a run of `{run.name}`.")
    if hasattr(run.module, "order"):
        rows = run.module.order(run.config, split, run.seed, 0)[: run.config.batch_size]
    else:
        rows = list(range(min(NUM_ROWS, len(split))))
    ((x, *y),) = run.batches(split.take(rows), batch_size=len(rows))
    hidden = run.model.hide(x, run.seed) if hasattr(run.model, "hide") else {}
    return {**hidden, **x}, y[0] if y else None


def _shared_rows(run):
    """Test rows that were trained on; only where a modality is more than a text, which may well come twice."""
    names = run.config.names
    if not any(run.config.modalities[n] in sources.ENCODED for n in names):
        return
    train = _contents(run, run.split("train"), names)
    for name in run.source.splits:
        if name.startswith("test"):
            yield from diagnosis.shared_rows(train, _contents(run, run.split(name), names), names)


def _contents(run, split, names):
    columns = {}
    for name in names:
        cells = split.cells(name)
        if run.config.modalities[name] in sources.ENCODED:
            cells = [sources.encoded(cell) for cell in cells]
        columns[name] = cells
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    looked = [name for name in names if run.config.modalities[name] in sources.ENCODED]
    return [row for row in rows if any(len(row[name]) for name in looked)]  # without one, a text is left
