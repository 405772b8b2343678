"""Classifiers whose modalities learn at different paces: one must not keep the others from learning."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from mmkeras.layers import replicas
from mmkeras.training.checks import named_targets
from mmkeras.training.multi_input import MultiInput
from mmkeras.types import Tensor

MODALITY_BALANCES = ("ogm_ge", "gradient_blend")
SMALLEST_GAP = 0.1  # nats: what overfits less than this counts as overfitting so much, or noise would decide


@keras.saving.register_keras_serializable(package="mmkeras")
class ModalityBalance(MultiInput):
    """A classifier over several modalities with a head on each of them besides.

    Args:
        inputs: dict of Keras tensors.
        outputs: with `label`, logits of all modalities, and `<name>_alone` of each by itself, `(batch, classes)`. With
            `ogm_ge` the latter should not train the encoders (`stop_gradient`): they only measure.
        name: of the model.
        modalities: their names, in the order of `presence`. Their encoders are the layers `<name>_encoder`.
        balance: `"ogm_ge"`: the gradient of the encoder that is ahead is made smaller, by how sure its head is of the
            true labels beside the others', and noise of its own size is added to the gradients (OGM-GE, Peng 2022).
            Adam divides by a gradient's usual size and undoes part of it; the paper trains with SGD. Needs TensorFlow.
            `"gradient_blend"`: the losses of all heads are weighed by what they have learned in the last epochs over
            the square of how much they have overfitted (Gradient-Blend, Wang 2020). The paper trains a copy of the
            model for each head to find out; here it is read off the training itself. Needs validation data.
        strength: of ogm_ge, the paper's alpha.
        every: epochs after which gradient_blend weighs anew.
        seed: of the noise.

    Raises:
        ValueError: if gradient_blend is trained without validation data.
    """

    def __init__(
        self,
        inputs: dict[str, keras.KerasTensor],
        outputs: dict[str, keras.KerasTensor],
        name: str | None = None,
        *,
        modalities: Sequence[str] = (),
        balance: Literal["ogm_ge", "gradient_blend"] = "ogm_ge",
        strength: float = 0.3,
        every: int = 3,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.settings: dict[str, Any] = {
            "modalities": list(modalities), "balance": balance, "strength": strength, "every": every, "seed": seed,
        }  # fmt: skip
        self.draws = keras.random.SeedGenerator(seed)
        self.heads = ["joint", *(f"{name}_alone" for name in modalities)]
        self.trackers = [keras.metrics.Mean(name=f"{head}_loss") for head in self.heads]
        at_chance = keras.initializers.Constant(math.log(outputs["label"].shape[-1]))
        size = len(self.heads)
        share = keras.initializers.Constant(1 / size if balance == "gradient_blend" else 1.0)
        self.shares = self.add_weight(name="shares", shape=(size,), initializer=share, trainable=False)
        self.before = self.add_weight(name="before", shape=(2, size), initializer=at_chance, trainable=False)

    @property
    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """What `fit` and `zoo.train` call after every epoch besides."""
        return [BlendGradients()] if self.settings["balance"] == "gradient_blend" else []

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **options):
        callbacks = [*self.own_callbacks, *(callbacks or [])]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        joint = super().compute_loss(x, y, y_pred, sample_weight, training)
        losses = [joint, *self._alone(x, y, y_pred, sample_weight).values()]
        rows = ops.shape(y_pred["label"])[0]
        # Keras divides the joint loss by the number of replicas, whatever rows they have; the others are shares.
        factors = [replicas.count(), *([1 / replicas.share(rows)] * len(losses[1:]))]
        losses = [loss * factor for loss, factor in zip(losses, factors, strict=True)]
        for tracker, loss in zip(self.trackers, losses, strict=True):
            tracker.update_state(loss, sample_weight=rows)
        return ops.sum(ops.convert_to_tensor(self.shares) * ops.stack(losses)) / replicas.count()

    def _alone(self, x, y, y_pred, sample_weight=None):
        """`{modality: cross-entropy of its own head}` over the rows that have it."""
        presence, losses = ops.cast(self.matched(x)["presence"], "float32"), {}
        if isinstance(sample_weight, dict):
            sample_weight = sample_weight["label"]
        labels = self._labels(y)
        for i, name in enumerate(self.settings["modalities"]):
            loss = keras.losses.sparse_categorical_crossentropy(labels, y_pred[f"{name}_alone"], from_logits=True)
            rows = presence[:, i] if sample_weight is None else presence[:, i] * sample_weight
            losses[name] = ops.sum(rows * loss) / ops.maximum(replicas.total(ops.sum(presence[:, i])), 1.0)
        return losses

    def _labels(self, y):
        """The class numbers `(batch,)` of targets: by name, alone, or as a column."""
        return ops.reshape(ops.cast(named_targets(self, y)["label"], "int32"), (-1,))

    def train_step(self, *args):
        if self.settings["balance"] != "ogm_ge":
            return super().train_step(*args)
        if keras.backend.backend() != "tensorflow":
            raise NotImplementedError("balance='ogm_ge' is of TensorFlow alone: train with KERAS_BACKEND=tensorflow.")
        import tensorflow as tf

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(*args)
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compute_loss(x, y, outputs, sample_weight)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        slopes, count = tape.gradient(scaled, variables), replicas.count()
        if count > 1:  # noise is added to the whole gradient; the optimiser will sum once more
            slopes = replicas.total([tf.convert_to_tensor(slope) / count for slope in slopes])
        gradients = dict(zip(map(id, variables), slopes, strict=True))
        for name, factor in self.factors(x, y, outputs).items():
            for variable in self.get_layer(f"{name}_encoder").trainable_variables:
                gradients[id(variable)] = self._modulated(gradients[id(variable)], factor)
        self.optimizer.apply_gradients([(gradients[id(v)], v) for v in variables])
        self._loss_tracker.update_state(loss * count)
        return self.compute_metrics(x, y, outputs, sample_weight)

    def factors(
        self, x: Mapping[str, Tensor], y: Mapping[str, Tensor], y_pred: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`{modality: factor of its encoder's gradients}` of a batch."""
        presence, scores = ops.cast(self.matched(x)["presence"], "float32"), []
        labels = self._labels(y)
        for i, name in enumerate(self.settings["modalities"]):
            shares = ops.softmax(y_pred[f"{name}_alone"])
            own = ops.take_along_axis(shares, labels[:, None], axis=1)[:, 0]
            scores.append(replicas.total(replicas.mean(own, presence[:, i])))
        here = replicas.total(ops.sum(presence, axis=0)) > 0
        found = modulation(ops.stack(scores), self.settings["strength"], here)
        return {name: found[i] for i, name in enumerate(self.settings["modalities"])}

    def _modulated(self, gradient, factor):
        import tensorflow as tf

        if isinstance(gradient, tf.IndexedSlices):  # of a table: words that did not occur stay as they are
            values = self._modulated(gradient.values, factor)
            return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
        noise = keras.random.normal(ops.shape(gradient), seed=self.draws, dtype=gradient.dtype)
        return gradient * factor + noise * ops.std(gradient)

    def get_config(self):
        return {**super().get_config(), **self.settings}


