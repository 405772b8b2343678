"""Relations between pairs of objects."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="mmkeras")
class Relations(layers.Layer):
    """Objects `(batch, objects, width)` and a question `(batch, dim)` to what all pairs say, and each object's share.

    The core of a relation network (Santoro 2017): the sum of `g(object_i, object_j, question)` over i and j, here over
    the number of objects, where g is two dense layers. The order of the objects does not matter. An object's share is
    how large its pairs' answers are.

    Args:
        units: size of both layers of g.

    Returns:
        `(batch, units)` and `(batch, objects)`.

    Example:

    >>> pairs, shares = Relations(4)(np.ones((2, 5, 3)), np.ones((2, 7)))
    >>> pairs.shape, shares.shape
    (TensorShape([2, 4]), TensorShape([2, 5]))
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, objects_shape, question_shape):
        # The first layer of g over the three beside each other is a sum of three: computed once an object, not a pair.
        self.first = layers.Dense(self.units, use_bias=False, name="first")
        self.second = layers.Dense(self.units, use_bias=False, name="second")
        self.question = layers.Dense(self.units, name="question")
        self.hidden = layers.Dense(self.units, activation="relu", name="hidden")
        self.first.build(objects_shape)
        self.second.build(objects_shape)
        self.question.build(question_shape)
        self.hidden.build((None, None, None, self.units))

    def call(self, objects, question):
        first, second = self.first(objects), self.second(objects)
        pairs = first[:, :, None] + second[:, None] + self.question(question)[:, None, None]
        pairs = self.hidden(ops.relu(pairs))  # (batch, objects, objects, units)
        sizes = ops.sum(ops.mean(pairs, axis=2), axis=-1) + ops.sum(ops.mean(pairs, axis=1), axis=-1)
        # Of the sum: a mean of all pairs, of which few are asked about, hardly differs from one picture to another.
        said = ops.sum(ops.mean(pairs, axis=2), axis=1)
        return said, sizes / ops.maximum(ops.sum(sizes, axis=-1, keepdims=True), 1e-6)

    def compute_output_shape(self, objects_shape, question_shape):
        return (objects_shape[0], self.units), tuple(objects_shape[:2])

    def get_config(self):
        return {**super().get_config(), "units": self.units}
