"""Self-supervision by hiding: what was hidden of a row is predicted from the rest of it."""

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import keras
from keras import ops

from mmkeras.layers import to_patches
from mmkeras.training.objective import Objective, ObjectiveModel
from mmkeras.training.terms import Term
from mmkeras.types import Tensor


@keras.saving.register_keras_serializable(package="mmkeras")
class Hidden(Term):
    """What is predicted of a modality's hidden places, compared with what stands there.

    Args:
        name, weight: see Term.
        target: the modality; the output `<target>_hidden (batch, places)` has ones where it is hidden.
        output: patches `(batch, places, side * side * channels)`; logits of tokens; or numbers `(batch, 1, size)`.
        kind: `"image"`, `"audio"`, `"text"` or `"vector"`.
        side: of a picture's patches.
    """

    def __init__(
        self,
        name: str,
        target: str,
        output: str,
        kind: Literal["image", "audio", "text", "vector"],
        side: int | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(name, weight)
        self.target = target
        self.output = output
        self.kind = kind
        self.side = side

    def rows(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The losses `(batch, places)`, and ones for the places that are hidden in rows that have the modality."""
        true, found = inputs[self.target], outputs[self.output]
        hidden = outputs[f"{self.target}_hidden"] * present[self.target][:, None]
        if self.kind == "text":
            hidden = hidden * ops.cast(ops.not_equal(true, 0), hidden.dtype)
            loss = keras.losses.sparse_categorical_crossentropy(true, found, from_logits=True)
        else:
            true = true[..., None] if self.kind == "audio" else true
            true = true[:, None] if self.kind == "vector" else to_patches(true, self.side)
            loss = ops.mean(ops.square(true - found), axis=-1)
        return loss, hidden


@keras.saving.register_keras_serializable(package="mmkeras")
class Masked(ObjectiveModel):
    """An ObjectiveModel with inputs `<name>_hidden (batch, places)`: ones for the places that it is not shown.

    Left out, nothing is hidden, but in training and validation a share of the places is drawn, of each row and modality
    its own: a model that never saw a whole picture takes one for something else. The outputs of these names say what
    was hidden.

    Args:
        inputs, outputs, name, objective: see ObjectiveModel.
        shares: `{name: the largest share of the places that is hidden}`; each row's lies between none and that.
        whole: probability that one modality of a row, whichever, is hidden as a whole.
        seed: of what is hidden.
    """

    def __init__(
        self,
        inputs: dict[str, keras.KerasTensor],
        outputs: dict[str, keras.KerasTensor],
        name: str | None = None,
        *,
        objective: Objective | dict[str, Any] | None = None,
        shares: Mapping[str, float] | None = None,
        whole: float = 0.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, objective=objective, **kwargs)
        self.shares = dict(shares or {})
        self.whole = whole
        self.seed = seed
        self.draws = keras.random.SeedGenerator(seed)

    def fills(self, name: str) -> float | None:
        return 0.0 if name in self._sizes else super().fills(name)

    @property
    def _sizes(self):
        """`{"<name>_hidden": places}`."""
        return {
            t.name: t.shape[1]
            for t in self.inputs
            if t.name.removesuffix("_hidden") in self.shares and t.name.endswith("_hidden")
        }

    def matched(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = super().matched(inputs)
        return {name: value for name, value in values.items() if name in inputs or name not in self._sizes}

    def call(self, inputs, training=None, mask=None):
        hidden = self.hide(inputs, self.draws if training else None)
        return super().call({**hidden, **self.matched(inputs)}, training=training)

    def test_step(self, *given):
        *state, data = given  # JAX has a state besides
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        x = {**self.hide(x, self.seed), **x}  # of every batch the same, in every epoch
        return super().test_step(*state, (x,) if y is None else (x, y))

    def hide(
        self, inputs: Mapping[str, Tensor], seed: int | keras.random.SeedGenerator | None = None
    ) -> dict[str, Tensor]:
        """What is hidden of a batch, `{"<name>_hidden": (batch, places)}`: drawn, or nothing without a seed."""
        batch, hidden = ops.shape(next(iter(inputs.values())))[0], {}
        if seed is None:
            return {name: ops.zeros((batch, size)) for name, size in self._sizes.items()}
        seeds = itertools.count(seed) if isinstance(seed, int) else itertools.repeat(seed)
        drawn = keras.random.uniform((batch, 1), seed=next(seeds))
        for i, (name, size) in enumerate(sorted(self._sizes.items())):
            low, high = (self.whole * j / len(self._sizes) for j in (i, i + 1))
            as_a_whole = ops.logical_and(drawn >= low, drawn < high)
            share = self.shares[name.removesuffix("_hidden")] * keras.random.uniform((batch, 1), seed=next(seeds))
            shown = keras.random.uniform((batch, size), seed=next(seeds)) >= share
            hidden[name] = 1.0 - ops.cast(ops.logical_and(shown, ops.logical_not(as_a_whole)), "float32")
        return hidden

    def get_config(self):
        return {**super().get_config(), "shares": self.shares, "whole": self.whole, "seed": self.seed}