class BlendGradients(keras.callbacks.Callback):
    """After every few epochs gives the heads of a ModalityBalance the weights of `blend_shares`."""

    def on_epoch_end(self, epoch, logs=None):
        model = self.model
        if (epoch + 1) % model.settings["every"]:
            return
        if f"val_{model.heads[0]}_loss" not in (logs or {}):
            raise ValueError("balance='gradient_blend' weighs by validation losses. Received: no validation data.")
        after = np.array([[logs[f"{part}{head}_loss"] for head in model.heads] for part in ("", "val_")])
        shares = blend_shares(np.array(model.before), after)
        if shares is not None:
            model.shares.assign(shares)
        model.before.assign(after)


def modulation(scores, strength, here=None):
    """Factors of the encoders' gradients (OGM-GE, Peng 2022): `1 - tanh(strength * ratio)` for one that is ahead.

    Args:
        scores: mean probability of the true label by each modality's head, `(modalities,)`. The ratio is that of a
            modality's score to the mean of the others'; where it is below one, the factor is one.
        strength: the paper's alpha.
        here: which modalities some row of the batch has, booleans `(modalities,)`; the others are no rivals.

    Example:

    >>> modulation(np.array([0.8, 0.4]), 0.5).numpy().round(4).tolist()
    [0.2384, 1.0]
    """
    scores = ops.convert_to_tensor(scores)
    here = ops.ones_like(scores) if here is None else ops.cast(here, scores.dtype)
    others, count = ops.sum(here * scores) - here * scores, ops.sum(here) - here
    ratio = ops.where(count > 0, here * scores * count / ops.maximum(others, 1e-8), ops.zeros_like(scores))
    return ops.where(ratio > 1, 1 - ops.tanh(strength * ratio), ops.ones_like(ratio))


def blend_shares(before, after):
    """Weights of losses by generalisation over the square of overfitting (Gradient-Blend, Wang 2020), or None.

    Args:
        before, after: training losses, then validation losses, `(2, heads)`, at two times.

    Returns:
        `(heads,)`, of sum one; None if no head has become better.

    Example:

    >>> before, after = np.array([[2.0, 2.0], [2.0, 2.0]]), np.array([[0.5, 1.0], [1.0, 1.5]])
    >>> blend_shares(before, after).round(4).tolist()  # gains of 1 and 0.5, both for half a nat of overfitting
    [0.6667, 0.3333]
    """
    gain = np.maximum(before[1] - after[1], 0.0)
    gap = np.maximum((after[1] - after[0]) - (before[1] - before[0]), SMALLEST_GAP)
    shares = gain / gap**2
    return shares / shares.sum() if shares.sum() > 0 else None
