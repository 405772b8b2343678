"""A graph that lives on from one pass over a `tf.data.Dataset` to the next, since Python calls it.

Every iterator prepares the graphs of its dataset anew, which takes most of a second where pictures are decoded.
"""

import atexit
import threading
import time

import tensorflow as tf

_counts = {"begun": 0, "ended": 0}
_counting, _exiting = threading.Lock(), threading.Event()


def kept(graph, arguments):
    """What a graph gives, within a function that a dataset maps over its elements.

    Args:
        graph: a `tf.function` of one mapping; its result may depend on nothing else.
        arguments: `{name: tensor (batch, ..)}`.

    Raises:
        tf.errors.InvalidArgumentError: from the dataset, where the graph raises that.
    """
    open_batch = {name: tf.TensorSpec((None, *x.shape[1:]), x.dtype) for name, x in arguments.items()}
    concrete = graph.get_concrete_function(open_batch)

    def call(*values):
        with _counting:
            _counts["begun"] += 1
        try:
            if _exiting.is_set():
                raise ValueError("The process ends.")
            with tf.device("CPU"):
                return tf.nest.flatten(concrete(dict(zip(arguments, values, strict=True))))
        except tf.errors.InvalidArgumentError as error:  # what TensorFlow makes of a ValueError, too
            raise ValueError(error.message) from None
        finally:
            with _counting:
                _counts["ended"] += 1

    like = tf.nest.flatten(concrete.structured_outputs)
    outputs = tf.py_function(call, list(arguments.values()), [x.dtype for x in like])
    for x, expected in zip(outputs, like, strict=True):
        x.set_shape(expected.shape)
    return tf.nest.pack_sequence_as(concrete.structured_outputs, outputs)


@atexit.register
def _finish():
    """Lets the iterators that are left fill up, with errors: once Python is gone, their threads would wait for ever."""
    _exiting.set()
    before = None
    while before != _counts["begun"] or _counts["begun"] > _counts["ended"]:
        before = _counts["begun"]
        time.sleep(0.05 if before else 0)
