"""The base of every model: inputs matched by name."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from mmkeras.training.checks import check_arrays, check_batch, check_fit, check_input, named_targets, telling_ids
from mmkeras.types import Tensor


@keras.saving.register_keras_serializable(package="mmkeras")
class MultiInput(keras.Model):
    """A Functional model whose inputs are a dict, matched by name.

    Keras itself swaps an OrderedDict in another order silently, shifts the values by one at an extra key, and casts
    float ids. Here each of these is an error of one line. An input called `presence` may be left out: everything counts
    as present then. Outputs are at least float32, whatever the layers compute in.

    Raises:
        ValueError: on a missing, extra or misnamed input, another shape, or token ids that are not integers.

    Example:

    >>> x = keras.Input((2,), name="vector")
    >>> model = MultiInput({"vector": x}, {"double": x * 2})
    >>> model({"vector": np.ones((1, 2))})["double"].numpy().tolist()
    [[2.0, 2.0]]
    """

    # Keras' own check would refuse inputs without `presence` before `call` could fill it.
    input_spec = None

    def __call__(self, inputs, *args, **kwargs):
        # Here, not only in `call`: Keras would print all arrays behind an error that is raised there.
        with telling_ids():
            return super().__call__(self.matched(inputs), *args, **kwargs)

    def call(self, inputs, training=None, mask=None):
        # Here again: on JAX `fit` does not come through `__call__`.
        return at_least_float32(super().call(self.matched(inputs), training=training))

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, *args: Any, **options: Any
    ) -> keras.callbacks.History:
        """As `keras.Model.fit`; what is given is looked at before, see `mmkeras.training.checks`."""
        check_fit(self, x, y, batch_size)
        if self.optimizer is not None and not self.optimizer.built:
            # Built within the first step, it would have that step traced twice.
            strategy = getattr(self, "distribute_strategy", None)
            with strategy.scope() if strategy else contextlib.nullcontext():
                self.optimizer.build(self.trainable_variables)
        with telling_ids():
            return super().fit(x, y, batch_size, *args, **options)

    def evaluate(self, x: Any = None, y: Any = None, batch_size: int | None = None, *args: Any, **options: Any) -> Any:
        """As `keras.Model.evaluate`; what is given is looked at before."""
        check_fit(self, x, y, batch_size)
        with telling_ids():
            return super().evaluate(x, y, batch_size, *args, **options)

    def predict(self, x: Any, *args: Any, **options: Any) -> dict[str, np.ndarray]:
        """As `keras.Model.predict`; what is given is looked at before."""
        if isinstance(x, dict):
            check_arrays(self, x)
            check_batch([{name: value[:32] for name, value in x.items()}])
        with telling_ids():
            return super().predict(x, *args, **options)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """As `keras.Model.compute_metrics`, over the outputs that have a target: Keras asks for one of each."""
        if not isinstance(y, dict) and (named := named_targets(self, y)):
            y, sample_weight = named, None if sample_weight is None else dict.fromkeys(named, sample_weight)
        if isinstance(y, dict) and isinstance(y_pred, dict):
            y_pred = {name: value for name, value in y_pred.items() if name in y}
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def fills(self, name: str) -> float | None:
        """The number that stands in for an input which may be left out, None for one which may not."""
        return 1.0 if name == "presence" else None

    def matched(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs in the model's order, checked, those that may be left out filled in."""
        expected = {tensor.name: tensor for tensor in self.inputs}
        if not isinstance(inputs, dict):
            raise ValueError(
                f"Expected inputs as a dict with the keys {sorted(expected)}. Received: {type(inputs).__name__}. Name "
                f"them: {{{', '.join(f'{name!r}: …' for name in sorted(expected))}}}."
            )
        missing = sorted(name for name in set(expected) - set(inputs) if self.fills(name) is None)
        extra = sorted(set(inputs) - set(expected) - {"presence"})
        if missing or extra:
            problem = "; ".join(
                f"{what} {names}" for what, names in (("missing", missing), ("unknown", extra)) if names
            )
            raise ValueError(
                f"Expected inputs with the keys {sorted(expected)}. Received: {sorted(inputs)} ({problem})."
            )
        values = {}
        for name, tensor in expected.items():
            if name not in inputs:
                first = ops.convert_to_tensor(next(iter(inputs.values())))
                values[name] = ops.full((ops.shape(first)[0], *tensor.shape[1:]), self.fills(name))
                continue
            value = inputs[name]
            check_input(tensor, value, self.inputs)
            if not keras.backend.is_keras_tensor(value):
                value = ops.convert_to_tensor(value)  # Keras refuses arrays beside a tensor: `presence`, filled in
            values[name] = value
        return values


def at_least_float32(outputs):
    """Outputs `{name: tensor}`, those in float16 and bfloat16 as float32: losses are computed, answers sent in it."""
    half = ("float16", "bfloat16")
    return {
        name: ops.cast(value, "float32") if keras.backend.standardize_dtype(value.dtype) in half else value
        for name, value in outputs.items()
    }
