"""Histories, tables of pictures and texts, grids of pictures, confusion matrices."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def history(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Curves of every number in a history, training and validation in one panel.

    Args:
        rows: list of dicts, one an epoch.
    """
    names = [name for name in rows[0] if name != "epoch" and not name.startswith("val_")]
    figure = Figure(figsize=(4 * min(len(names), 4), 3 * -(-len(names) // 4)), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for i, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // 4), min(len(names), 4), i + 1)
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in rows[-1]:
                axes.plot(
                    epochs, [row.get(key, np.nan) for row in rows], label=label, marker="." if len(rows) < 3 else ""
                )
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.legend()
    return figure


def table(columns: Mapping[str, Sequence[Sequence[np.ndarray | str]]], picture_inches: float = 1.1) -> Figure:
    """Rows of examples: each column a list of cells, each cell a list of pictures (arrays) and texts.

    Args:
        columns: `{title: [cell of row 1, cell of row 2 …]}`; a cell is a list of `(height, width, channels)` arrays
            in 0..1 and of strings, drawn one below the other.
        picture_inches: side of a picture.
    """
    width = 1.5 * picture_inches
    lines: list[Any] = []  # a line of parts beside each other, a part a column
    for row in zip(*columns.values(), strict=True):
        lines += itertools.zip_longest(*row)
    # A text needs half of a picture's height.
    heights = [picture_inches * (1 if any(isinstance(p, np.ndarray) for p in line) else 0.5) for line in lines]
    bottoms = 0.4 + np.cumsum(heights)
    axes = _canvas(width * len(columns), bottoms[-1])
    for j, title in enumerate(columns):
        axes.text((j + 0.5) * width, 0.2, title, ha="center", va="center", fontsize=9)
    for line, bottom, height in zip(lines, bottoms, heights, strict=True):
        for j, part in enumerate(line):
            _draw(axes, part, j * width, bottom - height, width, height)
    return axes.figure


def grid(
    pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int = 8, picture_inches: float = 1.2
) -> Figure:
    """Pictures in rows, a caption above each.

    Args:
        pictures: list of `(height, width, channels)` arrays in 0..1.
        captions: list of strings.
        columns: pictures a row.
        picture_inches: side of a picture.
    """
    height = 1.45 * picture_inches
    axes = _canvas(columns * picture_inches, -(-len(pictures) // columns) * height)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=False)):
        left, bottom = i % columns * picture_inches, (i // columns + 1) * height
        _draw(axes, picture, left, bottom - picture_inches, picture_inches, picture_inches)
        lines = "\n".join(textwrap.wrap(_plain(caption), round(15 * picture_inches))[:3])
        middle, above = left + picture_inches / 2, bottom - picture_inches
        axes.text(middle, above, lines, ha="center", va="bottom", fontsize=6)
    return axes.figure


def overlay(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A picture `(height, width, channels)` in gray, bright where weights `(rows, columns)` are high."""
    height, width = picture.shape[:2]
    rows, columns = np.arange(height) * weights.shape[0] // height, np.arange(width) * weights.shape[1] // width
    heat = weights[rows][:, columns, None] / max(weights.max(), 1e-9)
    gray = picture.mean(axis=-1, keepdims=True)
    return 0.5 * gray + 0.5 * heat * np.array([1.0, 0.4, 0.0])


def explanation(
    pictures: Mapping[str, np.ndarray], found: Mapping[str, Any], inches: float = 2.6, columns: int | None = None
) -> Figure:
    """Where a score came from: places of pictures, words, modalities.

    Args:
        pictures: `{name: pixels (height, width, channels)}`.
        found: `of` and `score`; `cam`, `{picture: weights (rows, columns)}`; `tokens`, `{text: [(word, number)]}`;
            `shapley`, `{modality: number}`.
        inches: side of a panel.
        columns: panels beside each other; all if None.
    """
    num_panels = 2 * len(pictures) + len(found["tokens"]) + bool(found["shapley"])
    columns = min(columns or num_panels, num_panels)
    rows = -(-num_panels // columns)
    figure = Figure(figsize=(inches * columns, inches * rows + 0.5), layout="constrained")
    figure.suptitle(f"{_plain(found['of'])}: {found['score']:.3g}", fontsize=10)
    panels = (figure.add_subplot(rows, columns, i + 1) for i in range(num_panels))
    for name, picture in pictures.items():
        for title, shown in ((name, picture), (f"{name}: Grad-CAM", overlay(picture, found["cam"][name]))):
            axes = next(panels)
            axes.imshow(np.clip(shown if shown.shape[-1] == 3 else shown[..., 0], 0, 1), cmap="gray", vmin=0, vmax=1)
            axes.set_title(_plain(title), fontsize=8)
            axes.axis("off")
    bars = {f"{name}: integrated gradients": pairs for name, pairs in found["tokens"].items()}
    if found["shapley"]:
        bars["Shapley values"] = list(found["shapley"].items())
    for title, pairs in bars.items():
        axes, values = next(panels), [value for _, value in pairs]
        axes.barh(range(len(pairs)), values, color=["tab:orange" if v > 0 else "tab:blue" for v in values])
        axes.set_yticks(range(len(pairs)), [_plain(word) for word, _ in pairs], fontsize=7)
        axes.invert_yaxis()
        axes.tick_params(axis="x", labelsize=6)
        axes.set_title(_plain(title), fontsize=8)
    return figure


def confusion(matrix: np.ndarray, labels: Sequence[str]) -> Figure:
    """A confusion matrix `(classes, classes)`, true class down, predicted class across, shares of each row.

    Args:
        matrix: counts.
        labels: names of the classes; they are written up to 40 of them.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(4, 0.35 * min(len(labels), 40) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= 40:
        axes.set_xticks(range(len(labels)), [_plain(label) for label in labels], rotation=90)
        axes.set_yticks(range(len(labels)), [_plain(label) for label in labels])
    return figure


def scatter(panels: Mapping[str, np.ndarray], groups: Sequence[str] | np.ndarray, inches: float = 4.0) -> Figure:
    """Panels of points beside each other, a colour a group.

    Args:
        panels: `{title: points (rows, 2)}`.
        groups: the group's name of each row.
        inches: side of a panel.
    """
    figure = Figure(figsize=(inches * len(panels), inches + 0.4), layout="constrained")
    groups = np.array(groups)
    for i, (title, points) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for name in sorted(set(groups)):
            own = points[groups == name]
            axes.scatter(own[:, 0], own[:, 1], s=8, alpha=0.6, label=_plain(name), linewidths=0)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(set(groups)), 6))
    return figure


def _canvas(width, height):
    """Axes that fill a figure, measured in inches from its upper left corner.

    One for all cells: Matplotlib takes some 15 ms to lay out and draw each Axes.
    """
    axes = Figure(figsize=(width, height)).add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set_autoscale_on(False)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return axes


def _draw(axes, part, left, top, width, height, margin=0.04):
    """Draws a picture as large as fits, or a text, in the middle of a box."""
    x, y = left + width / 2, top + height / 2
    if isinstance(part, str):
        letters, lines = int(width / 0.063), max(int(height / 0.13), 1)  # of seven points
        text = textwrap.fill(_plain(part), letters, max_lines=lines, placeholder=" …")
        axes.text(x, y, text or "—", ha="center", va="center", fontsize=7)
    elif part is not None:
        rows, columns = part.shape[:2]
        inches = min((width - margin) / columns, (height - margin) / rows) / 2  # half a pixel's
        extent = (x - inches * columns, x + inches * columns, y + inches * rows, y - inches * rows)
        pixels = np.clip(part if part.shape[-1] == 3 else part[..., 0], 0, 1)
        axes.imshow(pixels, extent=extent, aspect="auto", cmap="gray", vmin=0, vmax=1)


def _plain(text):
    """A text without what Matplotlib would read as a formula, and without glyphs that its font lacks."""
    return "".join(c if ord(c) < 0x2500 else "?" for c in str(text)).replace("$", r"\$")
