"""From a split to batches: raw cells, the preprocess model, augmentation, in a seeded order.

The order of the rows and every random change are a pure function of (seed, epoch, row or step), so that a run that
was interrupted continues with the very batches it would have seen.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from mmkeras.data.check import FAULTS, frame_paths
from mmkeras.data.kept_graph import kept
from mmkeras.data.service import LOST, by_workers
from mmkeras.data.source import ENCODED, DataError, Split
from mmkeras.data.stored import contents, is_slice, missing, read_file, read_slice
from mmkeras.layers import (
    encode_label,
    raw_presence,
    raw_readers,  # noqa: F401  # loading a preprocess model needs them registered
)

ONE = (0, 1, 1)  # replica
PARALLEL = min(os.cpu_count() or 1, 16)  # batches that are prepared at a time
MOST_ROWS = 512  # that are prepared at once
CACHE_BYTES = 2**29  # a split whose preprocessed arrays are smaller is kept in memory


@dataclasses.dataclass
class Preprocessor:
    """Raw rows to what a model is trained on.

    Args:
        inputs: model from raw values `{name: bytes, text or vector}` to the inputs of the model to train.
        targets: model from raw answers to its targets `y`, or None where it learns from its inputs alone.
        augment: function of (inputs, seed) for training, see `Augment`; or None.
        vocabulary_size: most tokens that the model to train takes, the four special ones counted; None for any number.
        fitted: a mark that every `adapt` replaces by another; made where none is given.
    """

    inputs: keras.Model
    targets: keras.Model | None = None
    augment: Callable[..., Any] | None = None
    vocabulary_size: int | None = None
    fitted: object = dataclasses.field(default_factory=object, repr=False, compare=False)  # new after every `adapt`
    _graph: tuple[Any, Any] = dataclasses.field(default=(None, None), init=False, repr=False, compare=False)

    @property
    def input_names(self) -> list[str]:
        """Names of the raw values that the inputs are made from."""
        return [tensor.name for tensor in self.inputs.inputs]

    @property
    def widths(self) -> dict[str, int]:
        """How many numbers each vector has, of those that have been fitted."""
        layers = {name: self.reader(name) for name in self.input_names + self.target_names}
        return {name: len(layer.mean) for name, layer in layers.items() if getattr(layer, "mean", None) is not None}

    @property
    def target_names(self) -> list[str]:
        """Names of the raw answers."""
        return [tensor.name for tensor in self.targets.inputs] if self.targets else []

    @property
    def target_kinds(self) -> dict[str, str | None]:
        """What each raw answer is: a label, tags, a number, or None where it is read as a modality."""
        kinds = {encode_label.EncodeLabel: "label", encode_label.EncodeTags: "tags", encode_label.ReadNumber: "number"}
        return {name: kinds.get(type(self.reader(name))) for name in self.target_names}

    def reader(self, name: str) -> keras.layers.Layer:
        """The layer that reads a raw value: a TokenizeText, a DecodeImage …"""
        tensors = [t for model in (self.inputs, self.targets) if model for t in model.inputs if t.name == name]
        layers = [node.operation for tensor in tensors for node in tensor._keras_history.operation._outbound_nodes]
        return next(layer for layer in layers if not isinstance(layer, raw_presence.RawPresence))

    def for_serving(self) -> Self:
        """The same Preprocessor, its vocabularies shared, whose errors all name the row that is to blame."""

        def naming(layer):
            if not hasattr(layer, "names_all"):
                return layer
            return type(layer).from_config({**layer.get_config(), "names_all": True})

        return dataclasses.replace(self, inputs=keras.models.clone_model(self.inputs, clone_function=naming))

    @property
    def tables(self) -> list[Any]:
        """The look-up tables of its vocabularies."""
        readers = [self.reader(name) for name in self.input_names + self.target_names]
        return [reader.table for reader in readers if getattr(reader, "table", None) is not None]

    def __call__(self, raw: Mapping[str, tf.Tensor]) -> tuple[Any, ...]:
        """Raw values `{name: (batch, ...)}` to `(inputs, targets)`; to inputs alone where there are no targets.

        Answers may be left out, as when predicting: then `targets` is None.

        Raises:
            ValueError: if it has not been fitted.
        """
        for name in self.input_names + self.target_names:
            if getattr(self.reader(name), "table", "none") is None:
                raise ValueError(
                    f"Expected a preprocessor that has seen training rows. Received: one without words for `{name}`. "
                    "Fit it: mmkeras.data.adapt(preprocessor, source.train)."
                )
        x = self.inputs({name: raw[name] for name in self.input_names})
        if self.targets is None:
            return (x,)
        has_targets = all(name in raw for name in self.target_names)
        return x, self.targets({name: raw[name] for name in self.target_names}) if has_targets else None

    @property
    def graph(self) -> tf.types.experimental.PolymorphicFunction:
        """`__call__` as a graph, traced once for all splits, and anew after another fit, whose tables are others."""
        if self._graph[0] is not self.fitted:
            self._graph = self.fitted, tf.function(self.__call__, autograph=False, reduce_retracing=True)
        return self._graph[1]


def batches(
    split: Split,
    preprocessor: Preprocessor,
    batch_size: int = 64,
    training: bool | None = None,
    seed: int = 0,
    epoch: int | None = None,
    drop_remainder: bool = False,
    order: np.ndarray | None = None,
    first_step: int = 0,
    replicas: tuple[int, int, int] = ONE,
    service: str | None = None,
) -> tf.data.Dataset:
    """Batches `(inputs, targets)` of a split, ready for `fit` and `evaluate`; `(inputs,)` where there are no targets.

    Args:
        split: a Split.
        preprocessor: a fitted Preprocessor.
        batch_size: rows a batch.
        training: whether the rows are shuffled and augmented; by default for the split `train` alone.
        seed: of the order and the augmentation.
        epoch: the epoch whose order is wanted; None for a dataset that is shuffled anew at every pass.
        drop_remainder: whether an uneven last batch is left out.
        order: numbers of the rows in another order, in which a row may come twice or not at all.
        first_step: batches that are left out at the beginning, where there is an order or an epoch.
        replicas: `(first, end, number)`: each batch is shared out evenly among a number of replicas, and only what
            those from `first` to before `end` get is read, one after the other. Without an order the rows are in
            theirs.
        service: address `"host:port"` of input workers (`zoo data serve`) which read, decode and augment; the batches
            are the same. Without an order the rows are in theirs.

    Returns:
        A `tf.data.Dataset`.

    Raises:
        DataError: if a row cannot be decoded.
    """
    training = split.name == "train" if training is None else training
    arrays = None if service else _cached(split, preprocessor, batch_size)
    if order is None and training and epoch is not None:
        order = shuffled(len(split), seed, epoch)
    if order is None and (replicas != ONE or service):
        order = np.arange(len(split))
    piece = _piece(batch_size) if order is not None and replicas == ONE and not service else batch_size
    if order is not None:
        if drop_remainder:
            order = order[: len(order) - len(order) % batch_size]
        rows, numbers = row_numbers(order, piece, first_step=first_step * batch_size // piece, replicas=replicas)
        parts = _numbered(rows, numbers, (seed * 10_007 + (epoch or 0)) % 2**31)
    else:
        parts = _anew_every_pass(len(split), batch_size, training, seed, drop_remainder)
    load = _loader(split, preprocessor, training, arrays, service)
    if service:
        numbered = tf.autograph.experimental.do_not_convert(lambda rows, draw: (draw[1], load(rows, draw)))
        return by_workers(_in_parallel(parts, numbered), numbers, service)
    dataset = _in_parallel(parts, load)
    if order is None or piece == batch_size:
        return dataset.prefetch(2)
    # No second batch of that size waits in memory: its steps take much longer than reading it.
    steps = -(-len(order) // batch_size) - first_step
    return dataset.rebatch(batch_size).apply(tf.data.experimental.assert_cardinality(steps))


def _loader(split, preprocessor, training, arrays, service):
    """A function from row numbers `(batch,)` and a draw to a batch, preprocessed; from `arrays`, where it is so."""
    fetch = _raw_fetcher(split, preprocessor, training) if arrays is None else None

    @tf.autograph.experimental.do_not_convert
    def load(indices, draw):
        if arrays is None:  # Python cannot be sent to other processes
            raw = fetch(indices, draw)
            data = preprocessor.graph(raw) if service else kept(preprocessor.graph, raw)
        else:
            data = tf.nest.map_structure(lambda array: tf.gather(array, indices), arrays)
        if training and preprocessor.augment:
            return preprocessor.augment(data[0], draw), *data[1:]
        return data

    return load


def _numbered(rows, numbers, draw):
    """`(rows, (draw, number))` of every batch, from which its augmentation is drawn."""
    return tf.data.Dataset.from_tensor_slices((rows, numbers)).map(lambda rows, n: (rows, tf.stack([draw, n])))


def _anew_every_pass(num_rows, batch_size, shuffle, seed, drop_remainder):
    """`(rows, draw)` of every batch, in another order and with other draws at each pass."""
    rows = tf.data.Dataset.range(num_rows)
    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    draws = draws.map(lambda n: tf.cast(n % 2**31, tf.int32)).batch(2)
    if shuffle:
        rows = rows.shuffle(num_rows, seed=seed, reshuffle_each_iteration=True)
    return tf.data.Dataset.zip(rows.batch(batch_size, drop_remainder=drop_remainder), draws)


def _in_parallel(dataset, function):
    """The dataset's elements through a function, in their order.

    Without TensorFlow's thread that tunes how many are at work: an iterator that is done with has to wait for it, which
    takes from a fifth of a second to several at the end of an epoch.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.map(function, num_parallel_calls=PARALLEL, deterministic=True).with_options(options)


