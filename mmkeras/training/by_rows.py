"""Contrast in batches whose matrix of all pairs has no room in memory."""

from keras import ops

from mmkeras.losses.contrastive import softmax_rows


def clip_by_rows(a, b, positive, valid, scale, rows):
    """`mmkeras.losses.clip` of unit vectors `(batch, dim)`, some rows of their similarities at a time, on TensorFlow.

    A large batch has no room for the whole matrix and all that is computed of it: what the gradient needs of some rows
    is used as soon as their loss is known (as of a large vocabulary's cross-entropy, Wijmans 2024).

    Args:
        a, b: the first views and the second.
        positive, valid, scale: see `mmkeras.losses.clip`.
        rows: how many at a time.
    """
    import tensorflow as tf

    count = tf.shape(a)[0]
    share = 0.5 / tf.maximum(tf.reduce_sum(tf.cast(valid, a.dtype)), 1.0)

    def loss_from(at, a, b, scale):
        here = slice(at, at + rows)
        across = softmax_rows(ops.matmul(a[here], ops.transpose(b)) * scale, positive[here], valid)
        own = ops.transpose(positive[:, here])
        down = softmax_rows(ops.matmul(b[here], ops.transpose(a)) * scale, own, valid)
        return share * tf.reduce_sum(tf.where(valid[here], across + down, 0.0))

    @tf.custom_gradient
    def whole(*given):
        def step(at, loss, slopes):
            with tf.GradientTape() as tape:
                tape.watch(given)
                part = loss_from(at, *given)
            found = tape.gradient(part, given)
            return at + rows, loss + part, [slope + more for slope, more in zip(slopes, found, strict=True)]

        start = (0, tf.zeros((), a.dtype), [tf.zeros_like(x) for x in given])
        _, loss, slopes = tf.while_loop(lambda at, *_: at < count, step, start, parallel_iterations=1)
        return loss, lambda upstream: [upstream * slope for slope in slopes]

    return whole(a, b, scale)
