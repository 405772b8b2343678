"""What the command `zoo` does with a trained run: evaluate, predict, explain, doctor, search, export.

Nothing here imports TensorFlow or Keras before a command needs it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys

from zoo._config import did_you_mean

_ENDINGS = {b"\x89PNG": ".png", b"RIFF": ".wav", b"GIF8": ".gif", b"\xff\xd8": ".jpg"}  # by how a file begins


def _add_reading(command):
    command.add_argument("--columns", type=mapping, help="which column is which, as in training if not given")


def add_run_commands(commands):
    command = commands.add_parser("evaluate", help="metrics and figures of a run on a split")
    command.add_argument("folder", metavar="RUN")
    command.add_argument("--split", default="test")
    command.add_argument("--data", help="another source, or a file that is taken whole")
    command.add_argument("--skip-bad", action="store_true", help="leave bad rows out, and say how many")
    _add_reading(command)
    command.add_argument("--subsets", action="store_true", help="fusion_classifier: from every subset of modalities")
    command.add_argument(
        "--classifier",
        metavar="RUN",
        help="conditional_gan: run of a picture classifier, for FID; variational_autoencoder: of "
        "a classifier of the modalities, for what goes together",
    )
    command.add_argument("--retriever", metavar="RUN", help="conditional_gan: run of a dual_encoder, for R-precision")
    command.set_defaults(run=_evaluate)

    command = commands.add_parser("predict", help="answers of a run to raw values, as JSON lines")
    command.add_argument("folder", metavar="RUN")
    command.add_argument("values", nargs="+", metavar="NAME=VALUE", help="image=cat.png text='a red circle'")
    command.add_argument("--signature", default="serving_default")
    told = "folder for the pictures, sounds and clips of an answer (predictions)"
    command.add_argument("--out", help=told, default="predictions")
    command.set_defaults(run=_predict)

    command = commands.add_parser("explain", help="a figure of where in a row a model's answer came from")
    command.add_argument("folder", metavar="RUN")
    command.add_argument("values", nargs="*", metavar="NAME=VALUE", help="as for predict")
    command.add_argument("--image", help="the picture, where the model has one")
    command.add_argument("--text", help="the text, where the model has one")
    command.add_argument("--target", help="label, answer or tag to be explained (the predicted one)")
    command.add_argument("--out", help="file of the figure (RUN/figures/explanation.png)")
    command.set_defaults(run=_explain)

    command = commands.add_parser("doctor", help="what ails a run: a line of advice for each fault")
    command.add_argument("folder", metavar="RUN")
    command.set_defaults(run=_doctor)

    command = commands.add_parser("card", help="a run's model card, one Markdown file")
    command.add_argument("folder", metavar="RUN")
    command.add_argument("--licence", help="of the weights, as it is to be printed")
    command.add_argument("--out", help="the file (RUN/README.md)")
    command.set_defaults(run=_card)
    _add_serving_commands(commands)


def _add_serving_commands(commands):
    command = commands.add_parser("search", help="nearest items of a gallery to a text or a picture")
    command.add_argument("folder", metavar="RUN")
    command.add_argument("query")
    command.add_argument("--index", required=True, help="manifest file, a source, or a folder of zoo index")
    command.add_argument("--id-column", help="column whose cells name the items (id, or the picture's path)")
    command.add_argument("--top-k", type=int, default=10)
    _add_reading(command)
    command.add_argument("--out", help="file for the picture grid (RUN/figures/search.png)")
    command.set_defaults(run=_search)

    command = commands.add_parser("index", help="embed a gallery once, for search and export")
    command.add_argument("folder", metavar="RUN")
    command.add_argument("--data", required=True, help="manifest file, or a source")
    command.add_argument("--to", required=True, metavar="FOLDER", help="what `--index` of search and export then takes")
    command.add_argument("--approximate", choices=("hnsw", "ivf"), help="a faster index besides (needs faiss)")
    command.add_argument("--id-column", help="as for search")
    _add_reading(command)
    command.set_defaults(run=_index)

    command = commands.add_parser("export", help="SavedModel for TensorFlow Serving")
    command.add_argument("folder", metavar="RUN")
    command.add_argument("--to", default="servables", help="folder of all servables")
    command.add_argument("--name", help="under which it is served (the model's)")
    command.add_argument("--index", help="where modalities are compared: gallery for the signature `search`")
    command.add_argument("--id-column", help="as for search")
    command.add_argument("--top-k", type=int, default=10)
    _add_reading(command)
    command.set_defaults(run=_export)


def _load(path):
    with quiet_start():
        from zoo import _run
    return _run.load(path)


def _evaluate(options):
    run = _load(options.folder)
    given = {"subsets": options.subsets or None, "classifier": options.classifier, "retriever": options.retriever}
    given = {name: value for name, value in given.items() if value is not None}
    wants = run.module.evaluate.__code__.co_varnames[: run.module.evaluate.__code__.co_argcount]
    for name in given:
        if name not in wants:
            raise ValueError(f"`{run.name}` has no option --{name} in its evaluation.")
    given.update({name: _load(given[name]) for name in ("classifier", "retriever") if name in given})
    report = run.evaluate(options.split, options.data, options.columns, options.skip_bad, **given)
    for title, numbers in report.items():
        said = "  ".join(f"{name} {_number(value)}" for name, value in numbers.items())
        print(f"{title:32} {said}")
    print(f"written to {run.path / 'metrics'} and {run.path / 'figures'}")


def _number(value):
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _values(run, pairs):
    """`["name=value", ...]` as `{name: value}`."""
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"Expected NAME=VALUE, such as text='a red circle'. Received: {pair!r}.")
        values[name] = _value(run, name, value)
    return values


def _explain(options):
    run = _load(options.folder)
    values = _values(run, options.values)
    for kind in ("image", "text"):
        if getattr(options, kind) is not None:
            names = run.config.of_kind(kind)
            if len(names) != 1:
                raise ValueError(f"Expected one {kind} for --{kind}. The model has: {', '.join(names) or 'none'}.")
            values[names[0]] = getattr(options, kind)
    found = run.explain(options.target, **values)
    print(f"{found['of']}: {found['score']:.4f}")
    for title, numbers in {**found["tokens"], "Shapley values": found["shapley"].items()}.items():
        if numbers:
            print(f"{title}: " + "  ".join(f"{name} {value:+.4f}" for name, value in numbers))
    from mmkeras.runs import replaced

    path = pathlib.Path(options.out) if options.out else run.path / "figures" / "explanation.png"
    with replaced(path) as beside:
        found["figure"].savefig(beside, dpi=120)
    print(f"figure: {path}")


def _doctor(options):
    run = _load(options.folder)
    measured, faults = run.examine()
    for title, numbers in measured.items():
        print(f"{title:24} " + "  ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    for line in faults:
        print(f"- {line}")
    if not faults:
        print("No fault found.")
    return 1 if faults else 0


def _card(options):
    run = _load(options.folder)
    from zoo import _weights
    from zoo._card import write_card

    licence = options.licence or (_weights.LICENCE if _weights.is_name(options.folder) else None)
    print(write_card(run, options.out, licence))


_COLUMNS = {"label_probabilities": "label", "tag_probabilities": "tags"}  # of a model that predicts both


def _predict(options):
    run = _load(options.folder)
    raw = {name: [value] for name, value in _values(run, options.values).items()}
    answer = {}
    for name, value in run.predict(options.signature, **raw).items():
        value = value[0].tolist() if hasattr(value[0], "tolist") else value[0]
        path = pathlib.Path(options.out, name.removesuffix("_bytes"))
        if isinstance(value, bytes):
            value = write_file(path, value)
        elif isinstance(value, list) and value and isinstance(value[0], bytes):  # the frames of a clip
            value = [write_file(path / f"{i}", frame) for i, frame in enumerate(value)]
        elif name.endswith("probabilities") and run.labels:  # of few_shot they are of the examples' classes
            column = _COLUMNS.get(name, next(iter(run.label_names)))
            value = dict(zip(run.preprocessor.reader(column).vocabulary, value, strict=True))
        answer[name] = value
    print(json.dumps(answer, ensure_ascii=False))


def write_file(path, contents):
    """Writes a picture or a sound under the ending of its kind and returns the path."""
    ending = next((ending for start, ending in _ENDINGS.items() if contents.startswith(start)), ".bin")
    path = path.with_name(path.name + ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    return str(path)


def _value(run, name, value):
    """One raw value as it was written on the command line; an empty one is absent."""
    kinds = {**run.config.modalities, **dict.fromkeys(set().union(*(s.inputs for s in run.signatures.values())))}
    kinds.update(run.config.modalities)
    if name not in kinds:
        raise ValueError(f"The model has no input `{name}`.{did_you_mean(name, kinds)} It has: {', '.join(kinds)}.")
    if kinds[name] in ("image", "text", "audio", "video"):
        return value
    try:
        numbers = [float(v) for v in value.strip("[]").replace(",", " ").split()]
    except ValueError:
        raise ValueError(f"Expected numbers for `{name}`, such as {name}=0.5,1,2. Received: {value!r}.") from None
    return int(numbers[0]) if name == "seed" else numbers


def _search(options):
    run = _load(options.folder)
    ids, scores, pictures = run.search(options.query, options.index, options.top_k, options.id_column, options.columns)
    for name, score in zip(ids, scores, strict=True):
        print(f"{score:.4f}  {name}")
    if pictures:
        from mmkeras import plots
        from mmkeras.runs import replaced

        path = pathlib.Path(options.out) if options.out else run.path / "figures" / "search.png"
        figure = plots.grid(pictures, [f"{s:.2f} {n}" for n, s in zip(ids, scores, strict=True)], columns=5)
        with replaced(path) as beside:
            figure.savefig(beside, dpi=120)
        print(f"pictures: {path}")


def _index(options):
    run = _load(options.folder)
    number, recall = run.index(
        options.to, options.data, options.id_column, options.columns, options.approximate
    )  # fmt: skip
    said = "" if recall is None else f"; {options.approximate} finds {recall:.1%} of the nearest ten"
    print(f"{options.to}: {number:,} items{said}")


def _export(options):
    run = _load(options.folder)
    path = run.export(options.to, options.index, options.id_column, options.columns, options.top_k, options.name)
    names = [*run.signatures, *(["search"] if options.index else [])]
    print(f"{path}: signatures {', '.join(names)}")


def mapping(text):
    """`a=b,c=d` as a dict."""
    parts = [part.partition("=") for part in text.split(",") if part]
    if not all(key and equals and value for key, equals, value in parts):
        raise argparse.ArgumentTypeError(f"expected name=name,name=name, got {text!r}")
    return {key.strip(): value.strip() for key, _, value in parts}


@contextlib.contextmanager
def quiet_start():
    """TensorFlow greets on the error output at import, whatever its log level: that output is held back meanwhile.

    If the import fails, it is shown.
    """
    import tempfile

    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        own = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow  # noqa: F401

            yield
        except BaseException:
            held.seek(0)
            os.write(own, held.read())
            raise
        finally:
            os.dup2(own, 2)
            os.close(own)
