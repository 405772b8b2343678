"""Texts to token ids, inside the graph."""

import collections

import keras
import tensorflow as tf

PADDING, UNKNOWN, START, END = "", "[UNK]", "[START]", "[END]"
SPECIAL = (PADDING, UNKNOWN, START, END)
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}]"  # scripts that set no spaces between words
# What `punctuation="strip"` removes and "separate" sets apart: ASCII punctuation and the common CJK marks.
_PUNCTUATION = r"[!\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~'。、，！？：；（）「」]"


@keras.saving.register_keras_serializable(package="mmkeras")
class TokenizeText(keras.layers.Layer):
    """Texts `(batch,)` to ids `(batch, length)`: words, then [END], then padding (0).

    Id 1 stands for words out of the vocabulary. A text that is too long loses its last words. An empty text is
    [END] alone, so that no row is all padding.

    Args:
        length: number of ids, [END] counted.
        vocabulary: the words, without the special ones; empty until fitted (`mmkeras.data.adapt`).
        unit: `"words"`, split at white space, Chinese and Japanese characters a token each; or `"characters"`.
        lower: whether to lower the case.
        punctuation: `"separate"` makes a token of each mark, `"strip"` removes them, `"keep"` leaves them.

    Example:

    >>> layer = TokenizeText(5, vocabulary=["red", "circle"])
    >>> layer(np.array(["Red circle!"])).numpy().tolist()
    [[4, 5, 1, 3, 0]]
    """

    def __init__(self, length, vocabulary=(), unit="words", lower=True, punctuation="separate", **kwargs):
        super().__init__(**kwargs)
        if unit not in ("words", "characters"):
            raise ValueError(f"Expected unit to be 'words' or 'characters'. Received: unit={unit!r}")
        if punctuation not in ("separate", "strip", "keep"):
            raise ValueError(
                f"Expected punctuation to be 'separate', 'strip' or 'keep'. Received: punctuation={punctuation!r}"
            )
        self.length = length
        self.unit = unit
        self.lower = lower
        self.punctuation = punctuation
        self.table = None
        self.words = ()
        if vocabulary:
            self.set_vocabulary(vocabulary)

    @property
    def vocabulary(self):
        """All tokens by their id, the special ones first."""
        return (*SPECIAL, *self.words)

    def set_vocabulary(self, words):
        """Makes `words` (without the special ones) the vocabulary."""
        self.words = tuple(words)
        with tf.init_scope():
            keys = tf.constant(self.vocabulary[1:])
            ids = tf.range(1, len(self.vocabulary), dtype=tf.int32)
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, ids), default_value=1)

    def split(self, texts):
        """Texts `(batch,)` to a ragged tensor of tokens `(batch, None)`."""
        texts = tf.strings.lower(texts, encoding="utf-8") if self.lower else texts
        if self.punctuation == "strip":
            texts = tf.strings.regex_replace(texts, _PUNCTUATION, " ")
        elif self.punctuation == "separate" and self.unit == "words":  # a character stands apart as it is
            texts = tf.strings.regex_replace(texts, _PUNCTUATION, r" \0 ")
        if self.unit == "characters":
            texts = tf.strings.regex_replace(tf.strings.strip(texts), r"\s+", " ")
            return tf.strings.unicode_split(texts, "UTF-8", errors="replace")
        return tf.strings.split(tf.strings.regex_replace(texts, _UNSPACED, r" \0 "))

    def count(self, texts):
        """A Counter of the tokens in a NumPy array of texts."""
        tokens = self.split(tf.constant(texts)).flat_values.numpy()
        return collections.Counter(token.decode("utf-8", "replace") for token in tokens)

    def call(self, texts):
        if self.table is None:
            raise ValueError(
                "The tokeniser has no vocabulary. Fit it on training texts first: mmkeras.data.adapt(preprocessor, "
                "source.train)."
            )
        tokens = self.split(texts)[:, : self.length - 1]
        ids = tf.ragged.map_flat_values(self.table.lookup, tokens)
        end = tf.fill([tf.shape(texts)[0], 1], SPECIAL.index(END))
        ids = tf.concat([ids, tf.cast(end, tf.int32)], axis=1)
        return ids.to_tensor(shape=(None, self.length))

    def texts(self, ids):
        """Ids `(batch, length)` back to texts `(batch,)`, each read up to its [END], in the graph.

        Marks that were set apart stand at the word before again: "a circle, a ring". The rest is as it was tokenised.
        """
        ended = tf.cumsum(tf.cast(tf.equal(ids, SPECIAL.index(END)), tf.int32), axis=-1) > 0
        said = ~ended & (ids != SPECIAL.index(PADDING)) & (ids != SPECIAL.index(START))
        words = tf.ragged.boolean_mask(tf.gather(tf.constant(self.vocabulary), ids), said)
        if self.unit == "characters":
            return tf.strings.reduce_join(words, axis=-1)
        joined = tf.strings.reduce_join(words, axis=-1, separator=" ")
        for _ in range(2):  # the second time those whose neighbour was joined to another the first time
            joined = tf.strings.regex_replace(joined, f"({_UNSPACED}) ({_UNSPACED})", r"\1\2")
        if self.punctuation != "separate":
            return joined
        joined = tf.strings.regex_replace(joined, r" ([,.;:!?%)\]}])", r"\1")
        return tf.strings.regex_replace(joined, r"([(\[{]) ", r"\1")

    def compute_output_spec(self, texts):
        return keras.KerasTensor((texts.shape[0], self.length), dtype="int32")

    def get_config(self):
        return {
            **super().get_config(),
            "length": self.length,
            "vocabulary": list(self.words),
            "unit": self.unit,
            "lower": self.lower,
            "punctuation": self.punctuation,
        }
