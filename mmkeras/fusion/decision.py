"""Late fusion: each modality decides for itself, and the decisions are joined."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class Late(keras.layers.Layer):
    """Logits `{name: (batch, classes)}` and presence `(batch, modalities)` to the mean of those present.

    Example:

    >>> logits = {"image": np.full((1, 2), 4.0), "text": np.full((1, 2), 8.0)}
    >>> Late()(logits, np.array([[0.0, 1.0]])).numpy().tolist()
    [[8.0, 8.0]]
    """

    def call(self, logits, presence=None):
        stacked = ops.stack([logits[name] for name in sorted(logits)], axis=1)  # (batch, modalities, classes)
        if presence is None:
            return ops.mean(stacked, axis=1)
        present = (presence > 0)[..., None]
        count = ops.sum(ops.cast(present, stacked.dtype), axis=1)
        return ops.sum(ops.where(present, stacked, ops.zeros_like(stacked)), axis=1) / ops.maximum(count, 1.0)

    def compute_output_shape(self, logits_shape, presence_shape=None):
        return next(iter(logits_shape.values()))


@keras.saving.register_keras_serializable(package="mmkeras")
class Evidential(keras.layers.Layer):
    """Logits `{name: (batch, classes)}` and presence to the logits of one opinion (trusted multi-view, TMC, Han 2021).

    The softplus of a modality's logits is its evidence `e`: of the belief `e / S` in each class, and of the uncertainty
    `classes / S`, where `S = sum(e) + classes`. Opinions are joined by Dempster's rule, so that who is unsure says
    little. The result is the logarithm of the joint Dirichlet distribution's parameters: its softmax is the expected
    probability, and `classes / sum(exp(logits))` the uncertainty that is left.

    Example:

    >>> logits = {"image": np.array([[20.0, 0.0]]), "text": np.array([[0.0, 0.0]])}
    >>> print(Evidential()(logits).numpy().round(1))
    [[3.4 1. ]]
    """

    def call(self, logits, presence=None):
        belief, uncertainty = None, None
        for i, name in enumerate(sorted(logits)):
            # What two sure opinions leave of uncertainty is less than float16 can divide by.
            x = ops.cast(logits[name], keras.backend.result_type(self.compute_dtype, "float32"))
            if presence is not None:
                x = ops.where(presence[:, i : i + 1] > 0, x, ops.zeros_like(x))
            evidence, classes = ops.softplus(x), x.shape[-1]
            strength = ops.sum(evidence, axis=-1, keepdims=True) + classes
            b, u = evidence / strength, classes / strength
            if presence is not None:  # who is absent knows nothing
                here = presence[:, i : i + 1] > 0
                b, u = ops.where(here, b, ops.zeros_like(b)), ops.where(here, u, ops.ones_like(u))
            if belief is None:
                belief, uncertainty = b, u
                continue
            agreed = belief * b + belief * u + b * uncertainty
            both = uncertainty * u
            # What two opinions do not contradict each other in; the rest is left out, as Dempster's rule has it.
            kept = ops.sum(agreed, axis=-1, keepdims=True) + both
            belief, uncertainty = agreed / kept, both / kept
        return ops.cast(ops.log(belief * classes / uncertainty + 1), self.compute_dtype)

    def compute_output_shape(self, logits_shape, presence_shape=None):
        return next(iter(logits_shape.values()))
