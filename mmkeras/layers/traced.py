"""Graphs that the layers of one configuration share."""

import functools

import tensorflow as tf


def traced_once(method):
    """A layer's method from strings `(batch,)`, which hangs on the layer's configuration alone, traced once.

    Wherever it is part of a graph, it is the same graph for all layers of that configuration: to trace how a picture is
    decoded takes a second, and an export would do so for each of its signatures.
    """
    graphs = {}

    @functools.wraps(method)
    def call(layer, *strings):
        if tf.executing_eagerly():
            return method(layer, *strings)
        config = {key: value for key, value in layer.get_config().items() if key not in ("name", "dtype", "trainable")}
        key = type(layer), repr(config)
        if key not in graphs:
            specs = [tf.TensorSpec((None,), tf.string)] * len(strings)
            graphs[key] = tf.function(functools.partial(method, layer), input_signature=specs, autograph=False)
        return graphs[key](*strings)

    return call
