"""Classification losses."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class LabelCrossentropy(keras.losses.Loss):
    """Cross-entropy of class numbers `(batch,)` with logits `(batch, classes)`, with label smoothing (Szegedy 2016).

    Args:
        label_smoothing: share of the target spread evenly over all classes.
    """

    def __init__(self, label_smoothing=0.0, name="label_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, labels, logits):
        labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
        loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        if self.label_smoothing:
            uniform = -ops.mean(ops.log_softmax(logits, axis=-1), axis=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * uniform
        return loss

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
