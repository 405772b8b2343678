"""Classification losses."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class LabelCrossentropy(keras.losses.Loss):
    """Cross-entropy of class numbers `(batch,)` with logits `(batch, classes)`, with label smoothing (Szegedy 2016).

    Args:
        label_smoothing: share of the target spread evenly over all classes.
        focusing: exponent of `1 - p`, `p` being the probability of the row's class, that the loss is multiplied with:
            what is known already counts less (focal loss, Lin 2017). 0 for plain cross-entropy.
        name: of the loss.
    """

    def __init__(
        self, label_smoothing: float = 0.0, focusing: float = 0.0, name: str = "label_crossentropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing
        self.focusing = focusing

    def call(self, labels, logits):
        labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
        loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        if self.label_smoothing:
            uniform = -ops.mean(ops.log_softmax(logits, axis=-1), axis=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * uniform
        if self.focusing:
            own = ops.take_along_axis(ops.softmax(logits, axis=-1), labels[:, None], axis=-1)[:, 0]
            loss = loss * ops.maximum(1 - own, 1e-7) ** self.focusing  # a root has no slope at zero
        return loss

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing, "focusing": self.focusing}


@keras.saving.register_keras_serializable(package="mmkeras")
class Distillation(keras.losses.Loss):
    """Divergence of logits `(batch, classes)` from a teacher's (Hinton 2015; across modalities, Gupta 2016).

    `T^2 KL(softmax(teacher / T) || softmax(logits / T))`: of T^2, so that the gradient keeps its size.

    Args:
        temperature: T; the higher, the more counts what the teacher thinks of the labels that it does not choose.
        name: of the loss.

    Example:

    >>> float(Distillation()(np.array([[2.0, 0.0]]), np.array([[2.0, 0.0]])))
    0.0
    """

    def __init__(self, temperature: float = 2.0, name: str = "distillation", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.temperature = temperature

    def call(self, teacher, logits):
        teacher, logits = (ops.log_softmax(x / self.temperature, axis=-1) for x in (teacher, logits))
        return self.temperature**2 * ops.sum(ops.exp(teacher) * (teacher - logits), axis=-1)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="mmkeras")
class TagsCrossentropy(keras.losses.Loss):
    """Cross-entropy of zeros and ones `(batch, tags)` with logits, summed over the tags.

    Not their mean: of thousands of tags a few are on, and their gradients, divided by the number of tags, would vanish
    beside Adam's epsilon.

    Args:
        label_smoothing: how far the targets are moved towards one half.
        focusing: as for `LabelCrossentropy`, of each tag's own probability.
        name: of the loss.
    """

    def __init__(
        self, label_smoothing: float = 0.0, focusing: float = 0.0, name: str = "tags_crossentropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing
        self.focusing = focusing

    def call(self, tags, logits):
        options = {"from_logits": True, "label_smoothing": self.label_smoothing}
        if self.focusing:
            mean = keras.losses.binary_focal_crossentropy(tags, logits, gamma=self.focusing, **options)
        else:
            mean = keras.losses.binary_crossentropy(tags, logits, **options)
        return mean * logits.shape[-1]

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing, "focusing": self.focusing}
