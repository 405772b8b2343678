"""What a model is given, looked at before Keras does: what was expected, what came, and what to do, in one line."""

import contextlib
import re

import keras
import numpy as np

from mmkeras.losses import LabelCrossentropy


def check_input(tensor, value, inputs=()):
    """Looks at what is given for an input: an array or tensor of its shape, numbers, token ids whole ones.

    Args:
        tensor: the model's Keras input.
        value: what is given for it.
        inputs: all inputs of the model, for which it may have been meant.

    Raises:
        ValueError: naming the input.
    """
    name, expected = tensor.name, tensor.shape
    if not hasattr(value, "dtype"):
        value = np.asarray(value)
    given = str(getattr(value.dtype, "name", value.dtype))
    if given.startswith(("str", "bytes", "object")):
        raise ValueError(
            f"Expected numbers for the input `{name}`. Received: raw values, of dtype {given}. Prepare them first with "
            "a preprocessor: zoo.preprocessor, mmkeras.data.adapt."
        )
    if "int" in tensor.dtype and "float" in given:
        raise ValueError(
            f"Expected integer token ids for the input `{name}`. Received: dtype {given}. "
            f"Cast them: {name}.astype('int32')."
        )
    shape = value.shape
    if getattr(shape, "rank", 0) is None:  # TensorFlow does not know yet
        return
    shape = tuple(shape)
    if _fits(expected, shape):
        return
    meant = [other.name for other in inputs if _fits(other.shape, shape)]
    text = f"Expected the input `{name}` with the shape ({', '.join(map(str, ('batch', *expected[1:])))}). "
    raise ValueError(f"{text}Received: {shape}.{_remedy(name, expected, shape, meant)}")


def _fits(expected, shape):
    pairs = zip(expected[1:], shape[1:], strict=False)
    return len(expected) == len(shape) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def _remedy(name, expected, shape, meant):
    """What to do about another shape, where that can be said."""
    if meant:
        return f" That is the shape of `{meant[0]}`: are they swapped?"
    if shape == expected[1:]:
        return f" One row is a batch of one: {name}[None]."
    if len(shape) == len(expected) == 4 and (*shape[2:], shape[1]) == expected[1:]:
        return f" The channels come last: np.moveaxis({name}, 1, -1)."
    return " Prepare the rows with the model's preprocessor, or build the model for this shape."


def check_fit(model, x, y=None, batch_size=None):
    """Looks at what `fit` or `evaluate` was given: of arrays the sizes and first rows, of a dataset the first batch.

    Raises:
        ValueError: naming the input or target.
    """
    if isinstance(x, dict):
        check_arrays(model, x)
        _check_targets(model, x, y)
        rows = batch_size or 32
        check_batch([{k: v[:rows] for k, v in part.items()} for part in (x, named_targets(model, y))])
    elif hasattr(x, "as_numpy_iterator"):
        batch = next(iter(x.take(1)), ())
        batch = batch if isinstance(batch, tuple) else (batch,)
        if batch and isinstance(batch[0], dict):
            _check_targets(model, *[*batch, None][:2])
        check_batch(batch)


def check_arrays(model, x):
    """Looks at a dict of arrays that Keras will cut into batches: there are rows, and as many of every input.

    Raises:
        ValueError: naming the inputs.
    """
    for name, value in x.items():
        if not hasattr(value, "shape"):
            raise ValueError(
                f"Expected an array for the input `{name}`. Received: {type(value).__name__}. Take np.array({name})."
            )
    for tensor in getattr(model, "inputs", ()):
        if tensor.name in x:
            check_input(tensor, x[tensor.name], model.inputs)
    sizes = {name: len(value) for name, value in x.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"Expected as many rows of every input. Received: {_counts(sizes)}.")
    if 0 in sizes.values():
        raise ValueError(f"Expected at least one row. Received: {_counts(sizes)}.")


def _counts(sizes):
    return ", ".join(f"{size} of `{name}`" for name, size in sizes.items())


def named_targets(model, y):
    """Targets as a dict; an array alone is the target of a model that has one."""
    names = [*_losses(model), *getattr(model, "needs", {})]
    if not isinstance(y, dict):
        return {names[0]: y} if len(names) == 1 and hasattr(y, "shape") else {}
    return y


