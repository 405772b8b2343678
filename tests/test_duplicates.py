"""Rows of one split that are in the training split as well, planted and found."""

import io

import numpy as np
import pytest
from PIL import Image

from mmkeras import data
from zoo import _cli

BOTH = {"image": "image", "text": "text"}
KINDS = {"image": "image", "text": "text", "sound": "audio", "numbers": "vector"}


def split(name, **columns):
    kinds = {column: kind for column, kind in KINDS.items() if column in columns}
    count = len(next(iter(columns.values())))
    return data.Split(name, columns, kinds, count, lambda i: f"{name}.csv, row {i + 2}")


def stored(pixels, kind="PNG", size=None, **options):
    file, picture = io.BytesIO(), Image.fromarray(pixels)
    (picture.resize(size) if size else picture).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def pictures():
    """Arrays of eight pictures of soft coloured spots."""
    random, drawn = np.random.default_rng(0), np.full((8, 40, 40, 3), 240.0)
    rows, columns = np.mgrid[:40, :40]
    for picture in drawn:
        for _ in range(4):
            top, left = random.integers(8, 32, 2)
            spot = np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / 60)[..., None]
            picture[:] = (1 - spot) * picture + spot * random.integers(0, 256, 3)
    return drawn.astype("uint8")


def test_pictures_saved_anew_are_found_and_others_are_not(pictures):
    moved = np.roll(pictures[3], 3, axis=1)
    one_colour = pictures[4].copy()
    one_colour[..., 0] = 255 - one_colour[..., 0]
    train = split("train", image=[stored(p) for p in pictures], text=[f"text {i}" for i in range(8)])
    held_out = [
        stored(pictures[5], "JPEG", quality=85), stored(moved), stored(one_colour), stored(pictures[0], size=(80, 80)),
        stored(pictures[6], "BMP"), b"",
    ]  # fmt: skip
    test = split("test", image=held_out, text=["other words"] * 6)
    assert data.near_duplicates(test, train, BOTH) == [(0, 5), (3, 0), (4, 6)]
    assert data.near_duplicates(train, test, BOTH) == [(0, 3), (5, 0), (6, 4)]


def test_a_transparent_ground_is_white(pictures):
    clear = np.dstack([pictures[0], np.where(pictures[0, ..., 0] > 230, 0, 255).astype("uint8")])
    white = np.where(clear[..., 3:] == 0, 255, clear[..., :3]).astype("uint8")
    train = split("train", image=[stored(white)], text=[""])
    test = split("test", image=[stored(clear)], text=[""])
    assert data.near_duplicates(test, train, BOTH) == [(0, 0)]


def test_a_picture_with_another_sound_is_another_row(pictures):
    same = [stored(pictures[0])] * 2
    train = split("train", image=same[:1], sound=[b"moo"])
    test = split("test", image=same, sound=[b"moo", b"meow"])
    assert data.near_duplicates(test, train, {"image": "image", "sound": "audio"}) == [(0, 0)]


def test_rows_without_pictures_are_told_by_all_of_the_rest(pictures):
    train = split("train", image=["", "", stored(pictures[0])], text=["A red shoe.", "blue", "green"],
                  numbers=[[1.0], [2.0], [3.0]])  # fmt: skip
    test = split("test", image=["", "", ""], text=["a RED shoe", "blue", "green"], numbers=[[1.0], [2.5], [3.0]])
    assert data.near_duplicates(test, train, {**BOTH, "numbers": "vector"}) == [(0, 0)]


def test_more_rows_than_are_compared_at_a_time(monkeypatch, pictures):
    monkeypatch.setattr("mmkeras.data.duplicates._ROWS", 3)
    cells = [stored(p) for p in pictures]
    train = split("train", image=cells, text=[""] * 8)
    test = split("test", image=cells[::-1], text=[""] * 8)
    assert data.near_duplicates(test, train, BOTH) == [(i, 7 - i) for i in range(8)]


def test_scenes_share_no_row():
    source = data.open("scenes:300")
    assert not any("training split as well" in line for line in data.report(source)[0])


def test_data_check_names_the_row(tmp_path, capsys, pictures):
    for i, picture in enumerate(pictures):
        (tmp_path / f"{i}.png").write_bytes(stored(picture))
    (tmp_path / "again.jpg").write_bytes(stored(pictures[2], "JPEG", quality=90))
    (tmp_path / "train.csv").write_text("image,text\n" + "".join(f"{i}.png,number {i}\n" for i in range(7)))
    (tmp_path / "test.csv").write_text("image,text\n7.png,number 7\nagain.jpg,number 2\n")
    assert _cli.main(["data", "check", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "test: 1 rows are in the training split as well, or nearly so, such as test.csv, row 3, which is" in said
    assert "train.csv, row 4\n" in said
