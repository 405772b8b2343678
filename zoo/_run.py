"""A trained model with everything around it: data, preprocessing, evaluation, prediction, search, export."""

import functools
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from mmkeras import data as sources
from mmkeras import export as exporting
from mmkeras import metrics
from mmkeras.data.manifest import read_split
from mmkeras.runs import RunFolder, replaced, write_json
from zoo import _classes, _registry, _weights  # noqa: F401  # loading a model needs its classes registered
from zoo._gallery import open_gallery, write_gallery
from zoo._raw import as_text, asked, contents


class Run:
    """What `zoo.train` returns and `zoo.load` reads.

    Attributes:
        path: the run folder; of weights that come with the zoo, where their metrics and figures are written.
        name: of the model.
        config: its hyperparameters, sizes inferred from the data included.
        model: the trained `keras.Model`.
        preprocessor: the fitted `mmkeras.data.Preprocessor`.
        source: the data it was trained on, opened when it is first needed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str,
        config: Any,
        preset: str = "base",
        seed: int = 0,
        skip_bad: bool = False,
        deterministic: bool = False,
    ) -> None:
        self.path = pathlib.Path(path)
        self.stored, self.called = self.path, self.path.as_posix()  # where config.json lies, and what `zoo.load` takes
        self.name = name
        self.config = config
        self.preset = preset
        self.seed = seed
        self.skip_bad = skip_bad
        self.deterministic = deterministic
        self.module = _registry.module(name)
        self.model: keras.Model = None
        self.preprocessor: sources.Preprocessor = None  # type: ignore[assignment]  # until it is fitted or read
        self.data: str = None  # type: ignore[assignment]
        self.columns: Mapping[str, str] = {}
        self.warm_start: list[str] = []
        self.mixed_precision: str | None = None
        self.data_service: str | None = None
        self.replicas = sources.ONE  # that train in this process

    def __repr__(self):
        return f"<Run of {self.name} in {self.path}>"

    @functools.cached_property
    def source(self) -> sources.Source:
        """The source the run was trained on."""
        return self.prepared(sources.open(self.data, self.columns, self.skip_bad))

    @property
    def saved(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return RunFolder(self.stored).read_config()

    def prepared(self, source: sources.Source) -> sources.Source:
        """A source as the model's `prepare` wants it, where it has one."""
        if not hasattr(self.module, "prepare"):
            return source
        return sources.Source(source.spec, self.module.prepare(self.config, source.splits), source.rule)

    @property
    def labels(self) -> Sequence[str]:
        """The labels or tags in the order of their numbers; empty where the model has none."""
        readers = [self.preprocessor.reader(name) for name in self.label_names]
        return readers[0].vocabulary if readers else ()

    @property
    def label_names(self) -> dict[str, str]:
        """The columns of labels or tags that are predicted, `{name: kind}`."""
        return {name: kind for name, kind in self.preprocessor.target_kinds.items() if kind in ("label", "tags")}

    def split(
        self,
        name: str = "test",
        data: str | os.PathLike[str] | None = None,
        columns: Mapping[str, str] | None = None,
        skip_bad: bool = False,
    ) -> sources.Split:
        """A split of the run's own source, or of another; a file given as `data` is taken whole.

        Args:
            name: of the split.
            data: another source, or None for the run's own.
            columns: which column of `data` is which, as in training if None.
            skip_bad: whether bad rows are left out; they are, too, if the run was trained so.
        """
        columns, skip_bad = self.columns if columns is None else columns, skip_bad or self.skip_bad
        if data is not None and pathlib.Path(data).is_file():
            split = read_split(pathlib.Path(data), pathlib.Path(data).stem, skip_bad).rename(columns)
            split = self.prepared(sources.Source(str(data), {split.name: split})).split(split.name)
        elif data is not None:
            split = self.prepared(sources.open(data, columns, skip_bad)).split(name)
        else:
            split = self.source.split(name)
        return usable(self, split, known_labels=True, skip_bad=skip_bad)

    def batches(self, split: sources.Split, batch_size: int | None = None) -> tf.data.Dataset:
        """Batches of a split as the model takes them, not shuffled."""
        batch_size = batch_size or min(self.config.batch_size, 256)  # more rows at once are no faster
        return sources.batches(split, self.preprocessor, batch_size, training=False)

    @functools.cached_property
    def outputs(self) -> Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]:
        """Function from a batch of the model's inputs to its outputs, as it predicts, in a graph."""
        specs = {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in self.model.input.items()}
        predict = functools.partial(lambda x: self.model(x, training=False))  # else all runs' traces count as one's
        return tf.function(predict, input_signature=[specs], autograph=False)

    def evaluate(
        self,
        split: str = "test",
        data: str | os.PathLike[str] | None = None,
        columns: Mapping[str, str] | None = None,
        skip_bad: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """The model's metrics on a split; they and the figures are written into the run folder.

        Args:
            split, data, columns, skip_bad: see `split`.
            **options: of the model's `evaluate`, such as `subsets=True` for `fusion_classifier`.

        Returns:
            `{what: {metric: number}}`.
        """
        rows = self.split(split, data, columns, skip_bad)
        with sources.naming_rows(rows, self.preprocessor):
            report = self.module.evaluate(self, rows, **options)
            write_json(self.path / "metrics" / f"{rows.name}.json", report)
            self.write_figures(rows)
        return report

    def write_figures(self, split: sources.Split, suffix: str = "") -> None:
        """Draws the model's figures of a split into the run folder, `<figure>-<split><suffix>.png`."""
        for name, figure in self.module.figures(self, split).items():
            with replaced(self.path / "figures" / f"{name}-{split.name}{suffix}.png") as beside:
                figure.savefig(beside, dpi=120)

    @functools.cached_property
    def signatures(self) -> dict[str, exporting.Signature]:
        """The serving functions by name, each a `mmkeras.export.Signature`."""
        return self.module.signatures(self.config, self.model, self.preprocessor.for_serving())

    def predict(self, signature: str = "serving_default", **raw: Any) -> dict[str, np.ndarray]:
        """Answers to raw values, as the exported model would give them.

        Args:
            signature: name of the serving function.
            **raw: a list a modality: pictures, sounds and clips as paths or encoded bytes, texts, lists of numbers.
                A modality left out is absent. Of few_shot the examples besides: `support_image`, `support_label`.

        Returns:
            `{output: array}`; strings as Python strings.

        Raises:
            ValueError: on an unknown signature or modality, or a file that cannot be read.
        """
        if signature not in self.signatures:
            raise ValueError(f"Unknown signature {signature!r}. The model has: {', '.join(self.signatures)}.")
        answer = asked(self, self.signatures[signature], self.signatures[signature].inputs, raw)
        return {name: as_text(value) if value.dtype == object else value for name, value in answer.items()}

    def read(self, **raw: Any) -> dict[str, tf.Tensor]:
        """Raw values, a list a modality as for `predict`, to the model's inputs."""
        specs = exporting.raw_specs(self.preprocessor)
        return asked(self, lambda tensors: self.preprocessor.graph(tensors)[0], specs, raw)

    def explain(self, target: str | None = None, **values: Any) -> dict[str, Any]:
        """What the model looked at in one row, see `zoo._explain.explain`.

        Args:
            target: the label, answer or tag whose score is explained; the predicted one if None.
            **values: a value a modality, as for `predict`, one row's.

        Returns:
            A dict with `of`, `score`, `cam`, `tokens`, `shapley`, `pictures` and the `figure`.
        """
        from zoo._explain import explain

        return explain(self, values, target)

    def examine(self) -> tuple[dict[str, Any], list[str]]:
        """What ails the run: `(measured, faults)`, numbers by name, and a line of advice for each fault."""
        from zoo._doctor import examine

        return examine(self)

    def embed(self, name: str, values: str | sources.Split | list[Any]) -> np.ndarray:
        """Embeddings `(rows, dim)` of one modality: of the column of a split or of its name, or of a list of texts."""
        signature = self.signatures[f"encode_{name}"]
        values = self.split(values) if isinstance(values, str) else values
        if isinstance(values, list):
            batches = ({name: values[i : i + 256]} for i in range(0, len(values), 256))
        else:
            batches = sources.raw_batches(values, [name], 256)
        return np.concatenate([signature(batch)["embedding"] for batch in batches])

    def embed_pixels(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Embeddings of decoded pictures `(rows, height, width, channels)` in 0..1, resized as need be."""
        tower = exporting.submodel(self.model, [name], [f"{name}_embedding"])
        pixels = tf.image.resize(pixels, self.config.image_size, antialias=True)
        batches = (pixels[i : i + 256] for i in range(0, len(pixels), 256))
        return np.concatenate([tower({name: batch}, training=False)[f"{name}_embedding"] for batch in batches])

    def pictures(self, name: str, split: sources.Split, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Decoded pictures of some rows of a split, a list of arrays."""
        decode = exporting.submodel(self.preprocessor.inputs, [name], [name])
        batches = sources.raw_batches(split.take(rows), [name]).map(decode)
        return [picture for batch in batches for picture in batch[name].numpy()]

    def show(
        self, values: Mapping[str, Any], names: Sequence[str] | None = None, decoded: bool = False
    ) -> list[list[np.ndarray | str]]:
        """Modalities of a batch as cells of a `mmkeras.plots.table`: pictures as arrays, texts as strings.

        Args:
            values: `{name: pixels, token ids or numbers}`; with `decoded`, texts are logits.
            names: the modalities to show.
            decoded: whether these are a model's outputs.
        """
        columns = []
        for name in names or self.config.names:
            kind, value = self.config.modalities[name], np.array(values[name])
            if kind == "image":
                columns.append(list(value))
            elif kind == "audio":  # time across, low pitches at the bottom
                columns.append([row.T[::-1, :, None] for row in value])
            elif kind == "video":  # four frames beside each other
                shown = value[:, np.linspace(0, value.shape[1] - 1, 4).round().astype(int)]
                columns.append([np.concatenate(list(clip), axis=1) for clip in shown])
            elif kind == "text":
                columns.append(self.texts(name, value.argmax(-1) if decoded else value))
            else:
                columns.append([" ".join(f"{v:.2f}" for v in row[:8]) for row in value])
        return [list(cell) for cell in zip(*columns, strict=True)]

    def texts(self, name: str, ids: np.ndarray) -> list[str]:
        """Token ids `(rows, length)` as texts."""
        return [text.decode() for text in self.preprocessor.reader(name).texts(tf.constant(ids, tf.int32)).numpy()]

    def compare(self, name: str, true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """How near a reconstructed modality comes to the true one, both as they were read; texts as token ids."""
        if self.config.modalities[name] != "text":
            of_mean = np.mean((true - true.mean(axis=0)) ** 2)
            return {"mse": float(np.mean((true - predicted) ** 2)), "mse_of_mean": float(of_mean)}
        texts, said = self.texts(name, true), self.texts(name, predicted)
        return {
            "token_accuracy": float((true == predicted)[true != 0].mean()),
            "exact_match": metrics.exact_match(said, [[text] for text in texts]),
            "bleu4": metrics.bleu(said, [[text] for text in texts]),
        }

    def search(
        self,
        query: str | bytes | pathlib.Path,
        index: str | os.PathLike[str],
        k: int = 10,
        id_column: str | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> tuple[list[str], list[float], list[np.ndarray]]:
        """The items of a gallery nearest to a text or a picture.

        Args:
            query: a text, or a path to a picture where the model has no text.
            index: a manifest file, or a source (its test split), or a folder that `index` wrote.
            k: number of items.
            id_column: column whose cells name the items; `id`, or the picture's path, if None.
            columns: which column of the index is which, as in training if None.

        Returns:
            `(ids, scores, pictures)`, the best first.
        """
        if k < 1:
            raise ValueError(f"Expected to be asked for one item or more. Received: k={k}.")
        gallery = open_gallery(self, index, id_column, columns)
        kind = self.config.modalities[gallery.asked]
        query = contents(gallery.asked, kind, query) if kind in sources.ENCODED else query
        places, scores = (found[0] for found in gallery.search(self.embed(gallery.asked, [query]), k))
        places, scores = places[places >= 0], scores[places >= 0]
        shows = self.config.modalities[gallery.shown] == "image"
        pictures = self.pictures(gallery.shown, gallery.split, places) if shows else []
        return [gallery.ids[i] for i in places], scores.tolist(), pictures

    def index(
        self,
        to: str | os.PathLike[str],
        index: str | os.PathLike[str],
        id_column: str | None = None,
        columns: Mapping[str, str] | None = None,
        approximate: Literal["hnsw", "ivf"] | None = None,
    ) -> tuple[int, float | None]:
        """Keeps a gallery in a folder, which `search` and `export` take for their `index`; the items' number.

        Args:
            to: the folder.
            index, id_column, columns: see `search`.
            approximate: `"hnsw"` or `"ivf"` for an index of faiss besides, see `zoo._gallery.build_faiss`.

        Returns:
            `(number of items, recall)`: of the nearest ten, what share the index of faiss finds; None without.
        """
        gallery = write_gallery(self, to, index, id_column, columns, approximate)
        return len(gallery.ids), gallery.recall

    def export(
        self,
        to: str | os.PathLike[str] = "servables",
        index: str | os.PathLike[str] | None = None,
        id_column: str | None = None,
        columns: Mapping[str, str] | None = None,
        k: int = 10,
        name: str | None = None,
    ) -> pathlib.Path:
        """Writes a SavedModel `<to>/<name>/<version>` and returns its path.

        Args:
            to: folder of all servables.
            index: a gallery for the signature `search` of a model that compares modalities, see `search`.
            id_column, columns: see `search`.
            k: number of items that `search` gives.
            name: under which it is served; that of the model if None.

        Raises:
            ValueError: if the name is none that can stand in a URL, or `export` of `mmkeras.export` raises it.
        """
        name = self.name if name is None else name
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise ValueError(f"Expected a name of letters, digits, `_`, `-` and `.` to serve as. Received: {name!r}.")
        signatures = dict(self.signatures)
        if index is not None:
            gallery = open_gallery(self, index, id_column, columns)
            embedded = exporting.SearchIndex(gallery.embeddings, gallery.ids)
            signatures["search"] = exporting.search_signature(embedded, self.signatures[f"encode_{gallery.asked}"], k)
        words = {name: self.preprocessor.reader(name).vocabulary[4:] or ["a"] for name in self.config.of_kind("text")}
        sample = exporting.samples(self.config.modalities, words)
        path = exporting.export(pathlib.Path(to, name), signatures, self.preprocessor.tables, sample)
        exporting.write_server_files(to)
        return path


def _from_here(name, folder):
    """What stands in a run as `zoo._resume.relative` wrote it, its paths as seen from here."""
    kind, _, rest = name.partition(":")
    return os.path.normpath(folder.path / rest) if kind == "path" else name


def load(path: str | os.PathLike[str], needs_model: bool = True, **hyperparameters: Any) -> Run:
    """The Run in a folder.

    Args:
        path: the folder, or the name of weights that come with the zoo, such as `"captioner:scenes"`.
        needs_model: whether one whose training has not ended is an error.
        **hyperparameters: of how the model is used, such as the captioner's `decoding` and `beam_width`.

    Raises:
        FileNotFoundError: if there is no run, or its training has not ended.
        ValueError: on a hyperparameter that training has settled.
    """
    folder, out = _stored(path)
    saved = folder.read_config()
    module = _registry.module(saved["model"])
    of_use = getattr(module, "OF_USE", ())
    if set(hyperparameters) - set(of_use):
        raise ValueError(
            f"Expected hyperparameters of how `{saved['model']}` is used: {', '.join(of_use) or 'none'}. "
            f"Received: {', '.join(sorted(set(hyperparameters) - set(of_use)))}."
        )
    config = module.Config(**{**saved["hyperparameters"], **hyperparameters})
    options = {key: saved[key] for key in ("preset", "seed", "skip_bad", "deterministic")}
    run = Run(out, saved["model"], config, **options)
    run.stored, run.called = folder.path, str(path)
    run.data, run.columns = _from_here(saved["data"], folder), saved["columns"]
    run.warm_start = [_from_here(other, folder) for other in saved["warm_start"] or []]
    run.mixed_precision = saved.get("mixed_precision")
    inputs, targets = folder.load_model("preprocess"), folder.load_model("targets")
    run.preprocessor = sources.Preprocessor(inputs, targets, run.module.augment(config))
    if needs_model:
        run.model = folder.load_model("model")
        if run.model is None:
            raise FileNotFoundError(
                f"{folder.path} has no model.keras: its training has not ended. Go on with --resume."
            )
        _registry.compile_model(run.module, run.model, config)
    return run


def _stored(path):
    """(the RunFolder that a path or a name means, the folder for what is written of it)."""
    if _weights.is_name(path):
        return RunFolder(_weights.folder_of(str(path))), pathlib.Path("runs", str(path).replace(":", "-"))
    return RunFolder(path), pathlib.Path(path)


def usable(run, split, known_labels=False, skip_bad=None):
    """The rows of a split that the run's model can use, their cells made plain."""
    skip_bad = run.skip_bad if skip_bad is None else skip_bad
    pre, config = run.preprocessor, run.config
    kinds = {**config.modalities, **{name: kind for name, kind in pre.target_kinds.items() if kind}}
    split = split.replace({}, {name: kind for name, kind in kinds.items() if name in split.kinds})
    required = getattr(config, "required", [])
    modalities = {name: config.modalities[name] for name in pre.input_names if name not in required}
    known = {name: set(pre.reader(name).vocabulary) for name in run.label_names} if run.labels or known_labels else {}
    targets = [*pre.target_names, *required]
    return sources.checked(split, modalities, targets, skip_bad, known=known, widths=pre.widths)
