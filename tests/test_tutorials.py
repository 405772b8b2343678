"""The tutorials run from the first cell to the last; `python tests/test_tutorials.py [NAME …]` writes them anew.

An executed notebook says of which sources its outputs are, so that neither can be changed without the other. The README
shows a picture of each, made of these outputs.
"""

import ast
import base64
import hashlib
import io
import json
import pathlib
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES, MOST_SECONDS = 500_000, 240
SHOWN = {"01": 0, "02": 0, "03": 2, "04": 2, "05": 0, "06": 5, "07": 0, "08": 0, "09": 0, "10": 0, "11": 0, "12": 0}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def sources(notebook):
    """The code of the cells."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def fingerprint(notebook):
    return hashlib.sha256(json.dumps(sources(notebook)).encode()).hexdigest()


def executed(path, folder):
    """The notebook with the outputs of a fresh run in a folder, and the seconds that it took."""
    import nbclient
    import nbformat

    notebook, began = nbformat.read(path, as_version=4), time.monotonic()
    for cell in notebook.cells:
        cell.metadata = {}
    options = {"timeout": MOST_SECONDS, "kernel_name": "python3", "resources": {"metadata": {"path": str(folder)}}}
    nbclient.NotebookClient(notebook, record_timing=False, coalesce_streams=True, **options).execute()
    seconds = time.monotonic() - began
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "text" in output:  # without this machine's folder, and what TensorFlow says of its own affairs
                    lines = output["text"].replace(f"{folder}/", "").splitlines(keepends=True)
                    output["text"] = "".join(line for line in lines if not line.startswith("INFO:tensorflow"))
            cell.outputs = [output for output in cell.outputs if output.get("text") != ""]
    return notebook, seconds


def write(path, folder):
    """Executes a notebook and keeps its outputs in it."""
    import nbformat

    notebook, seconds = executed(path, folder)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "mmkeras": {"sources": fingerprint(notebook), "seconds": round(seconds)}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    nbformat.write(notebook, path)
    return seconds


def pictures(notebook):
    """The PNG files among the outputs."""
    data = [output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [base64.b64decode("".join(one["image/png"])) for one in data if "image/png" in one]


def shown(path):
    """The picture of a notebook that the README shows, and its file."""
    from PIL import Image

    picture = Image.open(io.BytesIO(pictures(read(path))[SHOWN[path.stem[:2]]])).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.size)))  # of a long one its beginning
    picture.thumbnail((480, 480))
    return picture, ROOT / "docs" / "tutorials" / f"{path.stem}.png"


def write_shown(path):
    picture, file = shown(path)
    file.parent.mkdir(exist_ok=True)
    picture.quantize(128).save(file, optimize=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_readme_shows_what_the_tutorial_drew(path):
    import numpy as np
    from PIL import Image

    picture, file = shown(path)
    kept = Image.open(file).convert("RGB")
    assert kept.size == picture.size
    assert np.abs(np.asarray(kept, float) - np.asarray(picture, float)).mean() < 5  # 128 colours are kept
    assert f'<img src="docs/tutorials/{file.name}"' in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_those_of_the_sources(path):
    notebook = read(path)
    assert notebook["metadata"]["mmkeras"]["sources"] == fingerprint(notebook), f"run `python {__file__} {path.stem}`"
    assert notebook["metadata"]["mmkeras"]["seconds"] < MOST_SECONDS
    assert path.stat().st_size < MOST_BYTES
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    assert pictures(notebook), "no picture"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_tutorials_use_what_is_public(path):
    for source in sources(read(path)):
        if source.startswith("%%"):
            continue
        lines = [line for line in source.splitlines() if not line.startswith(("!", "%"))]
        for node in ast.walk(ast.parse("\n".join(lines))):
            names = [node.attr] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.ImportFrom):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
            assert not [name for name in names if name.startswith("_")], source


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_tutorial_runs_from_the_first_cell_to_the_last(path, tmp_path):
    _, seconds = executed(path, tmp_path)
    assert seconds < MOST_SECONDS


if __name__ == "__main__":
    import tempfile

    for notebook in NOTEBOOKS:
        if not sys.argv[1:] or any(notebook.stem.startswith(name) for name in sys.argv[1:]):
            with tempfile.TemporaryDirectory() as scratch:
                print(f"{notebook.stem}: {write(notebook, scratch):.0f} s", flush=True)
            write_shown(notebook)
