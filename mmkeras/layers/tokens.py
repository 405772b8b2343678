"""Token ids to token ids: what a decoder is told of the words before."""

import keras
from keras import ops

START = 2  # mmkeras.layers.tokenize_text.SPECIAL; that file needs TensorFlow


@keras.saving.register_keras_serializable(package="mmkeras")
class ShiftRight(keras.layers.Layer):
    """Token ids `(batch, length)` to the ids before each: [START], and all but the last.

    Example:

    >>> ShiftRight()(np.array([[7, 8, 3]])).numpy().tolist()
    [[2, 7, 8]]
    """

    def call(self, ids):
        return ops.concatenate([ops.full_like(ids[:, :1], START), ids[:, :-1]], axis=1)

    def compute_output_shape(self, ids_shape):
        return ids_shape


@keras.saving.register_keras_serializable(package="mmkeras")
class ScheduledSampling(keras.layers.Layer):
    """Token ids `(batch, length)` and their logits to ids, some of them drawn from the logits, in training only.

    So that a decoder learns to go on after its own words (Bengio 2015), here with the words of a first pass over the
    true ones (Mihaylova and Martins 2019). The share of drawn words rises linearly to `rate`. Padding stays.

    Args:
        rate: largest probability of replacing a word, 0 to 1.
        ramp: training steps until then.
        seed: of the draw.
    """

    def __init__(self, rate, ramp=1000, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.ramp = ramp
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, ids_shape, logits_shape):
        self.steps = self.add_weight(name="steps", shape=(), initializer="zeros", trainable=False)

    def call(self, ids, logits, training=None):
        if not training:
            return ids
        self.steps.assign_add(1.0)
        rate = ops.cast(self.rate * ops.minimum(self.steps / self.ramp, 1.0), "float32")
        batch, length, size = ops.shape(logits)
        drawn = keras.random.categorical(ops.reshape(logits, (-1, size)), 1, seed=self.seed_generator)
        drawn = ops.cast(ops.reshape(drawn, (batch, length)), ids.dtype)
        replaced = keras.random.uniform((batch, length), dtype="float32", seed=self.seed_generator) < rate
        return ops.where(ops.logical_and(replaced, ids != 0), drawn, ids)

    def compute_output_shape(self, ids_shape, logits_shape):
        return ids_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "ramp": self.ramp, "seed": self.seed}
