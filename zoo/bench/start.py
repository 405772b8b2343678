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
    # Which varies by more than what `import zoo` adds: that is measured within the process.
    "import zoo, after keras": [
        "-c", "import time, keras; began = time.monotonic(); import zoo; print(time.monotonic() - began)",
    ],
}  # fmt: skip
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
            taken[name].append(_seconds(name))
    lines = ["| what | seconds, median of five | least | most |", "|---|---|---|---|"]
    for name, values in taken.items():
        title = f"`{name}`" if name in COMMANDS else f'`zoo.build("{name}")`'
        lines.append(f"| {title} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")
    return "\n".join(lines)


def _seconds(name):
    began, said = time.monotonic(), None
    if name in COMMANDS:
        command = [sys.executable, *COMMANDS[name]]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    else:
        zoo.build(name)
    return float(said) if name == "import zoo, after keras" else time.monotonic() - began
