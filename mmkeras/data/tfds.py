"""TensorFlow Datasets as sources."""

import contextlib
import functools
import io
import logging
import os
import pathlib
import re
import socket
import urllib.parse
import urllib.request
import wave

import numpy as np

from mmkeras.data.source import KINDS, DataError, Split, divide, near

# Of these sets: which feature is which of our columns. Of any other, every feature is a column under its own name.
_COLUMNS = {
    "mnist": {"image": "image", "label": "label"},
    "fashion_mnist": {"image": "image", "label": "label"},
    "cifar10": {"image": "image", "label": "label"},
    "imdb_reviews": {"text": "text", "label": "label"},
    "coco_captions": {"image": "image", "captions/text": "text"},
    "spoken_digit": {"audio": "audio", "label": "label"},
}
_SPLITS = {"val": "validation"}
_LEFT_OUT = ("unsupervised",)  # of imdb_reviews: it has no labels


def open_tfds(name):
    """A source from TensorFlow Datasets, downloaded if the folder `TFDS_DATA_DIR` does not hold it prepared.

    Images stay encoded as they are, sounds become WAV bytes, labels their names; the order is that of the files. A
    split is read whole when one of its columns is first asked for, and kept in memory: MNIST needs 20 MB,
    coco_captions about 20 GB. For the latter `coco:captions_train2014.json` is better, which keeps paths.

    Args:
        name: as `tfds.builder` takes it: `mnist`, `imdb_reviews/plain_text`, `cifar10:3.0.2`. Of sets not in the
            table above, the parts of nested features are named `objects/label`; features other than images, sounds
            of a known sample rate, texts, labels, numbers and lists of the last three are left out.

    Raises:
        DataError: if there is no such set, or it is not prepared and cannot be.
    """
    with _quiet():
        builder = _builder(name)
        if not builder.is_prepared():
            _prepare(builder, name)
        leaves = {"/".join(path): (path, feature) for path, feature in _leaves(builder.info.features)}
        columns = _COLUMNS.get(re.split("[/:]", name)[0]) or {column: column for column in leaves}
        chosen = {columns[column]: leaf for column, leaf in leaves.items() if column in columns}
        splits = {}
        for split, info in builder.info.splits.items():
            if split not in _LEFT_OUT:
                ours = _SPLITS.get(split, split)
                splits[ours] = _split(builder, name, split, ours, chosen, info.num_examples)
    return divide(f"tfds:{name}", splits)


def _split(builder, name, split, ours, leaves, num_rows):
    @functools.cache
    def table():
        return _read(builder, split, leaves)

    def column(key):
        return lambda: table()[key]

    columns = {key: column(key) for key in leaves}
    kinds = {key: _kind(key, *leaf) for key, leaf in leaves.items()}
    return Split(ours, columns, kinds, num_rows, where=lambda i: f"tfds:{name}, {split}, row {i + 1}")


def _kind(column, path, feature):
    if column in KINDS:
        return column
    kinds = {"Image": "image", "Audio": "audio", "ClassLabel": "label"}
    return kinds.get(type(feature).__name__, "other") if len(path) == 1 else "other"


def _builder(name):
    import tensorflow_datasets as tfds

    try:  # TFDS reads the variable when it is imported, which may have been before it was set
        return tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    except Exception as error:  # of many types: not found, not parsable, a package missing
        if isinstance(error, tfds.core.registered.DatasetNotFoundError):
            hint = near(name, _COLUMNS) or near(name, tfds.list_builders(with_community_datasets=False))
            raise DataError(
                f"TensorFlow Datasets has no data set `{name}`.{hint} Ready for use: {', '.join(_COLUMNS)}; the others "
                "with --columns."
            ) from None
        raise DataError(f"tfds:{name} cannot be opened: {_first_line(error)}.") from error


def _prepare(builder, name):
    """Downloads the set, or says what to do."""
    hosts = [urllib.parse.urlsplit(url).hostname for url in builder.url_infos or ()]
    root = pathlib.Path(str(builder.data_dir).split(f"/{builder.name}/")[0])
    try:
        if hosts and not urllib.request.getproxies() and not (root / "downloads").exists():
            socket.getaddrinfo(hosts[0], 443)  # TFDS tries for minutes before it says that there is no network
        print(f"tfds:{name} is being downloaded and prepared in {builder.data_dir}")
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except Exception as error:  # of many types: no network, a read-only folder, a checksum, files fetched by hand
        raise DataError(
            f"tfds:{name} is not prepared in {builder.data_dir} and cannot be downloaded ({_first_line(error)}). Set "
            "TFDS_DATA_DIR to the folder that holds it, or connect to the network and run again."
        ) from error


def _first_line(error):
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _leaves(feature, path=(), in_list=False):
    """Pairs of path and feature, those of nested features one by one."""
    from tensorflow_datasets import features

    is_list = type(feature) is features.Sequence
    inner = feature.feature if is_list else feature
    if isinstance(inner, features.FeaturesDict):
        for name, part in inner.items():
            yield from _leaves(part, (*path, name), in_list or is_list)
        return
    is_file = isinstance(feature, features.Image) or (isinstance(feature, features.Audio) and feature.sample_rate)
    is_plain = type(inner) in (features.ClassLabel, features.Text, features.Tensor, features.Scalar)
    if (is_file and not in_list) or (is_plain and len(inner.shape) < 2):
        yield path, feature


def _read(builder, split, leaves):
    """All columns of a split, `{name: list of cells}`, in one pass."""
    import tensorflow_datasets as tfds

    encoded = {path: tfds.decode.SkipDecoding() for path, f in leaves.values() if isinstance(f, tfds.features.Image)}
    decoding = tfds.decode.PartialDecoding(
        _nested({path: True for path, _ in leaves.values()}), decoders=_nested(encoded)
    )
    with _quiet():
        dataset = builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=decoding,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        columns = {column: [] for column in leaves}
        for batch in dataset.ragged_batch(256):
            for column, (path, feature) in leaves.items():
                values = functools.reduce(lambda value, part: value[part], path, batch)
                columns[column].extend(_cells(feature, values))
    return columns


def _nested(values):
    """`{("a", "b"): 1}` to `{"a": {"b": 1}}`."""
    tree = {}
    for path, value in values.items():
        place = tree
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
    return tree


def _cells(feature, values):
    """The cells of a batch of values `(batch, ...)`."""
    kind = type(feature).__name__
    if kind == "Image":
        return values.numpy().tolist()
    if kind == "Audio":
        return [_wav(samples, feature.sample_rate) for samples in values.numpy()]
    inner = getattr(feature, "feature", feature)
    names = None
    if type(inner).__name__ == "ClassLabel":
        names = [inner.int2str(i) for i in range(inner.num_classes)]
    return _plain(values.to_list() if hasattr(values, "to_list") else values.numpy().tolist(), names)


def _plain(value, names):
    if isinstance(value, list):
        return [_plain(part, names) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if names is not None:
        return names[value] if value >= 0 else ""  # -1: not told, in the test splits of competitions
    return value


def _wav(samples, rate):
    """Samples `(length,)` or `(length, channels)`, integers of 16 bits or floats in -1..1, as WAV bytes."""
    if samples.dtype.kind == "f":
        samples = np.round(samples * 32767)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[1] if samples.ndim > 1 else 1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(samples, -32768, 32767).astype("<i2").tobytes())
    return buffer.getvalue()


@contextlib.contextmanager
def _quiet():
    """Without progress bars, and without log lines below errors."""
    import tensorflow_datasets as tfds

    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow", "urllib3")]
    levels = [logger.level for logger in loggers]
    tfds.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        tfds.enable_progress_bar()
