"""Answers to targets: label names to class numbers, tags to zeros and ones, numbers to numbers."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="mmkeras")
class EncodeLabel(keras.layers.Layer):
    """Labels `(batch,)`, strings, to class numbers `(batch,)`; a label that is not in the vocabulary becomes -1.

    Args:
        vocabulary: the labels, in the order of their numbers; empty until fitted (`mmkeras.data.adapt`).

    Example:

    >>> EncodeLabel(["cat", "dog"])(np.array(["dog", "cow"])).numpy().tolist()
    [1, -1]
    """

    def __init__(self, vocabulary=(), **kwargs):
        super().__init__(**kwargs)
        self.vocabulary = ()
        self.table = None
        if vocabulary:
            self.set_vocabulary(vocabulary)

    def set_vocabulary(self, labels):
        """Makes `labels` the vocabulary."""
        self.vocabulary = tuple(labels)
        with tf.init_scope():
            keys, ids = tf.constant(self.vocabulary), tf.range(len(self.vocabulary), dtype=tf.int32)
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, ids), default_value=-1)

    def _lookup(self, labels):
        if self.table is None:
            raise ValueError(
                "The labels are not known. Fit them first: mmkeras.data.adapt(preprocessor, source.train)."
            )
        return self.table.lookup(labels)

    def call(self, labels):
        return self._lookup(labels)

    def compute_output_spec(self, labels):
        return keras.KerasTensor((labels.shape[0],), dtype="int32")

    def get_config(self):
        return {**super().get_config(), "vocabulary": list(self.vocabulary)}


@keras.saving.register_keras_serializable(package="mmkeras")
class EncodeTags(EncodeLabel):
    """Several labels a row, `(batch,)` strings with tabs between them, to zeros and ones `(batch, classes)`."""

    def call(self, labels):
        ids = tf.ragged.map_flat_values(self._lookup, tf.strings.split(labels, "\t"))
        one_hot = tf.one_hot(ids.to_tensor(-1), len(self.vocabulary))
        return tf.reduce_max(one_hot, axis=1)

    def compute_output_spec(self, labels):
        return keras.KerasTensor((labels.shape[0], len(self.vocabulary) or None), dtype="float32")


@keras.saving.register_keras_serializable(package="mmkeras")
class ReadNumber(keras.layers.Layer):
    """Numbers as they are written, strings `(batch,)`, to numbers `(batch,)`.

    Example:

    >>> ReadNumber()(np.array(["-0.5", "1"])).numpy().tolist()
    [-0.5, 1.0]
    """

    def call(self, numbers):
        return tf.strings.to_number(numbers, tf.float32)

    def compute_output_spec(self, numbers):
        return keras.KerasTensor((numbers.shape[0],), dtype="float32")
