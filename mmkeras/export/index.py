"""A search index inside a SavedModel."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from mmkeras.export.signatures import Signature

_BLOCK = 128  # items


class SearchIndex(tf.Module):
    """Unit embeddings and ids of a gallery, searched exactly.

    Args:
        embeddings: `(items, dim)` of length one.
        ids: list of strings, one an item.

    Example:

    >>> index = SearchIndex([[1.0, 0.0], [0.0, 1.0]], ["east", "north"])
    >>> index.search(tf.constant([[0.6, 0.8]]), 1)["ids"].numpy().tolist()
    [[b'north']]
    """

    def __init__(self, embeddings: ArrayLike, ids: Sequence[str]) -> None:
        super().__init__()
        # Transposed, which multiplies twice as fast; the last item is repeated to whole blocks.
        padded = np.pad(np.asarray(embeddings, "float32"), ((0, -len(ids) % _BLOCK), (0, 0)), "edge")
        self.embeddings = tf.Variable(padded.T, trainable=False)
        self.ids = tf.Variable(ids, trainable=False, dtype=tf.string)

    def search(self, queries: tf.Tensor, k: int) -> dict[str, tf.Tensor]:
        """Ids and cosine similarities `(batch, k)` of the nearest items to unit queries `(batch, dim)`.

        Of items as near as each other the first comes first.
        """
        scores = tf.matmul(queries, self.embeddings)
        scores = tf.reshape(scores, (-1, scores.shape[1] // _BLOCK, _BLOCK))
        # The `k` largest lie in the `k` blocks with the largest maxima: the rest need not be put in order.
        count = min(k, scores.shape[1])
        blocks = tf.sort(tf.math.top_k(tf.reduce_max(scores, axis=-1), k=count).indices, axis=-1)
        places = blocks[:, :, None] * _BLOCK + tf.range(_BLOCK)
        near = tf.where(places < self.ids.shape[0], tf.gather(scores, blocks, batch_dims=1), -np.inf)
        scores, order = tf.math.top_k(tf.reshape(near, (-1, count * _BLOCK)), k=k)
        places = tf.gather(tf.reshape(places, (-1, count * _BLOCK)), order, batch_dims=1)
        return {"ids": tf.gather(self.ids.value(), places), "scores": scores}


def search_signature(index: SearchIndex, encode: Signature, k: int = 10) -> Signature:
    """The signature `search`: what `encode` (a Signature) takes in, the ids and scores of the nearest `k` out."""
    k = min(k, int(index.ids.shape[0]))

    def search(raw):
        return index.search(encode.function(raw)["embedding"], k)

    return Signature(search, encode.inputs)
