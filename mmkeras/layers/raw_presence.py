"""Which modalities a raw row has."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="mmkeras")
class RawPresence(keras.layers.Layer):
    """Raw values, a list of `(batch,)` strings or `(batch, dim)` vectors, to presence `(batch, modalities)`.

    An empty byte string, a text of nothing but spaces and a vector with a value that is not a number are absent.
    """

    def call(self, values):
        return tf.stack([tf.cast(_present(value), tf.float32) for value in values], axis=-1)

    def compute_output_spec(self, values):
        return keras.KerasTensor((values[0].shape[0], len(values)), dtype="float32")


def _present(value):
    if value.dtype == tf.string:
        # Pictures are not stripped: no picture begins with a space, and the first bytes decide at no cost.
        return tf.strings.length(tf.strings.strip(tf.strings.substr(value, 0, 256))) > 0
    return tf.reduce_all(tf.math.is_finite(value), axis=-1)