def _piece(batch_size):
    """How many rows of a batch are prepared at once: of a large one not all, which would take much memory."""
    divisors = (size for size in range(MOST_ROWS, MOST_ROWS // 8, -1) if batch_size % size == 0)
    return batch_size if batch_size <= MOST_ROWS else next(divisors, batch_size)


def row_numbers(
    order: np.ndarray,
    batch_size: int,
    drop_remainder: bool = False,
    first_step: int = 0,
    replicas: tuple[int, int, int] = ONE,
) -> tuple[np.ndarray | tf.RaggedTensor, np.ndarray]:
    """The numbers of the rows of every batch `(batches, rows)`, ragged where they are uneven, and that of the batch.

    Args:
        order: numbers of the rows.
        batch_size, drop_remainder, first_step, replicas: see `batches`. Where there are several replicas, each one's
            part of a batch has a number of its own, and none is empty: a last batch of fewer rows than replicas joins
            the one before it.

    Raises:
        ValueError: if there are fewer rows than replicas.
    """
    first, end, count = replicas
    ends, rest = list(range(batch_size, len(order) + 1, batch_size)), len(order) % batch_size
    if rest and not drop_remainder:
        if len(order) < count:
            raise ValueError(f"Expected at least {count} rows, one for each replica. Received: {len(order)}.")
        ends = [*ends[:-1], len(order)] if ends and rest < count else [*ends, len(order)]
    parts: list[np.ndarray] = []
    numbers: list[int] = []
    for step in range(first_step, len(ends)):
        batch = order[step * batch_size : ends[step]]
        parts += np.array_split(batch, count)[first:end]
        numbers += range(step * count + first, step * count + end)
    sizes = [len(part) for part in parts]
    rows = np.concatenate([np.zeros(0, "int64"), *parts])
    rows = rows.reshape(len(parts), -1) if len(set(sizes)) == 1 else tf.RaggedTensor.from_row_lengths(rows, sizes)
    return rows, np.array(numbers, "int32")


def shuffled(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers of the rows in the order of an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def raw_batches(
    split: Split, names: Sequence[str], batch_size: int = 64, training: bool = False, seed: int = 0
) -> tf.data.Dataset:
    """Raw rows `{name: (batch, ...)}` of a split in its order, as a serving client would send them."""
    fetch = _fetcher(split, names, training)
    rows = tf.data.Dataset.range(len(split)).batch(batch_size)
    return _in_parallel(rows, lambda indices: fetch(indices, (seed, 0))).prefetch(2)


def _cached(split, preprocessor, batch_size):
    """The preprocessed arrays of a split, if they are small enough to keep and the same in every epoch."""
    if preprocessor.fitted in split.arrays:
        return split.arrays[preprocessor.fitted]
    names = preprocessor.input_names + preprocessor.target_names
    texts = [split.cells(name) for name in names if split.kinds[name] == "text"]
    several = any(isinstance(cell, list) for cells in texts for cell in cells)
    outputs = [*preprocessor.inputs.outputs, *(preprocessor.targets.outputs if preprocessor.targets else ())]
    size = 4 * len(split) * sum(np.prod([n or 1 for n in output.shape[1:]], dtype="int64") for output in outputs)
    if several or size > CACHE_BYTES:
        return None
    fetch = _raw_fetcher(split, preprocessor, training=False)
    rows = tf.data.Dataset.range(len(split)).batch(batch_size)
    read = tf.autograph.experimental.do_not_convert(lambda i: kept(preprocessor.graph, fetch(i, (0, 0))))
    dataset = _in_parallel(rows, read)
    arrays, done = None, 0
    with naming_rows(split, preprocessor):
        for part in dataset.as_numpy_iterator():
            if arrays is None:
                arrays = tf.nest.map_structure(lambda x: np.empty((len(split), *x.shape[1:]), x.dtype), part)
            count = len(tf.nest.flatten(part)[0])
            for whole, piece in zip(tf.nest.flatten(arrays), tf.nest.flatten(part), strict=True):
                whole[done : done + count] = piece
            done += count
    arrays = tf.nest.map_structure(tf.constant, arrays)
    split.arrays[preprocessor.fitted] = arrays
    return arrays


@contextlib.contextmanager
def naming_rows(split: Split, preprocessor: Preprocessor) -> Iterator[None]:
    """Turns TensorFlow's error of a file that is gone or cannot be decoded, in code that reads, into a DataError.

    TensorFlow does not say which row it was: the rows are looked at again. A batch that input workers have lost is told
    as well.
    """
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.UnknownError) as error:
        lost = re.search(rf"{LOST} \S+", str(error))
        if lost:
            raise DataError(f"{lost[0]}: one of them has ended. Start them again and go on with --resume.") from None
        if isinstance(error, tf.errors.UnknownError):
            raise
        names = [n for n in preprocessor.input_names + preprocessor.target_names if split.kinds[n] in ENCODED]
        broken = next(_broken_rows(split, preprocessor, names), None)
        raise broken or error from None


def _broken_rows(split, preprocessor, names):
    for name in names:
        decode = tf.function(preprocessor.reader(name), autograph=False)
        for i, cell in enumerate(split.cells(name)):
            if not cell:
                continue
            try:
                decode(tf.constant([encoded(cell)]))
            except (tf.errors.InvalidArgumentError, DataError):
                fault = FAULTS[split.kinds[name]](cell) or f"TensorFlow cannot decode the file in `{name}`"
                yield DataError(f"{split.where(i)}: {fault}. Correct the file, or leave it out with --skip-bad.")


def _raw_fetcher(split, preprocessor, training):
    return _fetcher(split, [*preprocessor.input_names, *preprocessor.target_names], training, preprocessor.widths)


def _fetcher(split, names, training, widths=None):
    """A function from row numbers `(batch,)` and a draw to raw values `{name: (batch, ...)}`.

    Args:
        widths: `{vector: numbers}`, of those that all rows may lack.
    """
    columns = {}
    for name in dict.fromkeys(names):
        cells = split.cells(name)
        if split.kinds[name] in ENCODED:
            cells = _located(cells, split.folders[name])
        columns[name] = _column(split.kinds[name], cells, training, (widths or {}).get(name))
    return lambda rows, draw: {name: column(rows, draw) for name, column in columns.items()}


def _located(cells, folder):
    """Paths as they stand in a table, as seen from here; those of rows that were checked are so already."""
    if folder is None:
        return cells
    inside = f"{pathlib.Path(folder)}{os.sep}"
    return [
        os.path.join(folder, cell) if isinstance(cell, str) and cell and not cell.startswith(inside) else cell
        for cell in cells
    ]


def _column(kind, cells, training, width):
    if kind in ENCODED:
        if all(isinstance(cell, bytes) or not cell for cell in cells):
            contents = tf.constant(np.array(cells, dtype=object), tf.string)
            return lambda rows, draw: tf.gather(contents, rows)
        if any(isinstance(cell, bytes) for cell in cells):
            raise DataError("A column holds paths in some rows and encoded bytes in others: expected one of the two.")
        if any(os.path.isdir(cell) for cell in cells):
            files = tf.ragged.constant([frame_paths(cell) if cell else [] for cell in cells], dtype=tf.string)
            return lambda rows, draw: tf.map_fn(
                _read_frames, tf.gather(files, rows), fn_output_signature=tf.string, parallel_iterations=16
            )
        paths = tf.constant(np.array(cells, dtype=object), tf.string)
        read = read_slice if any(map(is_slice, cells)) else read_file
        return lambda rows, draw: tf.map_fn(read, tf.gather(paths, rows), parallel_iterations=16)
    if kind == "vector":
        absent = [float("nan")] * (width or max(map(len, cells)))
        table = tf.constant([list(cell) or absent for cell in cells], tf.float32)
        return lambda rows, draw: tf.gather(table, rows)
    if kind == "tags":
        cells = ["\t".join(cell) for cell in cells]
    if any(isinstance(cell, list) for cell in cells):
        texts = tf.ragged.constant([cell if isinstance(cell, list) else [cell] for cell in cells], dtype=tf.string)
        return lambda rows, draw: _choose(texts, rows, draw, training)
    texts = tf.constant([str(cell) for cell in cells])
    return lambda rows, draw: tf.gather(texts, rows)


def _read_frames(paths):
    """The files of a clip as DecodeVideo takes them."""

    def several():
        return tf.io.serialize_tensor(tf.map_fn(tf.io.read_file, paths))

    one = tf.shape(paths)[0] < 2
    return tf.cond(one, lambda: read_file(tf.strings.reduce_join(paths)), several)


def encoded(cell: str | bytes) -> bytes:
    """A cell of an encoded modality, bytes or a path, as a client would send it: a folder of frames packed.

    Raises:
        DataError: if there is no such file.
    """
    if not cell:
        return b""
    if missing(cell):
        raise DataError(f"{missing(cell)[0].upper()}{missing(cell)[1:]}.")
    if isinstance(cell, str) and os.path.isdir(cell):
        return tf.io.serialize_tensor([contents(path) for path in frame_paths(cell)]).numpy()
    return contents(cell)


def _choose(texts, rows, draw, training):
    """One of each row's texts: at random in training, the first otherwise."""
    counts = tf.gather(texts.row_lengths(), rows)
    chosen = tf.zeros_like(counts)
    if training:
        draws = tf.random.stateless_uniform(tf.shape(rows), tf.cast(draw, tf.int32))
        chosen = tf.minimum(tf.cast(draws * tf.cast(counts, tf.float32), counts.dtype), counts - 1)
    return tf.gather(texts.flat_values, tf.gather(texts.row_starts(), rows) + chosen)
