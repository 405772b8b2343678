"""What the tabs of `zoo demo` do: which runs serve a tab, what it asks for, and its answer; no Gradio here."""

import dataclasses
import functools
import io
import typing

import numpy as np
from PIL import Image

from mmkeras import plots
from mmkeras.data import DataError, opened
from zoo._explain import explains, outputs_of
from zoo._gallery import open_gallery, searches

NUM_PICTURES = 8  # that a search finds, a text is drawn as, and that can be clicked on as examples
_ASKED = {
    "image": "a picture", "text": "a text", "vector": "numbers", "audio": "a sound", "video": "a clip",
    "seed": "a whole number",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tab:
    """One thing that runs can do.

    Attributes:
        name: what its button says.
        does: a sentence for who looks at it.
        serves: function from a Run to whether it can.
        asks: function from a Run to `{input: kind}`, what has to be given.
        answer: function from a Run and `{input: raw value}` to `{part: value}`.
        parts: what the answer has: `text`, `shares` `{label: number}`, `pictures` `[(pixels, caption)]`, `figure`.
        may_lack: whether inputs may be switched off, which makes them absent.
    """

    name: str
    does: str
    serves: typing.Callable
    asks: typing.Callable
    answer: typing.Callable
    parts: tuple
    may_lack: bool = False


def tabs_of(runs):
    """`[(Tab, Run)]` of all that the runs can do.

    Raises:
        ValueError: if one of them can do none of it.
    """
    for run in runs:
        if not any(tab.serves(run) for tab in TABS):
            raise ValueError(
                f"{run.called} holds a run of `{run.name}`, for which there is no tab. There are: "
                f"{', '.join(tab.name.lower() for tab in TABS)}."
            )
    return [(tab, run) for tab in TABS for run in runs if tab.serves(run)]


def one_of_each(tabs):
    """Of several tabs of one name, such as Explain, the last run's."""
    return list({tab.name: (tab, run) for tab, run in tabs}.values())


def raw_values(tab, asks, given, switches):
    """What was given as raw values `{input: value}`; those that are switched off are left out.

    Args:
        tab: the Tab.
        asks: `{input: kind}`.
        given: `{input: value}`: pictures of Pillow, texts, numbers as a text, paths of sounds and clips.
        switches: `{input: whether it is on}`; all are where it is empty.

    Raises:
        ValueError: if nothing is left, or something that is on is missing.
    """
    values = {}
    for name, kind in asks.items():
        if not switches.get(name, True):
            continue
        value = given[name].strip() if isinstance(given[name], str) else given[name]
        if value is None or value == "":
            off = ", or switch it off" if tab.may_lack and len(asks) > 1 else ""
            raise ValueError(f"Give {_ASKED[kind]} for `{name}`{off}.")
        values[name] = _raw(name, kind, value)
    if not values:
        raise ValueError(f"All is switched off. Switch on {' or '.join(f'`{name}`' for name in asks)}.")
    return values


def _raw(name, kind, value):
    if kind == "image":
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return buffer.getvalue()
    if kind == "vector":
        try:
            return [float(number) for number in value.replace(",", " ").split()]
        except ValueError:
            raise ValueError(f"Expected numbers for `{name}`, such as 0.5, 1, 2. Received: {value:.60}.") from None
    return int(value) if kind == "seed" else value


def examples_of(run, asks):
    """Rows of the run's test split that have all that is asked for: `[{input: cell}]`, texts and numbers as texts."""
    names = [name for name, kind in asks.items() if kind != "seed"]
    try:
        split = run.split("test")
    except (DataError, OSError):  # a run does without its data, and so does its page
        return []
    if any(name not in split.kinds for name in names):  # such as a picture that only a served model is given
        return []
    whole = [i for i in range(len(split)) if all(len(split.cells(name)[i]) for name in names)]
    rows = split.take(whole[:: max(len(whole) // NUM_PICTURES, 1)][:NUM_PICTURES])
    return [{name: _shown(asks[name], rows.cells(name)[i]) for name in names} for i in range(len(rows))]


def _shown(kind, cell):
    if kind == "text":
        return cell if isinstance(cell, str) else cell[0]
    return ", ".join(f"{number:.3g}" for number in cell) if kind == "vector" else cell


def _inputs(run, signature="serving_default"):
    """What a serving function takes, `{input: kind}`, pictures first."""
    names = sorted(run.signatures[signature].inputs, key=lambda name: (run.config.modalities[name] != "image", name))
    return {name: run.config.modalities[name] for name in names}


def _row(values):
    return {name: [value] for name, value in values.items()}


def _picture(contents):
    """A picture, a path or its bytes, or the frames of a clip beside each other, as pixels."""
    frames = [contents] if isinstance(contents, (str, bytes)) else contents
    return np.concatenate([np.array(Image.open(opened(frame)).convert("RGB")) for frame in frames], axis=1)


@functools.cache
def gallery_of(run):
    """What a run searches: its test split, embedded once."""
    return open_gallery(run, None)


def levels(picture):
    """Pixels in 0..1, of one channel or three, or whole numbers already, as `(height, width, 3)` in 0..255."""
    picture = np.asarray(picture)
    if picture.dtype != np.uint8:
        picture = np.round(np.clip(picture, 0, 1) * 255).astype("uint8")
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def _search(run, values):
    gallery = gallery_of(run)
    query = run.embed(gallery.asked, [values[gallery.asked]])
    places, scores = (found[0] for found in gallery.search(query, NUM_PICTURES))
    said = [f"{score:.2f}  {gallery.ids[place]}" for place, score in zip(places, scores, strict=True)]
    pictures = []
    if run.config.modalities[gallery.shown] == "image":
        cells = gallery.split.cells(gallery.shown)
        pictures = [(_picture(cells[i]), f"{score:.2f}") for i, score in zip(places, scores, strict=True)]
    return {"pictures": pictures, "text": "\n".join(said)}


def _shares(run, values):
    told = run.predict("classify", **_row(values))
    return {str(name): float(score) for name, score in zip(told["classes"][0], told["scores"][0], strict=True)}


def _classify(run, values):
    answer, lines = run.predict(**_row(values)), []
    if "tags" in answer:
        lines.append(f"tags: {', '.join(answer['tags'][0].split(chr(9))) or 'none'}")
    if "tag_probabilities" in answer:
        tags = run.preprocessor.reader("tags").vocabulary
        said = [tag for tag, share in zip(tags, answer["tag_probabilities"][0], strict=True) if share > 0.5]
        lines.append(f"tags: {', '.join(said) or 'none'}")
    if "caption" in answer:
        lines.append(f"caption: {answer['caption'][0]}")
    if "polarity" in answer:
        lines.append(f"polarity: {answer['polarity'][0]:+.2f}")
    if "contributions" in run.signatures:
        moved = run.predict("contributions", **_row(values))
        lines.append("moved by: " + ", ".join(f"{name} {moved[name][0]:+.2f}" for name in values))
    return {"text": "\n".join(lines), "shares": _shares(run, values) if "classify" in run.signatures else None}


def _ask(run, values):
    answer, pictures = run.predict(**_row(values)), []
    if "attention" in answer:
        name = run.config.of_kind("image")[0]
        grid = run.model.get_layer(f"{name}_encoder").get_layer("tokens").input.shape[1:3]
        picture, weights = run.read(**_row(values))[name][0].numpy(), answer["attention"][0].reshape(grid)
        pictures = [(picture, "what it saw"), (plots.overlay(picture, weights), "where it looked")]
    return {"shares": _shares(run, values), "pictures": pictures}


def _caption(run, values):
    answer, pictures = run.predict("generate", **_row(values)), []
    said = [f"{s} ({score:.2f})" for s, score in zip(answer["sentences"][0], answer["scores"][0], strict=True)]
    seen = [name for name in run.config.of_kind("image") if name in values]
    if seen:
        x = run.read(**_row(values))
        words, attention = run.module.written(run, x)
        pictures = run.module.looks(run, seen[0], x[seen[0]][0].numpy(), words[0], attention[0])
    return {"text": "\n".join(said), "pictures": pictures}


def _draw(run, values):
    seeds = range(values["seed"], values["seed"] + NUM_PICTURES)
    text = [values[run.config.condition]] * NUM_PICTURES
    drawn = run.predict("generate_seeded", **{run.config.condition: text, "seed": list(seeds)})["image_bytes"]
    return {"pictures": [(_picture(png), f"seed {seed}") for png, seed in zip(drawn, seeds, strict=True)]}


def _reconstruct(run, values):
    """What all that is given makes of each modality, and what each alone makes of it; sounds are not shown."""
    signature = "fill" if "fill" in run.signatures else "serving_default"
    lines, pictures = [], []
    for given in dict.fromkeys([tuple(values), *((name,) for name in values)]):
        answer = run.predict(signature, **{name: [values[name]] for name in given})
        for name, kind in run.config.modalities.items():
            title = f"{name} from {' and '.join(given)}"
            if kind in ("image", "video") and f"{name}_bytes" in answer:
                pictures.append((_picture(answer[f"{name}_bytes"][0]), title))
            elif name in answer:
                value = answer[name][0]
                lines.append(f"{title}: {value if kind == 'text' else _shown('vector', value)}")
    return {"text": "\n".join(lines), "pictures": pictures}


def _explain(run, values):
    found = run.explain(**values)
    figure = plots.explanation(found["pictures"], found, columns=2)  # readable on a phone, too
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=160)
    return {"text": f"{found['of']}: {found['score']:.4f}", "figure": Image.open(drawn)}


_REBUILD = {"autoencoder", "variational_autoencoder", "masked_autoencoder", "cross_modal"}
TABS = (
    Tab(
        "Search", "The pictures of the test split that are nearest to a text.",
        searches, lambda run: {gallery_of(run).asked: run.config.modalities[gallery_of(run).asked]},
        _search, ("pictures", "text"),
    ),
    Tab(
        "Classify", "What the model takes it for. What is switched off is absent.",
        lambda run: bool({"label", "tags", "polarity"} & outputs_of(run)), _inputs,
        _classify, ("text", "shares"), may_lack=True,
    ),
    Tab(
        "Ask", "An answer to a question about a picture, and where the model looked.",
        lambda run: "answer" in outputs_of(run), _inputs, _ask, ("shares", "pictures"),
    ),
    Tab(
        "Caption", "What the model says of it, the best first, and where it looked for each word of the best.",
        lambda run: "generate_nucleus" in run.signatures, _inputs, _caption, ("text", "pictures"),
    ),
    Tab(
        "Draw", "Pictures that the model draws from a text, each from a seed of its own.",
        lambda run: "generate_seeded" in run.signatures,
        lambda run: {run.config.condition: "text", "seed": "seed"}, _draw, ("pictures",),
    ),
    Tab(
        "Reconstruct", "What the model gives back of what it is given, from all of it and from each part alone.",
        lambda run: run.name in _REBUILD, _inputs, _reconstruct, ("pictures", "text"), may_lack=True,
    ),
    Tab(
        "Explain", "Where the model's score came from: places, words, and the share of each input.",
        explains, _inputs, _explain, ("text", "figure"), may_lack=True,
    ),
)  # fmt: skip
