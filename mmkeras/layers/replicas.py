"""Several replicas of a model, each with some rows of a batch: what one of them must know of the others.

A replica computes its share of a loss: the shares add up to the loss of the whole batch, and so do their gradients,
which the optimiser sums. Where there is one replica, and on backends other than TensorFlow, these functions do nothing.
"""

import keras
from keras import ops


def context():
    """TensorFlow's context of this replica, where there are several; None otherwise."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    found = tf.distribute.get_replica_context()
    return found if found is not None and found.num_replicas_in_sync > 1 else None


def count():
    """Number of replicas."""
    replica = context()
    return 1 if replica is None else replica.num_replicas_in_sync


def total(x):
    """The sum of a tensor over the replicas, without gradient; of a list that of each."""
    replica = context()
    return x if replica is None else replica.all_reduce("sum", keras.tree.map_structure(ops.stop_gradient, x))


def gathered(x):
    """The rows `(batch, ..)` of all replicas in their order; gradients reach the replica whose row it is."""
    replica = context()
    if replica is None:
        return x
    # A copy, as TensorFlow wants to know on which device it lies: what a graph is given lies nowhere yet.
    whole = replica.all_gather(ops.cast(x, "int32") if x.dtype == "bool" else ops.copy(x), axis=0)
    return ops.cast(whole, x.dtype)


def own(make, rows):
    """This replica's rows of what `make(number of rows of all)` gives: several draw what one would draw.

    Args:
        make: function from a number of rows to a tensor `(rows, ..)`.
        rows: number of this replica's.
    """
    replica = context()
    if replica is None:
        return make(rows)
    sizes = gathered(ops.reshape(ops.cast(rows, "int32"), (1,)))
    start = ops.sum(sizes[: replica.replica_id_in_sync_group])
    return make(ops.sum(sizes))[start : start + rows]


def share(rows):
    """The share of the batch's rows that this replica has; 1 where it is alone."""
    if context() is None:
        return 1.0
    rows = ops.cast(rows, keras.config.floatx())
    return rows / ops.maximum(total(rows), 1)


def mean(values, weights):
    """This replica's share of a weighted mean over the rows of all; 0 where no row counts.

    Args:
        values, weights: of one shape, such as `(batch,)`.
    """
    return ops.sum(values * weights) / ops.maximum(total(ops.sum(weights)), 1.0)
