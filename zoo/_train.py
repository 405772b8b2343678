"""Training a model on a source: from its name to a run folder."""

import functools
import os
import pathlib
import resource
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

import mmkeras
from mmkeras import data as sources
from mmkeras import plots, training
from mmkeras.diagnosis import Doctor
from mmkeras.runs import RunFolder, remove_beside, replaced
from zoo import _registry
from zoo._doctor import one_batch
from zoo._epochs import class_weights, epoch_batches, size_and_steps, validation_batches
from zoo._fit_preprocessor import fit_preprocessor, with_columns
from zoo._resume import check_rows, relative, resumed
from zoo._run import Run, load, usable
from zoo._teacher import soft_labels
from zoo._warm_start import warm_start_encoders


def train(
    name: str,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    preset: str = "base",
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    deterministic: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    warm_start: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    doctor: bool = False,
    checkpoint_seconds: float = 60.0,
    strategy: Literal["auto", "one", "mirrored", "multi_worker"] = "auto",
    jit: Literal["auto", "on", "off"] = "auto",
    steps_per_execution: int = 1,
    data_service: str | None = None,
    mixed_precision: Literal["float16", "bfloat16"] | None = None,
    verbose: int = 1,
    **hyperparameters: Any,
) -> Run:
    """Trains a model on a source and writes the run folder.

    Args:
        name: of the model.
        data: name of the source, see `mmkeras.data.open`.
        out: the run folder; `runs/<name>` if None.
        preset: a named set of hyperparameters.
        columns: which column of the data is which, see `mmkeras.data.open`.
        skip_bad: whether bad rows are left out instead of being an error.
        seed: of weights, order and augmentation.
        deterministic: whether two runs of one seed are to be equal to the last bit (slower).
        resume: go on with the run in `out` from its last checkpoint; only `epochs` may be changed.
        overwrite: replace the run in `out`.
        warm_start: folder of another run, or of several: encoders begin with the weights of the first of them that has
            one of the same name and shape.
        doctor: whether to say after an epoch what ails the model, see `mmkeras.diagnosis.Doctor`.
        checkpoint_seconds: between two checkpoints within an epoch; 0 for one after every step.
        strategy: which devices and machines train, see `mmkeras.training.make_strategy`. With several workers each
            calls this function; `out` lies where all of them see it, and the first one writes it.
        jit: whether a training step is compiled by XLA: `"on"`, or `"off"` and `"auto"`: on CPUs it does not pay.
        steps_per_execution: steps that are taken before callbacks, checkpoints and the progress bar have their turn.
        data_service: address of input workers that prepare the batches, see `mmkeras.data.batches`.
        mixed_precision: `"float16"` or `"bfloat16"`, in which layers then compute while they are trained; weights are
            in float32, and so is all of the model that is kept.
        verbose: 1 for a progress bar, 2 for a line an epoch, 0 for silence.
        **hyperparameters: of the model.

    Returns:
        The Run.

    Raises:
        ValueError: on a mistake in the hyperparameters or the data (`mmkeras.data.DataError`).
        FileExistsError: if `out` holds something and neither resume nor overwrite is given.
        FloatingPointError: if the loss is no longer a number.
        mmkeras.training.Stopped: a KeyboardInterrupt, when SIGTERM or Ctrl-C has come; `resume` goes on from there.
    """
    others = [warm_start] if isinstance(warm_start, (str, os.PathLike)) else warm_start or []
    encoders_of = [str(path) for path in others]
    _check_options(data, resume, overwrite, encoders_of, jit, steps_per_execution)
    if data_service:
        sources.check_reached(data_service)
    devices = training.make_strategy(strategy)  # before TensorFlow does anything else: several workers need that
    chief = training.is_chief(devices)
    verbose = verbose if chief else 0
    folder = RunFolder(out or pathlib.Path("runs", name))
    training.set_seed(seed, deterministic)
    if resume:
        run = resumed(folder, name, data, columns, hyperparameters, mixed_precision)
        train_split = usable(run, run.source.split("train"))
    else:
        source = sources.open(str(data), skip_bad=skip_bad)
        config = _registry.configure(name, preset, **with_columns(hyperparameters, columns, source))
        run = Run(folder.path, name, config, preset, seed, skip_bad, deterministic)
        run.data, run.columns, run.mixed_precision = str(data), dict(columns or {}), mixed_precision
        run.warm_start = encoders_of
        run.source = run.prepared(source.rename(columns))
        train_split = fit_preprocessor(run)
    validation = usable(run, run.source.split("validation"))
    rows = {split.name: len(split) for split in (train_split, validation)}
    if resume:
        check_rows(run, folder, rows)
    run.replicas, run.data_service = training.pieces(devices), data_service
    _check_replicas(run, validation, jit)
    with devices.scope(), training.precision(run.mixed_precision):
        _build_model(run, train_split, jit_compile=jit == "on", steps_per_execution=steps_per_execution)
    if not resume:
        _begin_encoders(run, encoders_of, verbose)
    teacher = getattr(run.config, "teacher", None)
    soft = {split.name: soft_labels(run, split) for split in (train_split, validation) if teacher}
    for split in (train_split, validation):
        if not data_service:
            run.batches(split)  # decodes what is small enough to keep: a broken file must not cost a run either
    callbacks = [_doctor(run, train_split, validation)] if doctor and chief else []
    if chief:  # only now: a mistake in what was given must not cost the run that lies there
        with training.telling_full_disk():
            remove_beside(folder.path) if resume else folder.create(overwrite)
            _write_start(run, folder, rows)
    _fit_model(run, folder, train_split, validation, soft, callbacks, checkpoint_seconds, chief, verbose, resume)
    return run


