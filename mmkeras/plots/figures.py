"""Histories, tables of pictures and texts, grids of pictures, confusion matrices."""

import textwrap

import numpy as np
from matplotlib.figure import Figure


def history(rows):
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


def table(columns, picture_inches=1.1):
    """Rows of examples: each column a list of cells, each cell a list of pictures (arrays) and texts.

    Args:
        columns: `{title: [cell of row 1, cell of row 2 …]}`; a cell is a list of `(height, width, channels)` arrays
            in 0..1 and of strings, drawn one below the other.
        picture_inches: side of a picture.
    """
    num_rows = len(next(iter(columns.values())))
    parts = max(len(cell) for cells in columns.values() for cell in cells)
    cells = next(iter(columns.values()))
    # A text needs half of a picture's height.
    heights = [0.5 if k < len(cell) and isinstance(cell[k], str) else 1.0 for cell in cells for k in range(parts)]
    size = (picture_inches * 1.5 * len(columns), picture_inches * sum(heights) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.01, w_pad=0.02, hspace=0, wspace=0)
    axes = figure.subplots(num_rows * parts, len(columns), squeeze=False, height_ratios=heights)
    for j, (title, cells) in enumerate(columns.items()):
        axes[0, j].set_title(title, fontsize=9)
        for i, cell in enumerate(cells):
            for k in range(parts):
                place = axes[i * parts + k, j]
                place.axis("off")
                if k < len(cell):
                    _draw(place, cell[k])
    return figure


def grid(pictures, captions, columns=8, picture_inches=1.2):
    """Pictures in rows, a caption below each.

    Args:
        pictures: list of `(height, width, channels)` arrays in 0..1.
        captions: list of strings.
        columns: pictures a row.
        picture_inches: side of a picture.
    """
    num_rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(columns * picture_inches, num_rows * picture_inches * 1.45), layout="constrained")
    axes = figure.subplots(num_rows, columns, squeeze=False)
    for place in axes.flat:
        place.axis("off")
    for place, picture, caption in zip(axes.flat, pictures, captions, strict=False):
        _draw(place, picture)
        place.set_title("\n".join(textwrap.wrap(_plain(caption), 18)[:3]), fontsize=6)
    return figure


def overlay(picture, weights):
    """A picture `(height, width, channels)` in gray, bright where weights `(rows, columns)` are high."""
    height, width = picture.shape[:2]
    rows, columns = np.arange(height) * weights.shape[0] // height, np.arange(width) * weights.shape[1] // width
    heat = weights[rows][:, columns, None] / max(weights.max(), 1e-9)
    gray = picture.mean(axis=-1, keepdims=True)
    return 0.5 * gray + 0.5 * heat * np.array([1.0, 0.4, 0.0])


def confusion(matrix, labels):
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


def _draw(place, part):
    if isinstance(part, str):
        text = "\n".join(textwrap.wrap(_plain(part), 26)[:4]) or "—"
        place.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, transform=place.transAxes)
    else:
        place.imshow(np.clip(part if part.shape[-1] == 3 else part[..., 0], 0, 1), cmap="gray", vmin=0, vmax=1)


def _plain(text):
    """A text without what Matplotlib would read as a formula, and without glyphs that its font lacks."""
    return "".join(c if ord(c) < 0x2500 else "?" for c in str(text)).replace("$", r"\$")
