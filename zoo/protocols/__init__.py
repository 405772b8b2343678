"""Published protocols by name: every file of this folder. `zoo reproduce NAME` runs one from beginning to end.

A protocol's module has
- `MODEL`, the model of the zoo that it is about, and `ROWS`, `{row: Row}`: what is measured;
- `SEEDS`, how many trainings of each;
- `QUICK`, `{row: (low, high)}`: what `--quick` has to find, with a tenth of the work;
- `measure(folder, seed, quick)`: `{"values": {row: number}, "parameters": {network: number}, "test_read": when}` and
  what else is worth keeping, where `folder` is its own for runs: it is called again after an interruption.
- `details(found)`, if there is more to say than a row: Markdown, of what `measure` gave for each seed.
"""

import dataclasses
import json
import pathlib

from zoo._folder import module_of, names_in


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure of a protocol.

    Args:
        unit: `"%"`, or what is counted.
        published: what others have reported, as it is to be printed; `""` if nobody has.
        source: who, and when.
        reach: the least that we want to reach; None if it is only reported.
        aim: what we would like to reach.
    """

    unit: str = "%"
    published: str = ""
    source: str = ""
    reach: float | None = None
    aim: float | None = None


def names():
    """Names of all protocols."""
    return names_in(__file__)


def module(name):
    """The module of a protocol.

    Raises:
        ValueError: if there is no such protocol.
    """
    return module_of(__name__, names(), name, "protocol")


def shipped():
    """`{protocol: result}` of the files in `zoo/results`, see `zoo._reproduce.summary`."""
    files = sorted(pathlib.Path(__file__).parents[1].joinpath("results").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def ours(one):
    """A figure of a result as it is written: mean and deviation."""
    digits = 1 if one["unit"] == "%" else 2
    spread = "" if one["deviation"] is None else f" ± {one['deviation']:.{digits}f}"
    return f"{one['mean']:.{digits}f}{spread}"
