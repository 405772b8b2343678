"""Modalities left out at random in training, so that a model learns to do without each of them."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class ModalityDropout(keras.layers.Layer):
    """Presence `(batch, modalities)` to presence with some modalities left out, in training only.

    Each modality of a row is dropped with probability `rate` (ModDrop, Neverova 2015). A row that would lose all
    of them keeps the ones it had.

    Args:
        rate: probability of dropping a modality, at least 0 and less than 1.
        seed: seed of the draw.

    Example:

    >>> ModalityDropout(0.5)(np.ones((1, 3)), training=False).numpy().tolist()
    [[1.0, 1.0, 1.0]]
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(
                f"Invalid value received for argument rate. Expected at least 0 and less than 1. Received: rate={rate}"
            )
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, presence, training=None):
        if not training or self.rate == 0:
            return presence
        draw = keras.random.uniform(ops.shape(presence), seed=self.seed_generator)
        kept = presence * ops.cast(draw >= self.rate, presence.dtype)
        return ops.where(ops.any(kept > 0, axis=-1, keepdims=True), kept, presence)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
