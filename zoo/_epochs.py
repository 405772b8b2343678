"""The batches of an epoch: their order, soft labels and weights."""

import numpy as np
import tensorflow as tf

from mmkeras import data as sources
from zoo._teacher import with_soft_labels


def size_and_steps(run, split):
    """(rows a step, steps an epoch)."""
    order = order_of(run, split, 0)
    num_rows = len(split) if order is None else len(order)
    batch_size, (*_, count) = min(run.config.batch_size, num_rows), run.replicas
    if run.config.batch_size % count:
        raise ValueError(
            f"Expected a --batch-size that {count} replicas can share out evenly. Received: {run.config.batch_size}. "
            f"Take {run.config.batch_size // count * count or count}."
        )
    batch_size -= batch_size % count
    return batch_size, num_rows // batch_size


def order_of(run, split, epoch):
    """The rows of an epoch, where the model has an order of its own, or there is a curriculum; None otherwise."""
    if hasattr(run.module, "order"):
        return run.module.order(run.config, split, run.seed, epoch)
    if epoch < run.config.curriculum and split.name == "train":
        return _short_ones(run, split, epoch)
    return None


def _short_ones(run, split, epoch):
    """As many rows as the split has, of those with the shortest texts alone (curriculum learning, Bengio 2009)."""
    lengths = np.zeros(len(split))
    for name in run.config.of_kind("text"):
        lengths += [max(len(text.split()) for text in ([cell] if isinstance(cell, str) else cell)) if cell else 0
                    for cell in split.cells(name)]  # fmt: skip
    count = -(-len(split) * (epoch + 1) // (run.config.curriculum + 1))
    shortest = np.argsort(lengths, kind="stable")[:count]
    random = np.random.default_rng([run.seed, epoch])
    times = -(-len(split) // count)
    return np.concatenate([random.permutation(shortest) for _ in range(times)])[: len(split)]


def epoch_batches(run, split, soft, weights, epoch, first_step=0):
    """Batches of an epoch from a step on, with soft labels and weights where there are any."""
    batch_size = size_and_steps(run, split)[0]
    order = order_of(run, split, epoch)
    order = sources.shuffled(len(split), run.seed, epoch) if order is None else order
    dataset = sources.batches(
        split, run.preprocessor, batch_size, training=True, seed=run.seed, epoch=epoch, drop_remainder=True,
        order=order, first_step=first_step, replicas=run.replicas, service=run.data_service,
    )  # fmt: skip
    if soft:
        rows, _ = sources.row_numbers(order, batch_size, True, first_step, run.replicas)
        dataset = with_soft_labels(dataset, soft[split.name], rows)
    if weights is not None:
        dataset = dataset.map(lambda x, y: (x, y, dict.fromkeys(y, tf.gather(weights, y["label"]))))
    return dataset


def validation_batches(run, split, soft):
    """Batches of a split in its order, with soft labels where there are any."""
    order = order_of(run, split, 0)
    order = np.arange(len(split)) if order is None else order
    options = {"batch_size": run.config.batch_size, "replicas": run.replicas}
    dataset = sources.batches(split, run.preprocessor, training=False, order=order, **options)
    if soft:
        dataset = with_soft_labels(dataset, soft[split.name], sources.row_numbers(order, **options)[0])
    return dataset


def class_weights(run, split):
    """Weights of the labels, inverse to how often they occur, one on average over the rows; or None."""
    if getattr(run.config, "class_weight", "none") == "none":
        return None
    counts = np.array([split.cells("label").count(label) for label in run.labels], dtype="float32")
    return tf.constant(counts.sum() / (len(counts) * counts))
