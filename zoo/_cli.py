"""The command `zoo`.

Nothing here imports TensorFlow or Keras before a command needs it: `zoo --help` answers at once.
"""

import argparse
import os
import re
import signal
import sys
import threading
import typing

from zoo import _registry, _weights, bench, protocols
from zoo._client import add_client, add_verify
from zoo._config import did_you_mean, parse, type_name
from zoo._demo import add_demo
from zoo._inputs import KINDS
from zoo._launch import add_launch
from zoo._run_commands import add_run_commands, mapping, quiet_start
from zoo._serve import add_serve


def main(arguments=None):
    """Runs the command; its exit code: 0, 1 where `data check`, `doctor` or `verify` find faults, 2 on a mistake."""
    arguments = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        options = _parse(arguments)
        code = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `zoo list | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is told so once more at exit
        return 128 + signal.SIGPIPE  # as a shell calls it: a training that ends so is not done
    except KeyboardInterrupt as stop:
        print(f"zoo: {stop or 'stopped'}", file=sys.stderr)
        return getattr(stop, "code", 130)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        if os.environ.get("ZOO_TRACEBACK"):
            raise
        print(f"zoo: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if os.environ.get("ZOO_TRACEBACK"):
            raise
        asked = ", which KERAS_BACKEND asks for," if error.name == os.environ.get("KERAS_BACKEND") else ""
        print(f"zoo: error: The package `{error.name}`{asked} is not installed.", file=sys.stderr)
        return 2
    except Exception as error:  # no mistake of the user's, as far as we know: say it in a line all the same
        if os.environ.get("ZOO_TRACEBACK"):
            raise
        said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        print(f"zoo: internal error: {type(error).__name__}: {said}. ZOO_TRACEBACK=1 shows where.", file=sys.stderr)
        return 2
    return code or 0


def _parse(arguments):
    parser = _Parser(prog="zoo", description="Multi-input Keras models: train, evaluate, search, export.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    name = _name_of_model(arguments)
    _add_list(commands)
    _add_train(commands, name)
    _add_tune(commands, name)
    add_run_commands(commands)
    add_launch(commands)
    add_demo(commands)
    add_serve(commands)
    add_client(commands)
    add_verify(commands)
    _add_data(commands)
    _add_quickstart(commands)
    _add_bench(commands)
    _add_reproduce(commands)
    return parser.parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    """A parser that refuses abbreviations, names the nearest option or command, and says a mistake in one line."""

    def __init__(self, **options):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message):
        given, _, valid = message.partition(" (choose from ")
        hint = did_you_mean(given.split("'")[1], re.findall(r"[a-z]+", valid)) if valid else ""
        raise ValueError(f"{message}.{hint} See {self.prog} --help.")

    def parse_known_args(self, args=None, namespace=None):
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            valid = [option for action in self._actions for option in action.option_strings]
            given = unknown[0].split("=")[0]
            raise ValueError(
                f"Unknown option {given} of `{self.prog}`.{did_you_mean(given, valid)} See {self.prog} --help."
            )
        return options, unknown


def _name_of_model(arguments):
    """The model in `zoo train NAME …` or `tune`, whose hyperparameters are options of the command; or None."""
    if arguments[:1] not in (["train"], ["tune"]):
        return None
    first = arguments[1] if len(arguments) > 1 and not arguments[1].startswith("-") else None
    return first or next((a for a in arguments[1:] if a in _registry.names()), None)


def _add_list(commands):
    command = commands.add_parser("list", help="all models, and the trained weights that come with them")
    command.set_defaults(run=_list)
    command = commands.add_parser("describe", help="inputs, outputs, presets and hyperparameters of a model")
    command.add_argument("model")
    command.set_defaults(run=lambda options: print(_registry.describe(options.model)))


def _add_train(commands, name):
    command = commands.add_parser(
        "train", help="train a model on files", description="Hyperparameters: zoo train MODEL --help."
    )
    command.add_argument("model", help="one of zoo list")
    command.add_argument("--data", help="scenes, a .jsonl or .csv file, a folder, tfds:NAME, coco:FILE, A+B …")
    command.add_argument("--out", help="run folder (runs/MODEL)")
    command.add_argument("--preset", default="base", help="named set of hyperparameters")
    command.add_argument("--columns", type=mapping, help="image=photo,text=title or photo=image,kind=label")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--deterministic", action="store_true", help="equal runs to the last bit, slower")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    command.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    command.add_argument(
        "--warm-start", metavar="RUN", action="append", help="run whose encoders this one's begin with; may be repeated"
    )
    command.add_argument("--doctor", action="store_true", help="say after an epoch what ails the model")
    command.add_argument(
        "--checkpoint-seconds", type=float, default=60.0, help="between checkpoints within an epoch; 0 for every step"
    )
    command.add_argument("--strategy", default="auto", help="auto, one, mirrored (GPUs), multi_worker (TF_CONFIG)")
    command.add_argument(
        "--jit", default="auto", help="compile a step by XLA: on, off, auto (off: on CPUs it does not pay)"
    )
    command.add_argument("--steps-per-execution", type=int, default=1, help="steps between two looks at the losses")
    command.add_argument(
        "--data-service", metavar="ADDRESS", help="input workers that prepare the batches: zoo data serve"
    )
    command.add_argument("--mixed-precision", help="float16 or bfloat16: what layers compute in, for GPUs")
    command.add_argument("--skip-bad", action="store_true", help="leave bad rows out, and say how many")
    command.add_argument("--quiet", action="store_true", help="a line an epoch instead of a progress bar")
    command.set_defaults(run=_train, hints=_add_hyperparameters(command, name))


def _add_tune(commands, name):
    command = commands.add_parser(
        "tune", help="search for hyperparameters", description="Hyperparameters that are fixed: zoo tune MODEL --help."
    )
    command.add_argument("model", help="one of zoo list")
    command.add_argument("--data", required=True, help="as for train")
    command.add_argument("--out", help="folder of the trials and the best run (runs/MODEL-tuned)")
    command.add_argument("--trials", type=int, default=12, help="trainings in all; called again it goes on (12)")
    command.add_argument(
        "--search", type=lambda text: text.split(","), help="name,name,… of what is searched (encoders, fusions, sizes)"
    )
    command.add_argument("--preset", default="base", help="named set of hyperparameters")
    command.add_argument("--columns", type=mapping, help="as for train")
    command.add_argument("--skip-bad", action="store_true", help="leave bad rows out")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=_tune, hints=_add_hyperparameters(command, name))


def _add_hyperparameters(command, name):
    """A model's hyperparameters as options; returns their types by name."""
    hyperparameters = command.add_argument_group("hyperparameters")
    hints = {}
    if name is not None:
        model = _registry.module(name)
        hints = typing.get_type_hints(model.Config)
        for field, default in _registry.defaults(model):
            choices = field.metadata["choices"]
            kind = ", ".join(map(str, choices)) if choices else type_name(hints[field.name])
            says = f"{field.metadata['help']} ({kind}; {_registry.written(default)})".replace("%", "%%")
            option = "--" + field.name.replace("_", "-")
            hyperparameters.add_argument(option, dest=f"hp_{field.name}", metavar="VALUE", help=says)
    return hints


def _hyperparameters(options):
    given = {n: getattr(options, f"hp_{n}") for n in options.hints if getattr(options, f"hp_{n}") is not None}
    return {name: parse(name, text, options.hints[name]) for name, text in given.items()}


def _tune(options):
    hyperparameters = _hyperparameters(options)
    _check_early(options, hyperparameters)
    with quiet_start():
        from zoo import _tune
    given = {"preset": options.preset, "columns": options.columns, "skip_bad": options.skip_bad, **hyperparameters}
    rows, run = _tune.tune(
        options.model, options.data, options.out, options.trials, options.search, options.seed, **given
    )
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(f"| {' | '.join(names)} |\n" + "|---" * len(names) + "|")
    for row in rows:
        print(f"| {' | '.join(_registry.written(row.get(name)) for name in names)} |")
    print(f"The best run lies in {run.path}.")


def _list(options):
    for name in _registry.names():
        title = _registry.module(name).__doc__.partition("\n")[0]
        weights = "".join(f" [{weights}]" for weights in _weights.names(name))
        print(f"{name:24} {title}{weights}")


def _train(options):
    hyperparameters = _hyperparameters(options)
    if not options.resume:
        _check_early(options, hyperparameters)
    with quiet_start():
        from zoo import _train
    names = (
        "data", "out", "preset", "columns", "skip_bad", "seed", "deterministic", "resume", "overwrite", "warm_start",
        "doctor", "checkpoint_seconds", "strategy", "jit", "steps_per_execution",
        "data_service", "mixed_precision",
    )  # fmt: skip
    given = {name: getattr(options, name) for name in names}
    verbose = 2 if options.quiet or not sys.stdout.isatty() else 1
    _train.train(options.model, verbose=verbose, **given, **hyperparameters)


def _check_early(options, hyperparameters):
    """Tells mistakes in hyperparameters before TensorFlow is waited for, unless the modalities hang on the data."""
    if not set(KINDS) & set((options.columns or {}).values()):
        _registry.configure(options.model, options.preset, **hyperparameters)


def _add_data(commands):
    command = commands.add_parser("data", help="look at a data source, or pack it into a few large files")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    check = actions.add_parser("check", help="bad rows, absent modalities, turned pictures, damaged shards")
    check.add_argument("source")
    check.add_argument("--modalities", type=mapping, help="name=kind,… (all columns of a known kind)")
    check.set_defaults(run=_check)
    pack = actions.add_parser("pack", help="write a source as TFRecord shards; called again it goes on")
    pack.add_argument("source")
    pack.add_argument("folder", metavar="OUT", help="what --data then takes")
    pack.add_argument("--rows", type=int, default=1000, help="in a shard (1000)")
    pack.add_argument("--skip-bad", action="store_true", help="leave rows out that cannot be read")
    pack.set_defaults(run=_pack)
    take = actions.add_parser("import", help="public collections, as they are laid out, to manifests")
    take.add_argument("kind", choices=("emoji",), metavar="emoji")
    take.add_argument(
        "folders", nargs="+", metavar="FOLDER", help="clones of noto-emoji, twemoji, openmoji, fluentui-emoji (or "
        "STYLE=FOLDER laid out as one of them), of cldr, and emoji-test.txt",
    )  # fmt: skip
    take.add_argument("--to", default="emoji", help="folder of the manifests and the drawings (emoji)")
    take.add_argument("--held-out", metavar="STYLE", default="fluent3d", help="in no training row (fluent3d)")
    take.set_defaults(run=_import)
    serve = actions.add_parser("serve", help="input workers for zoo train --data-service")
    serve.add_argument("--workers", type=int, default=2, help="how many (2)")
    serve.add_argument("--port", type=int, default=5050, help="that trainings and other workers find it at (5050)")
    serve.add_argument("--join", metavar="ADDRESS", help="work for the zoo data serve of another machine")
    serve.add_argument("--host", default="localhost", help="name of this machine by which others reach its workers")
    serve.set_defaults(run=_input_workers)
    for action in (check, pack):
        action.add_argument("--columns", type=mapping, help="which column is which, as for train")


def _check(options):
    with quiet_start():
        from mmkeras import data
        from zoo import _pack
    damaged = _pack.damaged(options.source)
    print("".join(f"{line}\n" for line in damaged), end="")
    try:
        source, all_read = data.open(options.source, options.columns), True
    except data.DataError:
        source, all_read = data.open(options.source, options.columns, skip_bad=True), False
    lines, num_bad = data.report(source, options.modalities)
    print(f"columns: {next(iter(source.splits.values())).told()}")
    print("\n".join(lines))
    if not all_read:
        print("The rows named above as skipped cannot be read at all; they are not among the counted.")
    return 0 if all_read and not num_bad and not damaged else 1


def _pack(options):
    if options.rows < 1:
        raise ValueError(f"Expected --rows of at least 1. Received: {options.rows}.")
    with quiet_start():
        from mmkeras import data
        from zoo import _pack
    source = data.open(options.source, options.columns, options.skip_bad)
    print(f"{options.folder}: {_pack.pack(source, options.folder, options.rows):,} rows")


def _import(options):
    with quiet_start():
        from zoo import _import_emoji
    rows = _import_emoji.import_emoji(options.folders, options.to, options.held_out)
    print(f"{options.to}: " + ", ".join(f"{split} {number:,}" for split, number in rows.items()))


def _input_workers(options):
    with quiet_start():
        from mmkeras import data
    with data.input_workers(options.port, options.workers, options.join, options.host) as address:
        print(f"{options.workers} input workers at {address}. Stop with Ctrl-C.", flush=True)
        threading.Event().wait()


def _add_quickstart(commands):
    command = commands.add_parser("quickstart", help="generate data, train, evaluate, export and query a model")
    command.add_argument("--out", default="quickstart", help="folder for everything")
    command.add_argument("--overwrite", action="store_true", help="replace what an earlier quickstart wrote there")
    command.set_defaults(run=_quickstart)


def _quickstart(options):
    with quiet_start():
        from zoo import _quickstart
    _quickstart.quickstart(options.out, options.overwrite, 1 if sys.stdout.isatty() else 2)


def _add_bench(commands):
    command = commands.add_parser("bench", help="run a benchmark: " + ", ".join(bench.names()))
    command.add_argument("name", help=", ".join(bench.names()))
    command.add_argument("--out", help="folder of its runs (bench/NAME)")
    command.add_argument("--only", type=lambda text: text.split(","), help="name,name,… of what it measures (all)")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=_bench)


def _bench(options):
    with quiet_start():
        benchmark = bench.module(options.name)
    for name in options.only or ():
        if name not in benchmark.NAMES:
            raise ValueError(
                f"`zoo bench {options.name}` does not measure `{name}`.{did_you_mean(name, benchmark.NAMES)} "
                f"It measures: {', '.join(benchmark.NAMES)}."
            )
    print(benchmark.run(options.out or f"bench/{options.name}", options.only, options.seed))


def _add_reproduce(commands):
    command = commands.add_parser("reproduce", help="run a published protocol: " + ", ".join(protocols.names()))
    command.add_argument("name", help=", ".join(protocols.names()))
    command.add_argument("--out", default="results", help="folder of the file that it writes, NAME.json")
    command.add_argument("--work", default="reproduced", help="folder of its runs; what is done there is kept")
    command.add_argument("--quick", action="store_true", help="one seed, a tenth of the work, nothing in --out")
    command.set_defaults(run=_reproduce)


def _reproduce(options):
    protocols.module(options.name)  # an unknown name is told at once
    with quiet_start():
        from zoo import _reproduce
    result = _reproduce.reproduce(options.name, options.out, options.work, options.quick)
    print(_reproduce.table([result]))
    details = getattr(protocols.module(options.name), "details", None)
    if details:
        print(f"\n{details(result['measured'])}")


if __name__ == "__main__":
    sys.exit(main())