def _losses(model):
    """The losses that a model was compiled with, by target."""
    losses = getattr(model, "loss", None)
    return losses if isinstance(losses, dict) else {}


def _check_targets(model, x, y):
    """Looks at the targets of a model that was compiled with losses, or whose training `needs` some."""
    losses, needs = _losses(model), getattr(model, "needs", {})
    if not losses and not needs:
        return
    if y is None:
        many = {name: f"{name[:-1]}ies" if name.endswith("y") else f"{name}s" for name in [*losses, *needs]}
        names = ", ".join(f"{name!r}: {values}" for name, values in many.items())
        raise ValueError(f"Expected targets beside the inputs: model.fit(x, {{{names}}}). Received: none.")
    named = named_targets(model, y)
    if (losses and set(named) - set(losses)) or set(needs) - set(named):
        given = sorted(y) if isinstance(y, dict) else type(y).__name__
        raise ValueError(f"Expected targets with the keys {sorted([*losses, *needs])}. Received: {given}.")
    name, rows = next(iter((name, value.shape[0]) for name, value in x.items()))
    for target, value in named.items():
        if not hasattr(value, "shape"):
            raise ValueError(f"Expected an array for the target `{target}`. Received: {type(value).__name__}.")
        if value.shape[0] != rows:
            raise ValueError(
                f"Expected as many targets as rows. Received: {rows} of `{name}`, {value.shape[0]} of `{target}`."
            )
        if isinstance(losses.get(target), LabelCrossentropy):
            _check_labels(target, keras.ops.convert_to_numpy(value), model.output[target].shape[-1])
        elif target in needs:
            _check_needed(target, value, needs[target])


def _check_needed(name, value, rank):
    if str(getattr(value.dtype, "name", value.dtype)).startswith(("str", "bytes", "object")):
        raise ValueError(
            f"Expected numbers for `{name}`. Received: texts. Number them: np.unique({name}, return_inverse=True)[1]."
        )
    if len(value.shape) != rank and tuple(value.shape[rank:]) != (1,):
        expected = f"(batch{', …' * (rank - 1)}{',' * (rank == 1)})"
        raise ValueError(f"Expected `{name}` with the shape {expected}. Received: {tuple(value.shape)}.")


def _check_labels(name, labels, classes):
    expected = f"Expected class numbers from 0 to {classes - 1} for `{name}`. Received: "
    if labels.dtype.kind in "OSU":
        raise ValueError(f"{expected}texts. Number them: np.unique({name}, return_inverse=True)[1].")
    if labels.ndim > 1 and labels.shape[-1] == classes > 1:
        raise ValueError(f"{expected}the shape {labels.shape}. Of one-hot rows take the numbers: {name}.argmax(-1).")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{expected}{labels.min():g} to {labels.max():g}. Number them from 0, and build the model for all of them: "
            f"num_classes={int(labels.max() - min(labels.min(), 0)) + 1}."
        )


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
                raise ValueError(
                    f"Expected numbers in `{name}`. Received: NaN in row {row} of the first batch. Leave "
                    "the row out, or fill the gap."
                )
            if value.ndim in (4, 5) and value.size and (value.min() < -1e-3 or value.max() > 1 + 1e-3):
                raise ValueError(
                    f"Expected pixels in 0..1 in `{name}`. Received: {value.dtype} from {value.min():.4g} to "
                    f"{value.max():.4g}. Divide by 255 where they are bytes."
                )


@contextlib.contextmanager
def telling_ids():
    """Turns TensorFlow's error of a token id that the embedding does not have into a ValueError of a line."""
    try:
        yield
    except Exception as error:
        found = re.search(r"indices\[[\d,]*\] = (-?\d+) is not in \[0, (\d+)\)", str(error))
        if found is None or type(error).__name__ != "InvalidArgumentError":
            raise
        number, size = found.groups()
        raise ValueError(
            f"Expected token ids from 0 to {int(size) - 1}. Received: {number}. The model was built for another "
            "vocabulary than that of the preprocessor: see vocabulary_size."
        ) from None
