"""The search for hyperparameters: encoders, fusions and sizes, by trainings that are measured on validation."""

import csv
import json
import pathlib
import shutil
import time

from zoo import _registry, _train

# What is tried where nothing else is asked for: values, or the two ends of a range that is searched by its logarithm.
SPACE = {
    "image_encoder": ("cnn", "resnet", "vit", "mixer"),
    "text_encoder": ("lstm", "bilstm", "gru", "bag", "cnn", "transformer"),
    "video_encoder": ("cnn_lstm", "conv3d"),
    "fusion": None,  # all that the model knows
    "image_width": (16, 32, 48),
    "text_width": (64, 128, 192),
    "learning_rate": [3e-4, 1e-2],
    "dropout": (0.0, 0.1, 0.3),
}


def tune(name, data, out=None, trials=12, search=None, seed=0, verbose=1, **options):
    """Trains a model again and again with other hyperparameters, and keeps the best run.

    Tree-structured Parzen estimators propose (Bergstra 2011, by Optuna). Called again it goes on: `trials` is their
    number in all.

    Args:
        name: of the model.
        data: name of the source.
        out: folder of `trials.csv` and of the run `best`; `runs/<name>-tuned` if None.
        trials: number of trainings.
        search: names of the hyperparameters that are searched; if None those of `SPACE` that the modalities use.
        seed: of the trainings and the proposals.
        verbose: 1 for a line a trial, 0 for silence.
        **options: of `zoo.train`: `preset`, `columns`, `skip_bad`, hyperparameters that are fixed.

    Returns:
        `(rows of trials.csv, the best first; the best Run)`.

    Raises:
        ValueError: without the extra `tune`, on a hyperparameter that cannot be searched, if no trial came to an end,
            or if the folder holds a search of something else.
    """
    optuna = _optuna()
    if name == "conditional_gan":  # each of its two networks has a loss of its own
        raise ValueError(f"`{name}` has no one validation loss that trials could be compared by. Train it by hand.")
    space = _space(name, search, options)
    if not space:
        raise ValueError(f"Nothing is left to search: all of it is given. Received: {', '.join(sorted(options))}.")
    out = pathlib.Path(out or pathlib.Path("runs", f"{name}-tuned"))
    out.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(out / "journal.log")))
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(storage=storage, sampler=sampler, study_name=name, load_if_exists=True)
    _go_on(study, {"data": str(data), "seed": seed, "space": space, "options": options}, out)

    def objective(trial):
        return _try(trial, space, name, data, out, seed, verbose, options)

    left = trials - sum(trial.state.is_finished() for trial in study.trials)
    if left > 0:
        study.optimize(objective, n_trials=left, catch=(ValueError, FloatingPointError))
    rows = _table(study, out)
    if not (out / "best" / "config.json").exists():
        raise ValueError(f"None of {len(study.trials)} trials came to an end; see the lines above, and {out}.")
    from zoo._run import load

    return rows, load(out / "best")


def _go_on(study, asked, out):
    """Lets a search begin, or go on with what it was begun with."""
    asked = json.loads(json.dumps(asked, default=str, sort_keys=True))  # as it is read again
    begun = study.user_attrs.get("asked", asked)
    for key, value in asked.items():
        if begun[key] != value:
            raise ValueError(
                f"The search in {out} was begun with the {key} {begun[key]}. Received: {value}. Give another --out."
            )
    study.set_user_attr("asked", asked)
    before, best = out / "best-before", out / "best"
    if before.exists() and not best.exists():  # it was stopped between the two steps of `_keep`
        before.rename(best)


def _optuna():
    try:
        import optuna
    except ImportError:
        raise ValueError('zoo tune needs the extra `tune`: pip install "mmkeras[tune]".') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _space(name, search, options):
    """`{hyperparameter: values, or a range as a list}` of a model."""
    model = _registry.module(name)
    given = {key: value for key, value in options.items() if key in model.Config.__dataclass_fields__}
    config = _registry.configure(name, options.get("preset", "base"), **given)
    known = {f: field.metadata["choices"] for f, field in config.__dataclass_fields__.items()}
    space = {}
    for key in search or SPACE:
        values = SPACE.get(key) or known.get(key)
        if search and (key not in known or not values):
            possible = sorted({k for k in SPACE if k in known} | {k for k, choices in known.items() if choices})
            raise ValueError(f"`{key}` of `{name}` cannot be searched. What can: {', '.join(possible)}.")
        kind = key.split("_")[0]
        unused = kind in ("image", "text", "video") and not config.of_kind(kind)
        if key in known and values and not unused and key not in given:
            space[key] = values if search or isinstance(values, list) else _accepted(name, options, given, key, values)
    return {key: values for key, values in space.items() if len(values) > 1}


def _accepted(name, options, given, key, values):
    """Those of the values that the model takes."""
    taken = []
    for value in values:
        try:
            _registry.configure(name, options.get("preset", "base"), **{**given, key: value})
        except ValueError:
            continue
        taken.append(value)
    return taken


def _try(trial, space, name, data, out, seed, verbose, options):
    """One training; its run stays if it is the best so far. Returns the loss on validation."""
    chosen = {
        key: trial.suggest_float(key, *values, log=True)
        if isinstance(values, list)
        else trial.suggest_categorical(key, values)
        for key, values in space.items()
    }
    folder, began = out / f"trial-{trial.number:03d}", time.monotonic()
    try:
        run = _train.train(name, data, out=folder, overwrite=True, seed=seed, verbose=0, **{**options, **chosen})
        with open(folder / "history.csv", encoding="utf-8") as file:
            loss = float(list(csv.DictReader(file))[-1]["val_loss"])
        trial.set_user_attr("parameters", run.model.count_params())
        trial.set_user_attr("minutes", (time.monotonic() - began) / 60)
        done = [t.value for t in trial.study.trials if t.value is not None]
        if not done or loss < min(done):
            _keep(folder, out / "best")
    except (ValueError, FloatingPointError) as error:
        if verbose:
            print(f"trial {trial.number + 1} failed: {error}  {_said(chosen)}", flush=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if verbose:
        print(f"trial {trial.number + 1}: val_loss {loss:.4f}  {_said(chosen)}", flush=True)
    return loss


def _keep(folder, best):
    """Puts a run in the place of the best one; at every moment one of the two is whole."""
    old = best.with_name("best-before")
    shutil.rmtree(old, ignore_errors=True)
    if best.exists():
        best.rename(old)
    folder.rename(best)
    shutil.rmtree(old, ignore_errors=True)


def _said(chosen):
    numbers = {key: f"{value:.2g}" if isinstance(value, float) else value for key, value in chosen.items()}
    return "  ".join(f"{key} {value}" for key, value in numbers.items())


def _table(study, out):
    """The trials as rows, the best first; they are written to `trials.csv`."""
    from mmkeras.runs import replaced

    rows = []
    for trial in study.trials:
        told = {"trial": trial.number + 1, "val_loss": trial.value, **trial.user_attrs, **trial.params}
        rows.append({key: round(v, 6) if isinstance(v, float) else v for key, v in told.items()})
    rows.sort(key=lambda row: (row["val_loss"] is None, row["val_loss"]))
    names = list(dict.fromkeys(key for row in rows for key in row))
    with replaced(out / "trials.csv") as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return rows
