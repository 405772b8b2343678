"""The base of every model: inputs matched by name."""

import contextlib

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class MultiInput(keras.Model):
    """A Functional model whose inputs are a dict, matched by name.

    Keras itself swaps an OrderedDict in another order silently, shifts the values by one at an extra key, and casts
    float ids. Here each of these is an error. An input called `presence` may be left out: everything counts as
    present then. Outputs are at least float32, whatever the layers compute in.

    Raises:
        ValueError: on a missing, extra or misnamed input, or token ids that are not integers.

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
        return super().__call__(self.matched(inputs), *args, **kwargs)

    def call(self, inputs, training=None, mask=None):
        # Here again: on JAX `fit` does not come through `__call__`.
        return at_least_float32(super().call(self.matched(inputs), training=training))

    def fit(self, x=None, y=None, batch_size=None, *args, **options):
        """As `keras.Model.fit`; the first batch is looked at before, see `check_batch`."""
        check_first_batch(x, y, batch_size)
        if self.optimizer is not None and not self.optimizer.built:
            # Built within the first step, it would have that step traced twice.
            strategy = getattr(self, "distribute_strategy", None)
            with strategy.scope() if strategy else contextlib.nullcontext():
                self.optimizer.build(self.trainable_variables)
        return super().fit(x, y, batch_size, *args, **options)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """As `keras.Model.compute_metrics`, over the outputs that have a target: Keras asks for one of each."""
        if isinstance(y, dict) and isinstance(y_pred, dict):
            y_pred = {name: value for name, value in y_pred.items() if name in y}
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def fills(self, name):
        """The number that stands in for an input which may be left out, None for one which may not."""
        return 1.0 if name == "presence" else None

    def matched(self, inputs):
        """The inputs in the model's order, checked, those that may be left out filled in."""
        expected = {tensor.name: tensor for tensor in self.inputs}
        if not isinstance(inputs, dict):
            raise ValueError(
                f"Expected inputs as a dict with the keys {sorted(expected)}. Received: {type(inputs).__name__}."
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
            if not keras.backend.is_keras_tensor(value):
                value = ops.convert_to_tensor(value)  # Keras refuses arrays beside a tensor: `presence`, filled in
            given = keras.backend.standardize_dtype(value.dtype)
            if "int" in tensor.dtype and "float" in given:
                raise ValueError(f"Expected integer token ids for the input `{name}`. Received: dtype {given}.")
            values[name] = value
        return values


def at_least_float32(outputs):
    """Outputs `{name: tensor}`, those in float16 and bfloat16 as float32: losses are computed, answers sent in it."""
    half = ("float16", "bfloat16")
    return {
        name: ops.cast(value, "float32") if keras.backend.standardize_dtype(value.dtype) in half else value
        for name, value in outputs.items()
    }


def check_first_batch(x, y=None, batch_size=None):
    """`check_batch` of what `fit` was given: of arrays the first rows, of a `tf.data.Dataset` its first batch."""
    if isinstance(x, dict):
        rows = batch_size or 32
        check_batch([{k: v[:rows] for k, v in part.items()} for part in (x, y) if isinstance(part, dict)])
    elif hasattr(x, "as_numpy_iterator"):
        check_batch(next(iter(x.take(1)), ()))


def check_batch(batch):
    """Looks at a batch, dicts of arrays: no NaN, and pixels `(batch, ..., height, width, channels)` in 0..1.

    Raises:
        ValueError: naming the input or target.
    """
    for part in batch:
        for name, value in part.items() if isinstance(part, dict) else ():
            value = keras.ops.convert_to_numpy(value)
            if value.dtype.kind == "f" and np.isnan(value).any():
                row = int(np.argwhere(np.isnan(value))[0][0])
                raise ValueError(f"Expected numbers in `{name}`. Received: NaN in row {row} of the first batch.")
            if value.ndim in (4, 5) and value.size and (value.min() < -1e-3 or value.max() > 1 + 1e-3):
                raise ValueError(
                    f"Expected pixels in 0..1 in `{name}`. Received: {value.dtype} from {value.min():.4g} to "
                    f"{value.max():.4g}. Divide by 255 where they are bytes."
                )
