"""A search index inside a SavedModel."""

import tensorflow as tf

from mmkeras.export.signatures import Signature


class SearchIndex(tf.Module):
    """Unit embeddings and ids of a gallery.

    Args:
        embeddings: `(items, dim)` of length one.
        ids: list of strings, one an item.
    """

    def __init__(self, embeddings, ids):
        super().__init__()
        self.embeddings = tf.Variable(embeddings, trainable=False, dtype=tf.float32)
        self.ids = tf.Variable(ids, trainable=False, dtype=tf.string)

    def search(self, queries, k):
        """Ids and cosine similarities `(batch, k)` of the nearest items to unit queries `(batch, dim)`."""
        scores, places = tf.math.top_k(tf.matmul(queries, self.embeddings, transpose_b=True), k=k)
        return {"ids": tf.gather(self.ids.value(), places), "scores": scores}


def search_signature(index, encode, k=10):
    """The signature `search`: what `encode` (a Signature) takes in, the ids and scores of the nearest `k` out."""
    k = min(k, int(index.embeddings.shape[0]))

    def search(raw):
        return index.search(encode.function(raw)["embedding"], k)

    return Signature(search, encode.inputs)