def _check_options(data, resume, overwrite, warm_start, jit, steps_per_execution):
    if resume and overwrite:
        raise ValueError("Expected one of --resume and --overwrite: go on with the run, or replace it. Received: both.")
    if resume and warm_start:
        raise ValueError("A run is resumed from its own checkpoint. Received: --resume and --warm-start.")
    if not resume and data is None:
        raise ValueError("Say what to train on with --data: scenes, a .jsonl or .csv file, a folder, tfds:NAME …")
    if jit not in ("auto", "on", "off"):
        raise ValueError(f"Expected --jit auto, on or off. Received: {jit!r}.")
    if steps_per_execution < 1:
        raise ValueError(f"Expected --steps-per-execution of at least 1. Received: {steps_per_execution}.")


def _check_replicas(run, validation, jit):
    count = run.replicas[2]
    if jit == "on" and (run.deterministic or count > 1):
        why = "a training that is --deterministic" if run.deterministic else f"{count} replicas"
        raise ValueError(
            f"XLA compiles the step of one replica, whose draws may differ. Received: --jit on, and {why}."
        )
    if len(validation) < count:
        raise ValueError(
            f"Expected at least {count} rows of the validation split, one for each replica. "
            f"Received: {len(validation)}."
        )


def _write_start(run, folder, rows):
    folder.save_model("preprocess", run.preprocessor.inputs)
    if run.preprocessor.targets:
        folder.save_model("targets", run.preprocessor.targets)
    folder.write_config(  # last: it makes the folder a run
        {
            "model": run.name,
            "preset": run.preset,
            "hyperparameters": run.config.to_dict(),
            "data": relative(run.data, folder.path),
            "columns": run.columns,
            "splits": {name: len(split) for name, split in run.source.splits.items()},
            "rows": rows,  # of those that are learned from
            "split_rule": run.source.rule,
            "skip_bad": run.skip_bad,
            "seed": run.seed,
            "deterministic": run.deterministic,
            "mixed_precision": run.mixed_precision,
            "warm_start": [relative(path, folder.path) for path in run.warm_start],
            "versions": {"mmkeras": mmkeras.__version__, "keras": keras.__version__, "tensorflow": tf.__version__},
        }
    )


def _build_model(run, split, **options):
    config = run.config
    run.model = _registry.build_model(run.module, config)
    steps = size_and_steps(run, split)[1]
    _registry.compile_model(run.module, run.model, config, steps * config.epochs, **options)
    if config.patience and "loss" not in {metric.name for metric in run.model.metrics}:
        raise ValueError(f"`{run.name}` has no one validation loss that --patience could wait for. Leave it out.")
    if not run.model.optimizer.built:
        run.model.optimizer.build(run.model.trainable_variables)
    if getattr(config, "word_vectors", None):
        _load_word_vectors(run)


def _begin_encoders(run, warm_start, verbose):
    config = run.config
    if warm_start:
        said = warm_start_encoders(run, [load(path) for path in warm_start])
        if verbose:
            print(said)
    elif config.freeze and not (config.image_weights or config.word_vectors):
        raise ValueError(
            f"Frozen encoders would stay random: {', '.join(config.freeze)}. Say what they begin with: "
            "--warm-start RUN, --image-weights or --word-vectors."
        )


def _doctor(run, split, validation):
    batch = one_batch(run, validation)
    names = [name for name in run.config.names if name in run.model.input]
    return Doctor(batch, names, size_and_steps(run, split)[0])


