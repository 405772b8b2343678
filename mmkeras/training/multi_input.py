"""The base of every model: inputs matched by name."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mmkeras")
class MultiInput(keras.Model):
    """A Functional model whose inputs are a dict, matched by name.

    Keras itself swaps an OrderedDict in another order silently, shifts the values by one at an extra key, and casts
    float ids. Here each of these is an error. An input called `presence` may be left out: everything counts as
    present then.

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
        return super().call(self.matched(inputs), training=training)

    def matched(self, inputs):
        """The inputs in the model's order, checked, `presence` filled in."""
        expected = {tensor.name: tensor for tensor in self.inputs}
        if not isinstance(inputs, dict):
            raise ValueError(
                f"Expected inputs as a dict with the keys {sorted(expected)}. Received: {type(inputs).__name__}."
            )
        missing = sorted(set(expected) - set(inputs) - {"presence"})
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
            if name == "presence" and name not in inputs:
                first = ops.convert_to_tensor(next(iter(inputs.values())))
                values[name] = ops.ones((ops.shape(first)[0], tensor.shape[-1]))
                continue
            value = inputs[name]
            if not keras.backend.is_keras_tensor(value):
                value = ops.convert_to_tensor(value)  # Keras refuses arrays beside a tensor: `presence`, filled in
            given = keras.backend.standardize_dtype(value.dtype)
            if "int" in tensor.dtype and "float" in given:
                raise ValueError(f"Expected integer token ids for the input `{name}`. Received: dtype {given}.")
            values[name] = value
        return values
