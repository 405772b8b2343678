"""`zoo reproduce NAME --quick`: a tenth of the work of every protocol finds what it should."""

import os
import pathlib
import subprocess
import sys

import pytest

from zoo import protocols

BESIDE = pathlib.Path(__file__).parents[2] / "shared" / "data"
FOLDERS = {
    "TFDS_DATA_DIR": pathlib.Path(os.environ.get("TFDS_DATA_DIR", BESIDE / "tfds")),
    "EMOJI_DATA_DIR": pathlib.Path(os.environ.get("EMOJI_DATA_DIR", BESIDE / "emoji")),
}
NEEDS = {"corrnet_mnist": "TFDS_DATA_DIR", "av_digits": "TFDS_DATA_DIR", "domain_shift": "EMOJI_DATA_DIR"}
NEEDS |= {name: "EMOJI_DATA_DIR" for name in protocols.names() if "emoji" in name}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """One folder of runs for all: the dual encoder of `emoji_retrieval` judges `emoji_generation`, too."""
    return tmp_path_factory.mktemp("work")


# The fusions of pid_fusion are asked in test_reproduce, what is printed besides.
@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in protocols.names() if name != "pid_fusion"])
def test_a_tenth_of_the_work_finds_what_it_should(name, work, tmp_path):
    if name in NEEDS and not FOLDERS[NEEDS[name]].is_dir():
        pytest.skip(f"there are no data where {NEEDS[name]} says, or beside the project")
    # In a process of its own, which has its graphs made faster, as users have.
    command = [sys.executable, "-m", "zoo._cli", "reproduce", name, "--quick", "--work", str(work)]
    environment = {**os.environ, **{key: str(folder) for key, folder in FOLDERS.items()}}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for row in protocols.module(name).QUICK:
        assert f"| {row}" in done.stdout
    assert not list(tmp_path.iterdir())  # a quick one is no result that is kept
