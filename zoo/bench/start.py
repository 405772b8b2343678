"""How long one waits before anything happens: the command, the import, a model that is built."""

import statistics
import subprocess
import sys
import time

import zoo

TIMES = 5
COMMANDS = {
    "zoo --help": ["-m", "zoo._cli", "--help"],
    "zoo list": ["-m", "zoo._cli", "list"],
    "import keras": ["-c", "import keras"],
    "import keras, zoo": ["-c", "import keras, zoo"],
}
NAMES = [*COMMANDS, *zoo.names()]


def run(out=None, names=None, seed=0):
    """Measures, and returns the table of medians in seconds; of a command with the whole process, as a shell waits.

    Args:
        out: nothing is kept.
        names: of the commands, and of the models whose `base` is built.
        seed: nothing is drawn.
    """
    names = names or NAMES
    taken = {name: [] for name in names}
    for _ in range(TIMES):
        for name in names:
            work = (
                (lambda name=name: _process(COMMANDS[name]))
                if name in COMMANDS
                else (lambda name=name: zoo.build(name))
            )
            began = time.monotonic()
            work()
            taken[name].append(time.monotonic() - began)
    lines = ["| what | seconds, median of five | least | most |", "|---|---|---|---|"]
    for name, values in taken.items():
        title = f"`{name}`" if name in COMMANDS else f'`zoo.build("{name}")`'
        lines.append(f"| {title} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")
    return "\n".join(lines)


def _process(arguments):
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
