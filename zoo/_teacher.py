"""A teacher: what a trained classifier thinks of the rows that another one is trained on."""

import dataclasses

import numpy as np
import tensorflow as tf

from mmkeras import data as sources
from zoo._run import load


def soft_labels(run, split):
    """Logits `(rows, classes)` of a run's teacher for the rows of a split, in the order of the run's own labels.

    The teacher sees its own modalities: other columns of the same rows.

    Raises:
        ValueError: if the teacher names no labels, or lacks one of the run's, or the split a column for it.
    """
    teacher = load(run.config.teacher)
    if teacher.label_names.get("label") != "label" or "label" not in teacher.model.output:
        raise ValueError(
            f"Expected a teacher that names one label a row. {teacher.path} holds a run of {teacher.name}."
        )
    known = list(teacher.preprocessor.reader("label").vocabulary)
    new = [label for label in run.labels if label not in known]
    if new:
        raise ValueError(
            f"The teacher {teacher.path} does not know the label {new[0]!r}. It knows: {', '.join(known)}."
        )
    missing = [name for name in teacher.preprocessor.input_names if name not in split.kinds]
    if missing:
        raise ValueError(
            f"The teacher {teacher.path} looks at `{missing[0]}`, which {run.data} lacks. It has: "
            f"{', '.join(split.kinds)}. Say which column it is with --columns {missing[0]}=NAME."
        )
    rows = split.replace({}, teacher.config.modalities)
    read = dataclasses.replace(teacher.preprocessor, targets=None, fitted=object())
    with sources.naming_rows(rows, read):
        found = [teacher.outputs(x)["label"].numpy() for (x,) in sources.batches(rows, read, training=False)]
    return np.concatenate(found)[:, [known.index(label) for label in run.labels]]


def with_soft_labels(dataset, logits, rows):
    """Batches `(inputs, targets)` with a target `soft_label` besides.

    Args:
        dataset: of the batches.
        logits: of all rows of the split.
        rows: the numbers of each batch's rows, see `mmkeras.data.row_numbers`.
    """
    return tf.data.Dataset.zip(dataset, tf.data.Dataset.from_tensor_slices(rows)).map(
        lambda batch, rows: (batch[0], {**batch[1], "soft_label": tf.gather(logits, rows)})
    )
