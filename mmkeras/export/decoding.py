"""Texts word after word, inside a graph: the best ones by beam search, or drawn from the nucleus.

A decoder is a function `logits_of(words, t, state)` to `(logits, state)`: token ids `(rows, length)`, of which those
before `t` are written, and a list of tensors `(rows, ...)` of its own, to the logits `(rows, vocabulary)` of word `t`
and the next state (`mmkeras.decoders.word_by_word`).
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from mmkeras.layers.tokenize_text import END, PADDING, SPECIAL, START, UNKNOWN

Decoder = Callable[[tf.Tensor, tf.Tensor, list[tf.Tensor]], tuple[tf.Tensor, Sequence[tf.Tensor]]]
_END = SPECIAL.index(END)
_NEVER = [SPECIAL.index(word) for word in (PADDING, UNKNOWN, START)]
_IMPOSSIBLE = -1e9


def beam_search(
    logits_of: Decoder,
    state: Sequence[tf.Tensor],
    batch: int | tf.Tensor,
    length: int,
    width: int = 4,
    length_penalty: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best texts that a beam of some width finds.

    A text's score is its log-probability, [END] included, divided by `((5 + words) / 6) ** length_penalty` (Wu 2016).
    A text that reaches the last place ends there. Width 1 is greedy search.

    Args:
        logits_of, state: the decoder and its first state; its row `b * width + k` is the beam `k` of row `b`.
        batch: number of rows.
        length: number of words, [END] counted.
        width: texts kept.
        length_penalty: 0 favours short texts, 1 compares texts by their mean log-probability.

    Returns:
        Token ids `(batch, width, length)` with padding after [END], the best first, and scores `(batch, width)`.
    """

    def step(t, words, total, ended, *state):
        logits, state = logits_of(tf.reshape(words, (-1, length)), t, list(state))
        now = tf.reshape(_log_probabilities(logits, t, length), (batch, width, -1))
        size = tf.shape(now)[-1]
        # A text that has ended goes on with padding, at no cost.
        padding = tf.one_hot(0, size, on_value=0.0, off_value=_IMPOSSIBLE)
        now = tf.where(ended[..., None], padding, now)
        candidates = tf.reshape(total[..., None] + now, (batch, -1))
        spoken = tf.cast(tf.math.count_nonzero(words, axis=-1), tf.float32) + tf.where(ended, 0.0, 1.0)
        penalty = tf.repeat(_penalty(spoken, length_penalty), size, axis=-1)
        _, best = tf.math.top_k(candidates / penalty, k=width)
        beam, word = best // size, best % size
        row = tf.reshape(beam + tf.range(batch)[:, None] * width, (-1,))
        column = tf.one_hot(t, length, dtype=tf.int32)
        words = tf.gather(words, beam, axis=1, batch_dims=1) + word[..., None] * column
        ended = tf.gather(ended, beam, axis=1, batch_dims=1) | (word == _END)
        total = tf.gather(candidates, best, axis=1, batch_dims=1)
        return t + 1, words, total, ended, *(tf.gather(value, row) for value in state)

    first = tf.where(tf.range(width) == 0, 0.0, _IMPOSSIBLE)  # all beams begin alike: one of them counts
    words = tf.zeros((batch, width, length), tf.int32)
    texts = [0, words, tf.tile(first[None], (batch, 1)), tf.zeros((batch, width), tf.bool)]
    _, words, total, *_ = _loop(step, [*texts, *state], length)
    spoken = tf.cast(tf.math.count_nonzero(words, axis=-1), tf.float32)
    return words, total / _penalty(spoken, length_penalty)


def nucleus_sample(
    logits_of: Decoder, state: Sequence[tf.Tensor], draws: tf.Tensor, share: float = 0.9, temperature: float = 1.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """A text a row, each word drawn from the likeliest ones that together have a share (Holtzman 2020).

    Args:
        logits_of, state: the decoder and its first state.
        draws: uniform numbers in 0..1, `(batch, length)`: where in the nucleus each word is taken.
        share: of the probability that the nucleus holds, above 0 to 1.
        temperature: above 1 flattens the probabilities, below 1 sharpens them.

    Returns:
        Token ids `(batch, length)` with padding after [END], and their log-probabilities under the model `(batch,)`.
    """
    batch, length = tf.shape(draws)[0], draws.shape[1]

    def step(t, words, total, ended, *state):
        logits, state = logits_of(words, t, list(state))
        now = _log_probabilities(logits, t, length)
        likely, order = tf.math.top_k(tf.nn.softmax(now / temperature), k=tf.shape(now)[-1])
        before = tf.cumsum(likely, axis=-1, exclusive=True)
        likely = tf.where(before < share, likely, 0.0)
        reached = tf.cumsum(likely, axis=-1) > draws[:, t, None] * tf.reduce_sum(likely, axis=-1, keepdims=True)
        place = tf.argmax(reached, axis=-1, output_type=tf.int32)[:, None]
        word = tf.where(ended, 0, tf.gather(order, place, batch_dims=1)[:, 0])
        total += tf.where(ended, 0.0, tf.gather(now, word[:, None], batch_dims=1)[:, 0])
        words += word[:, None] * tf.one_hot(t, length, dtype=tf.int32)
        return t + 1, words, total, ended | (word == _END), *state

    texts = [0, tf.zeros((batch, length), tf.int32), tf.zeros((batch,)), tf.zeros((batch,), tf.bool)]
    _, words, total, *_ = _loop(step, [*texts, *state], length)
    return words, total


def _loop(step, state, length):
    state = [tf.convert_to_tensor(value) for value in state]
    open_batch = [tf.TensorShape([]), *(tf.TensorShape([None, *value.shape[1:]]) for value in state[1:])]
    return tf.while_loop(
        lambda t, words, total, ended, *_: (t < length) & ~tf.reduce_all(ended), step, state, open_batch
    )


def _log_probabilities(logits, t, length):
    """Log-probabilities of the words; padding, [UNK] and [START] are never said, and the last word is [END]."""
    now = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    words = tf.range(tf.shape(now)[-1])
    never = tf.reduce_any(words[:, None] == tf.constant(_NEVER), axis=-1)
    never |= (t == length - 1) & (words != _END)
    return tf.where(never, _IMPOSSIBLE, now)


def _penalty(num_words, strength):
    return ((5.0 + num_words) / 6.0) ** strength