def _fit_model(run, folder, split, validation, soft, callbacks, checkpoint_seconds, chief, verbose, resume):
    config, steps, began = run.config, size_and_steps(run, split)[1], time.monotonic()
    batches = functools.partial(epoch_batches, run, split, soft, class_weights(run, split))
    with sources.naming_rows(split, run.preprocessor), run.model.distribute_strategy.scope():
        training.build_metrics(run.model, next(iter(batches(0))))
    # Not what an --overwrite may not have removed yet: another process does that.
    epoch, step, rows = folder.restore_checkpoint(run.model) if resume else (0, 0, [])
    if epoch >= config.epochs and verbose:
        print(f"{folder.path} has all of its {config.epochs} epochs. Train on with --epochs and a larger number.")
    elif (epoch, step) > (0, 0) and verbose:
        print(f"{folder.path} goes on after epoch {epoch}, step {step} of the next of {steps} steps.")
    with training.telling_full_disk():
        keep = _keeping(run, folder, validation, rows) if chief else [lambda *_: None] * 2
    checkpoints = training.Checkpoints(*keep, checkpoint_seconds, chief, _metrics_at_hand(run))
    if config.patience:
        callbacks = [training.Patience(config.patience, [row["val_loss"] for row in rows]), *callbacks]
    with checkpoints.stopping(), sources.naming_rows(validation, run.preprocessor), \
            sources.naming_rows(split, run.preprocessor):  # fmt: skip
        asked = validation_batches(run, validation, soft)
        try:
            history = training.fit(
                run.model, batches, config.epochs, (epoch, step), asked, [checkpoints, *callbacks], verbose
            )
        except (tf.errors.UnavailableError, tf.errors.AbortedError):
            if checkpoints.signal and not chief:
                checkpoints.stop("its last checkpoint")
            raise RuntimeError(
                "Another worker has ended, or cannot be reached. Start all of them again with --resume: they go on "
                f"from the last checkpoint in {folder.path}."
            ) from None
    if not chief:
        return
    _to_float32(run)
    if hasattr(run.module, "calibrate"):
        run.module.calibrate(run, validation)
    with training.telling_full_disk():
        _write_end(run, folder, validation, rows)
    if verbose and epoch < config.epochs:
        minutes = (time.monotonic() - began) / 60
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        wait = "" if history.input_wait is None else f"waiting for input {history.input_wait:.1%} of the steps' time, "
        print(
            f"{run.name}: epochs {epoch + 1} to {len(rows)} of {steps} steps in {minutes:.1f} minutes, {wait}"
            f"{run.model.count_params():,} parameters, peak memory {memory:.2f} GiB. The run lies in {folder.path}."
        )


def _write_end(run, folder, validation, rows):
    folder.save_model("model", run.model)
    if rows:
        with replaced(folder / "figures" / "history.png") as beside:
            plots.history(rows).savefig(beside, dpi=100)
    run.write_figures(validation)


def _to_float32(run):
    """Gives a run that was trained in mixed precision a model that computes in float32, with the same weights."""
    if run.model.dtype_policy == keras.config.dtype_policy():
        return
    trained, run.model = run.model, run.module.build(run.config)
    _registry.compile_model(run.module, run.model, run.config)
    run.model.set_weights(trained.get_weights())


def _keeping(run, folder, validation, rows):
    """What saves a checkpoint, and what writes down an epoch, its row added to those before."""
    folder.write_history(rows)
    summary = tf.summary.create_file_writer(str(folder / "logs"))

    def save(epoch, step):
        folder.save_checkpoint(run.model, epoch, step, rows, metrics=_metrics_at_hand(run))

    def after_epoch(epoch, logs):
        rows.append({"epoch": epoch, **logs})
        folder.write_history(rows)
        with summary.as_default():
            for key, value in logs.items():
                tf.summary.scalar(key, value, step=epoch)
        summary.flush()
        every = getattr(run.config, "sample_every", 0)
        if every and epoch % every == 0:
            run.write_figures(validation, f"-epoch-{epoch:03d}")

    return save, after_epoch


def _metrics_at_hand(run):
    """Whether what the metrics have counted lies in this process alone, not in others as well."""
    return run.replicas[:2] == (0, run.replicas[2])


def _load_word_vectors(run):
    """Puts pretrained vectors into the text encoders' embeddings; words that the file lacks keep their random ones."""
    networks = [getattr(run.model, part) for part in ("generator", "discriminator") if hasattr(run.model, part)]
    names = [f"{name}_encoder" for name in run.config.of_kind("text")]
    encoders = [layer for network in networks or [run.model] for layer in network.layers if layer.name in names]
    if not encoders:
        raise ValueError(f"`{run.name}` has no encoder of texts here that could take --word-vectors. Leave them out.")
    vocabulary = run.preprocessor.reader(run.config.of_kind("text")[0]).vocabulary
    vectors, found = sources.read_word_vectors(run.config.word_vectors, vocabulary)
    if vectors.shape[1] != run.config.text_dim:
        raise ValueError(
            f"{run.config.word_vectors} has vectors of {vectors.shape[1]} numbers: take --text-dim {vectors.shape[1]}."
        )
    for encoder in encoders:
        table = encoder.get_layer("text_embedding").table
        table.assign(np.where(found[:, None], vectors, keras.ops.convert_to_numpy(table)))
    print(f"{run.config.word_vectors}: vectors for {found.sum()} of {len(vocabulary)} words.")
