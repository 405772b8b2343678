"""A model card: what a run is for, what it was made of and how good it is, in one Markdown file (Mitchell 2019)."""

import json
import os
import pathlib

from mmkeras.runs import replaced
from zoo import _registry

_MOST_LABELS = 60  # that are listed
_EXAMPLES = {"image": '"picture.png"', "audio": '"sound.wav"', "video": '"clip.gif"', "text": '"some words"'}
_UNKNOWN = "Not stated. Weights are made of their data, whose licence may bind them: say it with `--licence`."


def write_card(run, out=None, licence=None):
    """Writes the card of a run.

    Args:
        run: the Run. Where it has no metrics of the test split yet, they are measured.
        out: the file; `README.md` in the run's folder if None.
        licence: of the weights, as it is to be printed; None if it is not known.

    Returns:
        The file's path.
    """
    out = pathlib.Path(out) if out else run.path / "README.md"
    if "test" in run.saved["splits"] and not (run.path / "metrics" / "test.json").exists():
        run.evaluate("test", **({"subsets": True} if run.name == "fusion_classifier" else {}))
    title, _, text = run.module.__doc__.strip().partition("\n")
    sections = {
        "Use": _use(run), "Data": _data(run), "Training": _training(run), "Metrics": _metrics(run),
        "Limits": _limits(run), "Figures": _figures(run, out.parent), "Licence": licence or _UNKNOWN,
    }  # fmt: skip
    parts = [f"# {run.name}, trained on {_source(run)}", title, text.strip()]
    parts += [f"## {name}\n\n{body}" for name, body in sections.items() if body]
    with replaced(out) as beside:
        beside.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return out


def _source(run):
    kind, _, rest = run.saved["data"].partition(":")
    return pathlib.PurePosixPath(rest).name if kind == "path" else run.saved["data"]


def _use(run):
    asked = run.signatures["serving_default"].inputs
    given = ", ".join(f"{name}=[{_example(run, name)}]" for name in asked)
    lines = [
        "```python", "import zoo", "", f'run = zoo.load("{run.called}")', f"run.predict({given})",
        'run.export("servables")  # a SavedModel for TensorFlow Serving', "```", "", "| signature | takes |",
        "|---|---|",
    ]  # fmt: skip
    lines += [f"| `{key}` | {', '.join(f'`{name}`' for name in one.inputs)} |" for key, one in run.signatures.items()]
    return "\n".join(lines)


def _example(run, name):
    kind = run.config.modalities.get(name.removeprefix("support_"))
    return _EXAMPLES.get(kind) or (repr([0.5] * run.config.shape(name)[0]) if kind == "vector" else "1")


def _data(run):
    rows = ", ".join(f"{name} {count:,}" for name, count in run.saved["splits"].items())
    lines = [f"`{_source(run)}`; rows: {rows}."]
    lines += [f"Splits: {run.saved['split_rule']}."] if run.saved["split_rule"] else []
    kinds = [f"`{name}` ({kind})" for name, kind in run.config.modalities.items()]
    lines.append(f"Modalities: {', '.join(kinds)}.")
    for name in run.label_names:
        labels = run.preprocessor.reader(name).vocabulary
        said = ", ".join(labels[:_MOST_LABELS]) + (" …" if len(labels) > _MOST_LABELS else "")
        lines.append(f"`{name}`, {len(labels)} of them: {said}.")
    return "\n\n".join(lines)


def _training(run):
    base = {field.name: value for field, value in _registry.defaults(run.module)}
    changed = {n: v for n, v in run.config.to_dict().items() if getattr(run.config, n) != base[n]}
    versions = ", ".join(f"{name} {version}" for name, version in run.saved["versions"].items())
    lines = [f"{run.model.count_params():,} parameters, {run.config.epochs} epochs, seed {run.seed}; {versions}."]
    if changed:
        lines.append("What differs from the preset `base`: " + ", ".join(
            f"`{name}={_registry.written(getattr(run.config, name))}`" for name in changed) + ".")  # fmt: skip
    if run.saved["warm_start"]:
        others = ", ".join(f"`{other}`" for other in run.saved["warm_start"])
        lines.append(f"Its encoders, where they are alike, began with the weights of {others}.")
    return "\n\n".join(lines)


def _metrics(run):
    parts = []
    for file in sorted((run.path / "metrics").glob("*.json")):
        lines = [f"On the split `{file.stem}`:", "", "| of | metrics |", "|---|---|"]
        for title, numbers in json.loads(file.read_text(encoding="utf-8")).items():
            said = ", ".join(
                f"{name} {v:,}" if isinstance(v, int) else f"{name} {v:.3f}" for name, v in numbers.items()
            )
            lines.append(f"| {title} | {said} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _limits(run):
    config, lines = run.config, []
    for name, kind in config.modalities.items():
        if kind == "text":
            words = len(run.preprocessor.reader(name).vocabulary) - 4  # the first are no words
            what = "characters" if config.text_unit == "characters" else "words"
            lines.append(f"`{name}`: {words:,} {what} are known, others count as one unknown; after the first "
                         f"{config.text_length - 1} a text is cut off.")  # fmt: skip
        if kind == "image":
            height, width = config.image_size
            lines.append(f"`{name}` is looked at in {width} x {height} pixels ({config.image_resize}).")
        if kind == "audio":
            lines.append(f"`{name}`: the first {config.audio_seconds:g} seconds are heard, at {config.audio_rate} Hz.")
        if kind == "video":
            height, width = config.video_size
            lines.append(f"`{name}`: {config.video_frames} frames are looked at, in {width} x {height} pixels.")
    for name in run.label_names:
        if name == "tags" or getattr(config, "labels", "one") == "many":
            lines.append(f"`{name}`: those listed above alone are given, any number of them, or none.")
        else:
            lines.append(f"`{name}`: one of those listed above is always given, for whatever is asked.")
    if len(set(config.modalities).intersection(run.signatures["serving_default"].inputs)) > 1:
        dropped = f"{config.modality_dropout:.0%} of each were" if config.modality_dropout else "none was"
        lines.append(f"A modality may be left out; {dropped}, in training.")
    lines.append(f"It has seen nothing but `{_source(run)}`: the metrics hold for rows drawn as those were.")
    return "\n".join(f"- {line}" for line in lines)


def _figures(run, folder):
    files = sorted((run.path / "figures").glob("*.png"))
    return "\n\n".join(f"![{file.stem}]({pathlib.Path(os.path.relpath(file, folder)).as_posix()})" for file in files)
