"""Terms of objectives: losses over a model's inputs, targets and several outputs."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import keras
from keras import ops

from mmkeras import losses
from mmkeras.layers import replicas
from mmkeras.training.by_rows import clip_by_rows
from mmkeras.types import Tensor

_RECONSTRUCTION = {
    "pixel_mse": losses.pixel_mse,
    "pixel_bce": losses.pixel_bce,
    "tokens": losses.token_cross_entropy,
    "token_nll": losses.token_nll,
    "vector_mse": losses.vector_mse,
}


class Term:
    """One term of an objective: called with inputs, targets, outputs and `present`, it gives a number.

    Where several replicas have some rows of the batch each, that is this replica's share of it. Most terms are means:
    their `rows` gives what is averaged and how much each counts, two tensors of one shape, `(batch,)` or `(batch,
    places)`. A term that compares rows with each other gathers those of all replicas.

    Args:
        name: under which its value is logged.
        weight: factor in the sum.

    The constructor's arguments are its configuration.
    """

    rows: Any  # a method, where the term is a mean

    def __init__(self, name: str, weight: float = 1.0) -> None:
        self.name = name
        self.weight = weight

    def __call__(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        return replicas.mean(*self.rows(inputs, targets, outputs, present))

    def needs(self) -> dict[str, int]:
        """The targets it looks at, and the rank of each: 1 for `(batch,)`."""
        return {}

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for saving."""
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The term of a configuration."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="mmkeras")
class Reconstruction(Term):
    """An output compared with the input it reconstructs, in the rows where that input is present.

    Args:
        name, weight: see Term.
        target: the input that is reconstructed.
        output: the output that reconstructs it.
        loss: `"pixel_mse"`, `"pixel_bce"`, `"tokens"`, `"token_nll"` or `"vector_mse"`.
        given: inputs that must be present besides.
        options: further arguments of the loss, such as label smoothing.
    """

    def __init__(
        self,
        name: str,
        target: str,
        output: str,
        loss: Literal["pixel_mse", "pixel_bce", "tokens", "token_nll", "vector_mse"],
        given: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(name, weight)
        self.target = target
        self.output = output
        self.loss = loss
        self.given = list(given)
        self.options = dict(options or {})

    def rows(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The losses `(batch,)`, and ones for the rows where all that is asked for is present."""
        rows = ops.ones_like(present[self.target])
        for name in (self.target, *self.given):
            rows = rows * present[name]
        return _RECONSTRUCTION[self.loss](inputs[self.target], outputs[self.output], **self.options), rows


@keras.saving.register_keras_serializable(package="mmkeras")
class Divergence(Term):
    """KL divergence of a posterior from `N(0, 1)`, times the output `divergence_weight (batch,)`.

    Args:
        name, weight: see Term.
        output: the posterior `(batch, 2 * dim)`, means, then logarithms of variances.
        given: modalities; rows that have none of them do not count.
    """

    def __init__(self, name: str, output: str, given: Sequence[str], weight: float = 1.0) -> None:
        super().__init__(name, weight)
        self.output = output
        self.given = list(given)

    def rows(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The divergences `(batch,)`, and ones for the rows that have one of the modalities."""
        divergence = losses.gaussian_kl(*ops.split(outputs[self.output], 2, axis=-1))
        rows = ops.cast(sum(present[name] for name in self.given) > 0, divergence.dtype)
        return divergence * outputs["divergence_weight"], rows


@keras.saving.register_keras_serializable(package="mmkeras")
class Contrastive(Term):
    """The embeddings of two modalities of a row brought together, those of different rows held apart.

    Rows that share a text (equal token ids) or a label count as belonging together. Rows that lack one of the two
    modalities do not take part.

    Args:
        name, weight: see Term.
        pair: names of the two modalities.
        loss: a name of `mmkeras.losses.CONTRASTIVE_LOSSES`.
        texts: inputs of token ids by which rows may be equal.
        label: target by which rows may be equal, or None.
        options: further arguments of the loss, such as the margin.
        outputs: names of the two embeddings; `<name>_embedding` of the pair if None.
        rows: of the loss `clip`, how many rows are compared with all others at a time, to save memory; 0 for all.
    """

    def __init__(
        self,
        name: str,
        pair: Sequence[str],
        loss: Literal["clip", "siglip", "triplet", "l2", "supcon"] = "clip",
        texts: Sequence[str] = (),
        label: str | None = None,
        options: Mapping[str, Any] | None = None,
        weight: float = 1.0,
        outputs: Sequence[str] | None = None,
        rows: int = 0,
    ) -> None:
        super().__init__(name, weight)
        self.pair = list(pair)
        self.outputs = list(outputs or (f"{name}_embedding" for name in pair))
        self.loss = loss
        self.texts = list(texts)
        self.label = label
        self.options = dict(options or {})
        self.rows = rows

    def __call__(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        share = replicas.share(ops.shape(outputs[self.outputs[0]])[0])
        a, b = (replicas.gathered(outputs[name]) for name in self.outputs)
        present = {name: replicas.gathered(column) for name, column in present.items()}
        valid = present[self.pair[0]] * present[self.pair[1]] > 0
        positive = self._positive(inputs, targets, present, ops.shape(a)[0])
        scale = outputs["similarity_scale"][0] if "similarity_scale" in outputs else ops.convert_to_tensor([10.0, 0.0])
        loss, options = losses.CONTRASTIVE_LOSSES[self.loss], self.options
        if self.loss == "supcon":  # of all views of both
            a = b = ops.concatenate([a, b])
            positive, valid = ops.tile(positive, (2, 2)), ops.tile(valid, (2,))
        elif f"{self.pair[0]}_{self.pair[1]}_queued" in outputs:
            pairs = (self.pair, self.pair[::-1])
            queued = [replicas.gathered(outputs[f"{first}_{second}_queued"]) for first, second in pairs]
            options = {**options, "queued": queued}
        elif self.loss == "clip" and self.rows:
            return share * clip_by_rows(a, b, positive, valid, scale[0], self.rows)
        return share * loss(ops.matmul(a, ops.transpose(b)), positive, valid, scale[0], scale[1], **options)

    def needs(self) -> dict[str, int]:
        """The label, where rows of one label belong together."""
        return {self.label: 1} if self.label else {}

    def _positive(self, inputs, targets, present, batch):
        """Which rows belong together: bool `(batch, batch)`."""
        positive = ops.eye(batch, dtype="bool")
        for name in self.texts:
            ids, here, length = replicas.gathered(inputs[name]), present[name] > 0, inputs[name].shape[1]
            equal = here[:, None] & here[None]
            for column in ops.unstack(ids, length, axis=1):  # all at once, a large batch would take much memory
                equal = equal & ops.equal(column[:, None], column[None])
            positive = positive | equal
        if self.label:
            label = replicas.gathered(targets[self.label])
            positive = positive | ops.equal(label[:, None], label[None])
        return positive


@keras.saving.register_keras_serializable(package="mmkeras")
class Correlation(Term):
    """Minus the correlation of two modalities' embeddings over the batch (correlational networks, Chandar 2016).

    Args:
        name, weight: see Term.
        pair: names of the two modalities; their embeddings are the outputs `<name>_embedding`.
    """

    def __init__(self, name: str, pair: Sequence[str], weight: float = 1.0) -> None:
        super().__init__(name, weight)
        self.pair = list(pair)

    def __call__(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        a, b = (outputs[f"{name}_embedding"] for name in self.pair)
        rows = present[self.pair[0]] * present[self.pair[1]]
        whole = losses.correlation(*map(replicas.gathered, (a, b, rows)))
        return -replicas.share(ops.shape(a)[0]) * whole


@keras.saving.register_keras_serializable(package="mmkeras")
class Supervised(Term):
    """Cross-entropy of logits `(batch, classes)` with class numbers `(batch,)`.

    Args:
        name, weight: see Term.
        output: the logits.
        target: the class numbers, or with `several` zeros and ones `(batch, classes)`.
        several: whether a row has several classes.
        without: target of zeros and ones `(batch,)`; rows of one do not count.
        given: inputs that must be present for a row to count.
        against: whether the encoders work against it, behind a GradientReversal.
    """

    def __init__(
        self,
        name: str,
        output: str,
        target: str,
        weight: float = 1.0,
        several: bool = False,
        without: str | None = None,
        given: Sequence[str] = (),
        against: bool = False,
    ) -> None:
        super().__init__(name, weight)
        self.output = output
        self.target = target
        self.against = against
        self.several = several
        self.without = without
        self.given = list(given)

    def needs(self) -> dict[str, int]:
        """The classes, and what says which rows do not count."""
        return {self.target: 2 if self.several else 1, **({self.without: 1} if self.without else {})}

    def rows(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The cross-entropies `(batch,)`, and ones for the rows that count."""
        true, logits = targets[self.target], outputs[self.output]
        if self.several:
            loss = keras.losses.binary_crossentropy(true, logits, from_logits=True)
        else:
            loss = keras.losses.sparse_categorical_crossentropy(ops.cast(true, "int32"), logits, from_logits=True)
        rows = ops.ones_like(loss)
        for name in self.given:
            rows = rows * ops.cast(present[name], rows.dtype)
        if self.without is not None:
            rows = rows * (1 - ops.cast(targets[self.without], rows.dtype))
        return loss, rows


@keras.saving.register_keras_serializable(package="mmkeras")
class Discrepancy(Term):
    """How unlike the features of source rows and of target rows are.

    Args:
        name, weight: see Term.
        output: the features `(batch, dim)`.
        target: zeros and ones `(batch,)`, ones for target rows.
        loss: a name of `mmkeras.losses.DOMAIN_LOSSES`.
        level: output `(batch,)` that it is multiplied with.
    """

    def __init__(
        self, name: str, output: str, target: str, loss: Literal["mmd", "coral"], level: str, weight: float = 1.0
    ) -> None:
        super().__init__(name, weight)
        self.level = level
        self.output = output
        self.target = target
        self.loss = loss

    def needs(self) -> dict[str, int]:
        """What says which rows are target rows."""
        return {self.target: 1}

    def __call__(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        features, is_target = outputs[self.output], targets[self.target]
        discrepancy = losses.DOMAIN_LOSSES[self.loss](replicas.gathered(features), replicas.gathered(is_target))
        return replicas.share(ops.shape(features)[0]) * outputs[self.level][0] * discrepancy


@keras.saving.register_keras_serializable(package="mmkeras")
class Regression(Term):
    """Squared error of numbers `(batch,)`.

    Args:
        name, weight: see Term.
        output: the predicted numbers.
        target: the true ones.
    """

    def __init__(self, name: str, output: str, target: str, weight: float = 1.0) -> None:
        super().__init__(name, weight)
        self.output = output
        self.target = target

    def needs(self) -> dict[str, int]:
        """The true numbers."""
        return {self.target: 1}

    def rows(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The squared errors `(batch,)`, and ones: all rows count."""
        found = outputs[self.output]
        squares = ops.square(ops.cast(targets[self.target], found.dtype) - found)
        return squares, ops.ones_like(squares)


@keras.saving.register_keras_serializable(package="mmkeras")
class Pairwise(Term):
    """Two outputs `(batch, dim)` compared, over the rows where some modalities are present.

    Args:
        name, weight: see Term.
        outputs: names of the two.
        given: modalities that must be present.
        loss: a name of `mmkeras.losses.ALIGNMENT_LOSSES`, or `"distance"` (mean square).
        scale: what the outputs are multiplied with first.
    """

    def __init__(
        self,
        name: str,
        outputs: Sequence[str],
        given: Sequence[str],
        loss: Literal["distance", "moments", "overlap", "cca", "barlow_twins", "vicreg"],
        weight: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__(name, weight)
        self.outputs = list(outputs)
        self.given = list(given)
        self.loss = loss
        self.scale = scale

    def __call__(
        self, inputs: Mapping[str, Tensor], targets: Any, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        a, b = (self.scale * outputs[name] for name in self.outputs)
        rows = ops.ones_like(a[:, 0])
        for name in self.given:
            rows = rows * present[name]
        if self.loss == "distance":
            return replicas.mean(ops.mean(ops.square(a - b), axis=-1), rows)
        whole = losses.ALIGNMENT_LOSSES[self.loss](*map(replicas.gathered, (a, b, rows)))
        return replicas.share(ops.shape(a)[0]) * whole
