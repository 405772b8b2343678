"""Trainings that are killed again and again, and end as if nothing had happened, to the last bit.

A tiny training is killed by SIGKILL while it starts, between steps, and while it writes a checkpoint, and resumed each
time. In the end its weights, optimisers, random state and history are compared with those of one that ran through.
"""

import multiprocessing
import os
import pathlib
import re
import shutil
import sys
import time

import numpy as np

from mmkeras.runs import RunFolder
from zoo import bench
from zoo._run_commands import quiet_start

NAMES = ["autoencoder", "conditional_gan"]
START, STEP, WRITE = "while it starts", "between steps", "while it writes a checkpoint"
KILLS = {START: 3, STEP: 16, WRITE: 6}  # of each model
OPTIONS = {
    "preset": "tiny", "epochs": 40, "batch_size": 8, "dropout": 0.2, "augment_shift": 0.1, "text_encoder": "bag",
    "deterministic": True, "checkpoint_seconds": 0.0, "verbose": 2,
}  # fmt: skip
LONGEST = 300  # seconds that a process may take until it does what is waited for


def run(out="bench/faults", names=None, seed=0):
    """Kills trainings, and returns the table.

    Args:
        out: folder of the runs and of `faults.json`.
        names: of the models; all if None.
        seed: of the trainings, and of the moments.
    """
    out = pathlib.Path(out)
    found = bench.measured(
        out / "faults.json", names or NAMES, lambda name: survive(name, out / name, KILLS, seed), seed=seed
    )
    moments = " | ".join(f"killed {moment}" for moment in KILLS)
    lines = [f"| model | {moments} | epochs | equal in the end |", "|---" * (len(KILLS) + 3) + "|"]
    for name, one in found.items():
        counts = " | ".join(str(one["kills"][moment]) for moment in KILLS)
        lines.append(f"| `{name}` | {counts} | {one['epochs']} | {'yes' if one['equal'] else 'NO'} |")
    return "\n".join(lines)


def survive(name, out, kills, seed=0, **options):
    """Kills the training of a model and resumes it until it is done.

    Args:
        name: of the model.
        out: folder, emptied before.
        kills: `{moment: times}`.
        seed: of the training, and of the moments.
        **options: of the training, besides `OPTIONS`.

    Returns:
        `{"kills", "epochs", "equal"}`: whether it ended as the one that ran through.

    Raises:
        RuntimeError: if a training ends too early, does not go on from where it was killed, or takes too long.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    options = {**OPTIONS, "seed": seed, **options}
    whole, killed = RunFolder(out / "whole"), RunFolder(out / "killed")
    random, positions = np.random.default_rng(seed), []
    left = list(random.permutation([moment for moment, times in kills.items() for _ in range(times)]))
    while left:
        process = _start(name, killed, options)
        if _kill(process, killed, left[-1], random):
            left.pop()
        positions.append(_position(killed))
    for folder in (killed, whole):
        process = _start(name, folder, options)
        process.join()
        if process.exitcode:
            raise RuntimeError(f"The training in {folder.path} failed, see {folder.path}.log.")
    _check_positions(killed, positions)
    with np.load(whole.checkpoints()[-1]) as expected, np.load(killed.checkpoints()[-1]) as state:
        equal = expected.files == state.files and all((expected[key] == state[key]).all() for key in state.files)
    return {"kills": kills, "epochs": options["epochs"], "equal": bool(equal)}


def _start(name, folder, options):
    """A process that trains, or goes on with a training; it writes its lines to `<folder>.log`."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["zoo._train"])  # TensorFlow is imported once for all
    process = processes.Process(target=_train, args=(name, str(folder.path), options))
    with quiet_start():
        process.start()
    return process


def _train(name, out, options):
    import zoo

    log = os.open(f"{out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
        stream.reconfigure(line_buffering=True)
    if pathlib.Path(out, "config.json").exists():
        zoo.train(name, out=out, resume=True, checkpoint_seconds=options["checkpoint_seconds"], verbose=2)
    else:
        zoo.train(name, "scenes:64", out=out, **options)


def _kill(process, folder, moment, random):
    """Kills a process at a moment; whether it was that moment: a checkpoint may have been whole by then."""
    before, checkpoints = _position(folder), folder / "checkpoints"
    if moment == START:
        time.sleep(random.uniform(0, 5))
    else:
        _wait(process, lambda: _position(folder) > before)
    if moment == STEP:
        time.sleep(random.uniform(0, 0.3))
    beside = f".{process.pid}-"
    if moment == WRITE:
        _wait(process, lambda: any(name.startswith(beside) for name in os.listdir(checkpoints)), pause=0)
    process.kill()
    process.join()
    return moment != WRITE or any(name.startswith(beside) for name in os.listdir(checkpoints))


def _wait(process, condition, pause=0.002):
    began = time.monotonic()
    while not condition():
        if not process.is_alive():
            raise RuntimeError(f"A training ended before it could be killed (exit code {process.exitcode}).")
        if time.monotonic() - began > LONGEST:
            raise RuntimeError(f"A training did not get further within {LONGEST} seconds.")
        time.sleep(pause)


def _position(folder):
    """(epochs, steps of the next) that the newest checkpoint holds."""
    newest = folder.checkpoints()[-1:]
    return tuple(map(int, re.findall(r"\d+", newest[0].stem))) if newest else (0, 0)


def _check_positions(folder, positions):
    """Every training must have gone on from where the one before it was killed."""
    log = pathlib.Path(f"{folder.path}.log").read_text(encoding="utf-8")
    told = [tuple(map(int, found)) for found in re.findall(r"goes on after epoch (\d+), step (\d+)", log)]
    if told != sorted(told) or any(position not in told for position in positions if position > (0, 0)):
        raise RuntimeError(f"Expected trainings that go on from {positions}. They went on from {told}.")
