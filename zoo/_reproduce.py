"""Protocols from beginning to end: their seeds, the figures beside what was published, and the file that is kept."""

import datetime
import json
import math
import pathlib
import statistics
import time

from mmkeras.runs import write_json
from zoo import bench, protocols

# Quantiles of Student's distribution for a 95 % interval, by degrees of freedom.
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def reproduce(name, out="results", work="reproduced", quick=False):
    """Runs a protocol, or goes on with the seed that it was at, and writes `<out>/<name>.json`.

    Args:
        name: of the protocol.
        out: folder of the file.
        work: folder of the runs; what is done there is not done again.
        quick: one seed and a tenth of the work. Nothing is written to `out`, and a figure out of its range is an error;
            the range stands in place of what the whole work is to reach.

    Returns:
        What was found, as in the file.

    Raises:
        ValueError: if there is no such protocol, or `--quick` finds a figure that it should not.
    """
    protocol = protocols.module(name)
    work = pathlib.Path(work, f"{name}-quick" if quick else name)
    seeds = range(1 if quick else protocol.SEEDS)
    found = bench.measured(work / "seeds.json", [str(s) for s in seeds], lambda s: _measure(protocol, work, s, quick))
    result = summary(name, protocol, list(found.values()))
    if not quick:
        pathlib.Path(out).mkdir(parents=True, exist_ok=True)
        write_json(pathlib.Path(out, f"{name}.json"), result)
        return result
    for row, one in result["rows"].items():
        one["reach"], one["range"] = None, protocol.QUICK.get(row)
    for row, (low, high) in protocol.QUICK.items():
        value = result["rows"][row]["mean"]
        if not low <= value <= high:
            raise ValueError(f"`{name}` --quick: expected {row} of {low} to {high}. Found: {value:.2f}.")
    return result


def _measure(protocol, work, seed, quick):
    """A seed of a protocol, with the minutes of CPU of this process; parts that were interrupted count as well."""
    path, began = work / seed / "minutes.json", time.process_time()
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0.0
    try:
        one = protocol.measure(work / seed, int(seed), quick)
    finally:
        minutes = before + (time.process_time() - began) / 60
        write_json(path, minutes)
    return {**one, "cpu_minutes": minutes}


def summary(name, protocol, found):
    """What the file of a protocol holds, from what `measure` gave for each seed.

    `{"protocol", "model", "title", "made", "seeds", "cpu_minutes", "parameters", "test_read", "measured", "rows": {row:
    {"values", "mean", "deviation", "interval", "unit", "published", "source", "reach", "aim"}}}`.
    """
    rows = {}
    for row, declared in protocol.ROWS.items():
        values = [one["values"][row] for one in found if row in one["values"]]
        if not values:
            continue
        rows[row] = {
            "values": values, "mean": statistics.fmean(values), "deviation": None, "interval": None,
            **{key: getattr(declared, key) for key in ("unit", "published", "source", "reach", "aim")},
        }  # fmt: skip
        if len(values) > 1:
            deviation = statistics.stdev(values)
            half = _STUDENT[len(values) - 1] * deviation / math.sqrt(len(values))
            mean = rows[row]["mean"]
            rows[row].update({"deviation": deviation, "interval": [mean - half, mean + half]})
    return {
        "protocol": name,
        "model": protocol.MODEL,
        "title": protocol.__doc__.strip().splitlines()[0],
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seeds": len(found),
        "cpu_minutes": sum(one["cpu_minutes"] for one in found),
        "parameters": found[0]["parameters"],
        "test_read": [one["test_read"] for one in found],
        "rows": rows,
        "measured": found,
    }


def table(results):
    """The Markdown table of some results: a row a figure, in the order of the protocol."""
    titles = ["protocol", "figure", "published", "to reach", "ours", "95 % interval", "seeds", "CPU minutes"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for result in results:
        costs = f"{result['seeds']} | {result['cpu_minutes']:.0f}"
        name = f"`{result['protocol']}`"
        for row, one in result["rows"].items():
            said = f"{one['published']} ({one['source']})" if one["published"] else "—"
            cells = [name, f"{row}, {one['unit']}", said, _reach(one), protocols.ours(one), _interval(one), costs]
            lines.append(f"| {' | '.join(cells)} |")
            name, costs = "", " | "
    return "\n".join(lines)


def _reach(one):
    """What was to be reached, and whether it was; of `--quick` the range in which the figure lies."""
    if one.get("range"):
        low, high = one["range"]
        return f"{low:g} to {high:g} with --quick"
    if one["reach"] is None:
        return "—"
    said = f"{one['reach']:g}" if one["mean"] >= one["reach"] else f"{one['reach']:g}: MISSED"
    return said if one["aim"] is None else f"{said} (aim {one['aim']:g})"


def _interval(one):
    """The interval as it is written; no share is below 0 or above 100 %, nor a count below 0."""
    if not one["interval"]:
        return "—"
    digits, (low, high) = (1 if one["unit"] == "%" else 2), one["interval"]
    if one["unit"] != "points":
        low, high = max(low, 0.0), min(high, 100.0) if one["unit"] == "%" else high
    return f"{low:.{digits}f} to {high:.{digits}f}"
