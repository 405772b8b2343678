"""Attribution: which places of a picture, which words and which modalities a score came from."""

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from mmkeras.types import Tensor


@contextlib.contextmanager
def intercepted(layer, change):
    """While it lasts, the layer's output goes through `change`; a model must be called eagerly, not in a graph."""
    own = layer.call

    def call(*args, **kwargs):
        return change(own(*args, **kwargs))

    layer.call = call
    try:
        yield
    finally:
        layer.call = own


def grad_cam(
    score: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    model: keras.Model,
    x: Mapping[str, Tensor],
    layer: str,
    shape: Sequence[int],
) -> np.ndarray:
    """Where in a picture a score comes from (Grad-CAM, Selvaraju 2017; as HiResCAM, Draelos 2020).

    Gradients are not averaged over the places before they meet the tokens: under a head that averages this is the same,
    and under one that tells places apart only this says where the score came from.

    Args:
        score: function from the model's outputs to `(batch,)`.
        model: a Functional model.
        x: inputs of the model.
        layer: name of the encoder, whose tokens `(batch, places, channels)` are the places row by row.
        shape: `(height, width, ..)` of the picture.

    Returns:
        Weights `(batch, rows, columns)`, none below zero.
    """
    seen = []
    with tf.GradientTape() as tape:

        def watch(tokens):
            tape.watch(tokens)
            seen.append(tokens)
            return tokens

        with intercepted(model.get_layer(layer), watch):
            scores = score(model(x, training=False))
    tokens, slopes = seen[-1], tape.gradient(scores, seen[-1], unconnected_gradients="zero")
    weights = tf.nn.relu(tf.reduce_sum(tokens * slopes, axis=-1)).numpy()
    places = weights.shape[1]
    divisors = [n for n in range(1, places + 1) if places % n == 0]
    rows = min(divisors, key=lambda n: abs(n * shape[1] - places // n * shape[0]))  # as long as the picture is high
    return weights.reshape(-1, rows, places // rows)


def integrated_gradients(
    score: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    model: keras.Model,
    x: Mapping[str, Tensor],
    layer: keras.layers.Layer,
    steps: int = 64,
) -> tuple[np.ndarray, float, float]:
    """How much each token of a text adds to a score (integrated gradients, Sundararajan 2017).

    The path leads from embeddings of zero to those of the words. The attributions of a row sum to the difference of
    the two scores, but for the error of `steps` steps.

    Args:
        score: function from the model's outputs to `(batch,)`.
        model: a Functional model.
        x: inputs of one row, `{name: (1, ..)}`.
        layer: the TokenEmbedding.
        steps: points on the path.

    Returns:
        `(attributions (length,), score of the row, score of the baseline)`.
    """
    shares = tf.constant((np.arange(steps) + 0.5) / steps, tf.float32)[:, None, None]
    many = {name: tf.repeat(value, steps, axis=0) for name, value in x.items()}
    seen = []
    with tf.GradientTape() as tape:

        def scale(embedded):
            seen.append((embedded, shares * embedded))
            tape.watch(seen[-1][1])
            return seen[-1][1]

        with intercepted(layer, scale):
            scores = tf.reduce_sum(score(model(many, training=False)))
    embedded, scaled = seen[-1]
    slopes = tape.gradient(scores, scaled, unconnected_gradients="zero")
    attributions = tf.reduce_sum(embedded[0] * tf.reduce_mean(slopes, axis=0), axis=-1).numpy()
    with intercepted(layer, tf.zeros_like):
        baseline = float(score(model(x, training=False))[0])
    return attributions, float(score(model(x, training=False))[0]), baseline


def shapley(value: Callable[[tuple[str, ...]], float], names: Sequence[str]) -> dict[str, float]:
    """Shapley values of players in a game (Shapley 1953): how much each adds, averaged over all orders to join.

    Args:
        value: function from a tuple of names, in their order, to a number.
        names: the players.

    Returns:
        `{name: number}`; they sum to `value` of all less `value` of none.

    Example:

    >>> shapley(lambda team: 6.0 * ("a" in team) + 2.0 * (len(team) == 2), ["a", "b"])
    {'a': 7.0, 'b': 1.0}
    """
    worth = {team: value(team) for size in range(len(names) + 1) for team in itertools.combinations(names, size)}
    found = {}
    for name in names:
        total = 0.0
        for team in worth:
            if name not in team:
                weight = math.factorial(len(team)) * math.factorial(len(names) - len(team) - 1)
                with_it = tuple(other for other in names if other in team or other == name)
                total += weight * (worth[with_it] - worth[team])
        found[name] = total / math.factorial(len(names))
    return found
