"""Objectives: a loss as the sum of terms over a model's inputs, targets and several outputs."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from mmkeras.layers import replicas
from mmkeras.training.checks import named_targets
from mmkeras.training.multi_input import MultiInput
from mmkeras.training.terms import Term
from mmkeras.types import Tensor


@keras.saving.register_keras_serializable(package="mmkeras")
class Objective:
    """A sum of terms.

    Args:
        terms: list of Terms.
        modalities: names of the model's modalities, in the order of `presence`.
    """

    def __init__(self, terms: Sequence[Term], modalities: Sequence[str]) -> None:
        self.terms = list(terms)
        self.modalities = list(modalities)

    def __call__(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and `{name: value}` of the terms.

        Raises:
            ValueError: if a target that a term needs is not there.
        """
        targets = self._ranked(targets)
        columns = ops.cast(inputs["presence"], keras.config.floatx())
        present = {name: columns[:, i] for i, name in enumerate(self.modalities)}
        parts = {term.name: term(inputs, targets, outputs, present) for term in self.terms}
        return sum(term.weight * parts[term.name] for term in self.terms), parts

    @property
    def needs(self) -> dict[str, int]:
        """The targets that the terms look at, and the rank of each."""
        return {name: rank for term in self.terms for name, rank in term.needs().items()}

    def _ranked(self, targets):
        """The targets by name; of columns `(batch, 1)` that count as `(batch,)` the last dimension goes."""
        needs, targets = self.needs, named_targets(self, targets)
        if set(needs) - set(targets):
            raise ValueError(f"Expected targets with the keys {sorted(needs)}. Received: {sorted(targets)}.")
        return {
            name: ops.squeeze(value, -1) if len(value.shape) == needs.get(name, 0) + 1 and name in needs else value
            for name, value in targets.items()
        }

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for saving, those of the terms within."""
        terms = [keras.saving.serialize_keras_object(term) for term in self.terms]
        return {"terms": terms, "modalities": self.modalities}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The objective of a configuration."""
        return cls([keras.saving.deserialize_keras_object(term) for term in config["terms"]], config["modalities"])


@keras.saving.register_keras_serializable(package="mmkeras")
class ObjectiveModel(MultiInput):
    """A MultiInput that is trained by an Objective: `fit` needs no targets unless a term asks for them.

    Args:
        inputs, outputs: dicts of Keras tensors.
        name: of the model.
        objective: an Objective, or its configuration.
    """

    def __init__(
        self,
        inputs: dict[str, keras.KerasTensor],
        outputs: dict[str, keras.KerasTensor],
        name: str | None = None,
        *,
        objective: Objective | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        read = keras.saving.deserialize_keras_object
        self.objective = objective if isinstance(objective, Objective) else read(objective)
        terms = self.objective.terms
        self.parts = [keras.metrics.Mean(name=term.name) for term in terms] if len(terms) > 1 else []

    @property
    def needs(self) -> dict[str, int]:
        """The targets that training looks at, and the rank of each."""
        return self.objective.needs

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        x = self.matched(x)
        loss, parts = self.objective(x, y, y_pred)
        return self.told(x, loss, parts) + sum(self.losses) / replicas.count()

    def told(self, x: Mapping[str, Tensor], loss: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
        """Tells the trackers of a batch the parts of its loss; the loss as Keras tracks and sums it over replicas."""
        rows = ops.shape(next(iter(x.values())))[0]
        # Keras weighs a replica's loss by its rows: where these differ, as in an uneven last batch, its share is more.
        factor = 1.0 if replicas.context() is None else 1 / (replicas.share(rows) + 1e-30)
        for part in self.parts:
            part.update_state(factor * parts[part.name], sample_weight=rows)
        return loss * factor / replicas.count()

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return self.get_metrics_result()

    def get_config(self):
        return {**super().get_config(), "objective": keras.saving.serialize_keras_object(self.objective)}
