"""Imports run one way, and what stands left of `data` does without TensorFlow."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ORDER = [
    {"losses", "metrics"}, {"layers"}, {"encoders", "decoders", "fusion"}, {"data"}, {"runs", "plots"}, {"training"},
    {"diagnosis", "export"}, {"serving"},
]  # fmt: skip
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
RAW_LAYERS = {
    "decode_audio", "decode_image", "decode_video", "each_row", "encode_label", "picture_headers", "raw_presence",
    "standardize_vector", "tokenize_text", "traced",
    "replicas",  # its functions do nothing on other backends
    "batch_norm",  # on other backends it is Keras' own
}  # fmt: skip
# Within `training` the model base and the objectives run on every backend.
ANY_BACKEND = {
    "training/checks.py", "training/masked.py", "training/multi_input.py", "training/objective.py",
    "training/optimizer.py", "training/terms.py",
}  # fmt: skip


def imported(path):
    """Dotted names that a file imports, anywhere in it, `mmkeras.x` used as an attribute included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mmkeras":
            yield f"mmkeras.{node.attr}"


def files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files("mmkeras"), ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_import_only_from_their_left(path):
    parts = path.relative_to(ROOT / "mmkeras").parts
    names = list(imported(path))
    assert not [n for n in names if n.split(".")[0] in ("zoo", "tests")]
    if len(parts) == 1:
        return
    own = parts[0]
    others = {n.split(".")[1] for n in names if n.startswith("mmkeras.")} & set(RANK) - {own}
    assert all(RANK[other] < RANK[own] for other in others), f"{path} imports {others}"


@pytest.mark.parametrize("path", files("mmkeras"), ids=lambda p: str(p.relative_to(ROOT)))
def test_tensorflow_stays_right_of_data(path):
    relative = path.relative_to(ROOT / "mmkeras").as_posix()
    own = relative.split("/")[0]
    may = RANK.get(own, -1) >= RANK["data"] and relative not in ANY_BACKEND
    may = may or (own == "layers" and path.stem in RAW_LAYERS)
    uses = any(n.split(".")[0] in ("tensorflow", "tensorflow_datasets") for n in imported(path))
    assert may or not uses


@pytest.mark.parametrize("path", files("zoo"), ids=lambda p: str(p.relative_to(ROOT)))
def test_model_files_do_not_import_one_another(path):
    models = {p.stem for p in (ROOT / "zoo").glob("*.py") if not p.stem.startswith("_")}
    names = {n.split(".")[1] for n in imported(path) if n.startswith("zoo.")}
    assert not names & models - {path.stem}


def test_help_and_list_import_neither_tensorflow_nor_keras():
    code = (
        "import sys, zoo._cli\n"
        "for arguments in (['list'], ['describe', 'autoencoder'], ['train', 'dual_encoder', '--help']):\n"
        "    try: zoo._cli.main(arguments)\n"
        "    except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--embedding-dim" in done.stdout


def test_the_rules_catch_what_they_are_for(tmp_path):
    (tmp_path / "x.py").write_text("import mmkeras\nfrom mmkeras.data import open\nmmkeras.training.fit\n")
    assert {"mmkeras.data", "mmkeras.training"} <= set(imported(tmp_path / "x.py"))
