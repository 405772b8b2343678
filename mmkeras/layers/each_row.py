"""Encoded rows read one by one, inside the graph, and errors that say which row is to blame."""

import tensorflow as tf


def refused(fault, names):
    """An operation that fails if there is a fault, saying the first one behind the name of its row, both `(batch,)`."""
    bad = tf.not_equal(fault, "")
    said = tf.boolean_mask(tf.strings.join([names, fault], " "), bad)[:1]
    return tf.debugging.Assert(~tf.reduce_any(bad), [tf.strings.reduce_join(said)], summarize=1)


def each_row(function, rows, spec, at_once=True, names=None):
    """`tf.map_fn` over a tuple of rows, whose results are as `spec` says.

    Args:
        at_once: whether sixteen rows may be read at the same time, which takes memory; a tensor.
        names: of the rows, `(batch,)`: one that fails is then an error which says its name, but reading is slower;
            None for the error as it comes.
    """

    def mapped(number):
        if names is not None:
            return lambda: _named(function, rows, spec, number, names)
        return lambda: tf.map_fn(function, rows, fn_output_signature=spec, parallel_iterations=number)

    return tf.cond(tf.convert_to_tensor(at_once), mapped(16), mapped(1))


def _named(function, rows, spec, at_once, names):
    """A dataset is the one thing in a graph that goes on after an operation has failed: it leaves that row out."""
    numbers = tf.range(tf.size(names))
    found = tf.data.Dataset.from_tensor_slices((numbers, *rows))
    found = found.map(lambda number, *row: (number, function(row)), num_parallel_calls=at_once, deterministic=True)
    last = tf.data.Dataset.from_tensors((-1, tf.zeros(spec.shape, spec.dtype)))  # a batch has a row at least
    found = found.ignore_errors(log_warning=False).concatenate(last).batch(tf.size(names, tf.int64) + 1)
    options = tf.data.Options()  # what they do for long epochs costs a request more than its picture
    options.autotune.enabled = options.experimental_optimization.apply_default_optimizations = False
    good, values = found.with_options(options).get_single_element()
    lost = ~tf.reduce_any(tf.equal(numbers[:, None], good), axis=1)
    with tf.control_dependencies([refused(tf.where(lost, "cannot be decoded", ""), names)]):
        return tf.ensure_shape(values[:-1], (None, *spec.shape))
