"""Sources, their splits and what joins them, on files of a few rows; `scenes` against golden hashes and oracles."""

import csv
import hashlib
import io
import itertools
import json
import re
import time
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmkeras import data
from mmkeras.data import DataError, Source, Split
from mmkeras.data.manifest import plain_cell
from mmkeras.data.scenes import COLORS, SHAPES, SIZES, STYLES, _draw_rows, _stamp, draw, picture
from mmkeras.data.scenes import __doc__ as scenes_doc
from mmkeras.data.source import divide


def fault(call, *arguments, **options):
    """The one line of the DataError that a call raises."""
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_png(path, color=(10, 20, 30), size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def table(name="train", where="t", folder=None, kinds=None, **columns):
    """A Split of these columns."""
    kinds = {column: column for column in columns} if kinds is None else kinds
    size = len(next(iter(columns.values())))
    return Split(name, columns, kinds, size, lambda i: f"{where}, row {i + 1}", folder)


# scenes ---------------------------------------------------------------------------------------------------------------

# Of the first 64 training rows of seed 0. A change here changes every published number: say so in the changelog, then
# regenerate with `PYTHONPATH=. python -c "import tests.test_data as t; print(t.hashes())"`.
GOLDEN = {
    "image": "027aee7dd272640aafb8271d783cb2a91d84afc37fa45353010fbbb746cda3e7",
    "video": "ef658cec9987cb6c5fac138032bd5fd9d70d290d9c409a6b428507cc50ea0639",
    "audio": "972a61040229fac858112da8fdb8c1aa0f35f8ba306493654f599507e1a62259",
    "words": "21802272d580441dd81b19d015eb8403ce54775ceb4a3f3b32076f15b1c41dfa",
}


def pixels_of(content):
    """All frames of an encoded picture, RGB `(frames, height, width, 3)`."""
    with Image.open(io.BytesIO(content)) as image:
        frames = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def hashes():
    train = data.scenes(64).train
    parts = {
        "image": [pixels_of(cell).tobytes() for cell in train.cells("image")],
        "video": [pixels_of(cell).tobytes() for cell in train.cells("video")],
        "audio": train.cells("audio"),
    }
    words = zip(*map(train.cells, ("text", "tags", "question", "answer", "remark", "motion")), strict=True)
    parts["words"] = [json.dumps(row).encode() for row in words]
    return {name: hashlib.sha256(b"".join(part)).hexdigest() for name, part in parts.items()}


def test_scenes_are_those_of_the_golden_hashes():
    assert hashes() == GOLDEN


def test_a_source_says_what_is_in_it():
    source = data.scenes(80)
    columns = "image (image), text (text), tags (tags), label (label), object, question (text)"
    assert repr(source).startswith(f"<Source scenes:80: train 80, validation 10, test 10 rows; {columns}")
    assert repr(source.test).startswith(f"<Split test: 10 rows; {columns}")


def test_scenes_of_another_seed_are_others():
    assert data.scenes(8, seed=1).train.cells("image") != data.scenes(8).train.cells("image")
    assert data.scenes(8).train.cells("image") == data.scenes(100).train.cells("image")[:8]


def test_png_decodes_to_what_was_drawn():
    for row, cell in zip(_draw_rows("train", 32, 0), data.scenes(32).train.cells("image"), strict=True):
        np.testing.assert_array_equal(pixels_of(cell)[0], draw(row))


def test_clip_moves_the_first_object_in_the_direction_it_says():
    train = data.scenes(64).train
    rows = _draw_rows("train", 64, 0)
    at_the_edge = 0
    for row, cell, motion in zip(rows, train.cells("video"), train.cells("motion"), strict=True):
        frames = pixels_of(cell)
        down, across = {"left": (0, -2), "right": (0, 2), "up": (-2, 0), "down": (2, 0)}[motion]
        drawn = np.stack([draw(row, (down * (t - 4), across * (t - 4))) for t in range(8)]).astype(int)
        np.testing.assert_array_equal(frames, (drawn * 5 + 127) // 255 * 51)
        at_the_edge += (drawn[1:] == drawn[:-1]).all((1, 2, 3)).any()
        if len(row["objects"]) == 1:
            places = [np.argwhere(abs(frame.astype(int) - frame[0, 0]).sum(-1) > 60).mean(0) for frame in frames]
            path = places[-1] - places[0]
            assert path @ (down, across) > 10
            assert abs(path @ (across, down)) < 1
    assert at_the_edge > 5  # equal frames, which Pillow would drop


def test_tone_is_one_second_whose_pitch_tells_the_colour():
    train = data.scenes(64).train
    for tags, row, cell in zip(train.cells("tags"), _draw_rows("train", 64, 0), train.cells("audio"), strict=True):
        with wave.open(io.BytesIO(cell)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
            samples = np.frombuffer(file.readframes(8000), "<i2").astype("int64")
        first = row["objects"][0]
        assert first["color"] in tags
        period = 16 + 6 * list(COLORS).index(first["color"])
        assert len(samples) == 8000
        np.testing.assert_array_equal(samples[period:], samples[:-period])  # it repeats so, and no sooner
        half = period // 2
        assert first["shape"] == "cross" or (samples[half:] != samples[:-half]).any()
        assert (abs(samples).max() > 8000) == (first["size"] == "large")


NOUN = re.compile(r"a (small|large) (\w+) (\w+) (top|bottom) (left|right)")


def test_captions_and_tags_are_true_of_the_picture():
    train = data.scenes(200).train
    seen = 0
    for row, caption, tags, label in zip(
        _draw_rows("train", 200, 0), *map(train.cells, ("text", "tags", "label")), strict=True
    ):
        nouns = NOUN.findall(caption)
        things = {(o["size"], o["color"], o["shape"]) for o in row["objects"]}
        assert {noun[:3] for noun in nouns} == things
        reading = [(down == "bottom", across == "right") for *_, down, across in nouns[1:]]
        assert reading == sorted(reading)  # so that a picture has one caption
        assert tags == sorted({word for noun in nouns for word in noun[1:3]})
        assert label == nouns[0][2]
        pixels = draw(row)
        assert caption.endswith(" on white" if pixels[0, 0, 0] > 200 else " on gray")
        # From the pixels alone: where is the paint, and how large is it?
        for size, color, _, down, across in nouns if row["style"] == "flat" else ():
            top, left, bottom, right = paint_box(pixels, color)
            assert (max(bottom - top, right - left) > 11) == (size == "large"), caption
            assert (down, across) == ("top" if bottom < 24 else "bottom", "left" if right < 24 else "right"), caption
            seen += 1
    assert seen > 50


def paint_box(pixels, color):
    """Top, left, bottom and right of the pixels of exactly this colour."""
    places = np.argwhere((pixels == np.array(COLORS[color])).all(-1))
    assert len(places), color
    return (*places.min(0), *places.max(0))


def test_answers_are_true():
    train = data.scenes(600).train
    seen = set()
    for row, question, answer, kind in zip(
        _draw_rows("train", 600, 0), *map(train.cells, ("question", "answer", "question_type")), strict=True
    ):
        objects = row["objects"]
        words = question.split()
        if kind == "count":
            expected = str(len(objects))
        elif kind == "color":
            (expected,) = [o["color"] for o in objects if o["shape"] == words[-1]]
        elif kind == "shape":
            (expected,) = [o["shape"] for o in objects if o["color"] == words[-2]]
        elif kind == "exists":
            expected = "yes" if any((o["color"], o["shape"]) == tuple(words[-2:]) for o in objects) else "no"
        else:
            a, b = (next(o for o in objects if o["shape"] == shape) for shape in (words[2], words[-1]))
            middle = [(o["top"] + SIZES[o["size"]] // 2, o["left"] + SIZES[o["size"]] // 2) for o in (a, b)]
            down, across = (p - q for p, q in zip(*middle, strict=True))
            is_so = {"left": across < 0, "right": across > 0, "above": down < 0, "below": down > 0}[words[3]]
            expected = "yes" if is_so else "no"
        assert answer == expected, (question, objects)
        seen.add((kind, answer if kind in ("exists", "side") else ""))
    assert len(seen) == 7


def test_yes_and_no_are_balanced():
    source = data.scenes()
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 4000, "validation": 500, "test": 500,
    }  # fmt: skip
    for split in source.splits.values():
        answers = [answer for answer in split.cells("answer") if answer in ("yes", "no")]
        assert len(answers) > len(split) / 4
        assert abs(answers.count("yes") / len(answers) - 0.5) <= 0.01


def test_sentiment_is_the_mean_of_picture_and_remark():
    train = data.scenes(64).train
    for content, remark, sentiment in zip(*map(train.cells, ("image", "remark", "sentiment")), strict=True):
        of_picture = 1 if pixels_of(content)[0, 0, 0].mean() > 200 else -1
        of_text = 1 if re.search("lovely|beautiful|cheerful", remark) else -1
        assert sentiment == (of_picture + of_text) / 2


def test_splits_share_no_scene():
    keys = [
        {str([(o["shape"], o["color"], o["size"]) for o in row["objects"]]) for row in _draw_rows(name, size, 0)}
        for name, size in (("train", 1500), ("validation", 400), ("test", 400))
    ]
    assert all(len(key) > 100 for key in keys)
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


def test_every_column_of_the_table_is_there():
    documented = {}
    for names, kinds in re.findall(r"^\| (`.+?) \| (.+?) \|", scenes_doc, re.M):
        names, kinds = re.findall(r"`(\w+)`", names), kinds.split(", ")
        documented.update(zip(names, kinds * (len(names) // len(kinds)), strict=True))
    for split in data.scenes(16).splits.values():
        assert split.kinds == documented
        for column in documented:
            assert len(split.cells(column)) == len(split)


def test_more_than_two_thousand_pictures_a_second():
    rows = _draw_rows("train", 500, 0)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for row in rows:
            picture(row)
        seconds.append(time.perf_counter() - start)
    assert len(rows) / min(seconds) > 2000


def test_scenes_refuse_what_is_no_number_of_rows():
    with pytest.raises(ValueError, match="num_rows=0"):
        data.scenes(0)
    assert "scenes:many" in fault(data.open, "scenes:many")
    assert len(data.open("scenes:24").test) == 3


# Files and folders ----------------------------------------------------------------------------------------------------


def test_jsonl_and_csv_hold_the_same(tmp_path):
    rows = [{"text": f'a "quoted", {i}\nline', "label": "a" if i % 2 else "b", "note": str(i)} for i in range(30)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    first, second = data.open(tmp_path / "a.jsonl"), data.open(tmp_path / "a.csv")
    assert [len(split) for split in first.splits.values()] == [24, 3, 3]
    assert "seed 0" in first.rule
    for name, split in first.splits.items():
        assert split.kinds == second.split(name).kinds == {"text": "text", "label": "label", "note": "other"}
        for column in split.kinds:
            assert split.cells(column) == second.split(name).cells(column)
    everything = [note for split in first.splits.values() for note in split.cells("note")]
    assert sorted(everything, key=int) == [row["note"] for row in rows]


def test_rows_are_numbered_as_an_editor_does(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "three"}\n', encoding="utf-8")
    (tmp_path / "a.csv").write_text("text\none\n\nthree\n", encoding="utf-8")
    split = data.open(tmp_path / "a.jsonl").train
    assert [split.where(i) for i in range(2)] == ["a.jsonl, row 1", "a.jsonl, row 3"]
    assert split.take([1]).where(0) == "a.jsonl, row 3"
    assert data.open(tmp_path / "a.csv").train.where(1) == "a.csv, row 4"


def test_columns_that_some_rows_lack_are_absent_there(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "two", "tags": ["x"]}])
    split = data.open(tmp_path / "a.jsonl").train
    assert split.cells("tags") == [None, ["x"]]
    assert plain_cell("tags", None, None) == []


def test_folder_of_files_has_their_splits(tmp_path):
    for name in ("train", "validation", "test_style", "test_concept", "notes"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}] * 12)
    source = data.open(tmp_path)
    assert set(source.splits) == {"train", "validation", "test_style", "test_concept"}
    assert source.rule is None
    assert set(source.split("test_style").cells("text")) == {"test_style"}
    (tmp_path / "validation.jsonl").unlink()
    source = data.open(tmp_path)
    assert len(source.train) == 11
    assert len(source.validation) == 1
    assert source.rule.startswith("validation:")


def test_folder_of_pictures_takes_classes_and_texts(tmp_path):
    for name in ("cat/1.png", "cat/2.jpg", "dog/3.PNG"):
        write_png(tmp_path / "a" / name)
    (tmp_path / "a" / "dog" / "notes.md").write_text("no picture")
    (tmp_path / "a" / "cat" / "1.txt").write_text("  a cat\n")
    split = data.open(tmp_path / "a").train
    assert split.cells("label") == ["cat", "cat", "dog"]
    assert split.cells("text") == ["a cat", "", ""]
    assert [path.rsplit("/", 1)[1] for path in split.cells("image")] == ["1.png", "2.jpg", "3.PNG"]
    assert split.where(2).replace("\\", "/") == "dog/3.PNG"
    for name in ("train", "test"):
        write_png(tmp_path / "b" / name / "cat" / f"{name}.png")
    source = data.open(tmp_path / "b")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 1, "test": 1}
    assert source.test.cells("image")[0].endswith("test.png")


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_split_for_validation_goes_by_either_name(tmp_path, name):
    for split in ("train", name, "test"):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / f"{split}.csv").write_text(f"text\n{split}\n")
        write_png(tmp_path / "pictures" / split / "cat" / f"{split}.png")
    for folder in ("files", "pictures"):
        source = data.open(tmp_path / folder)
        assert {name: len(rows) for name, rows in source.splits.items()} == {"train": 1, "validation": 1, "test": 1}
        assert source.rule is None
    assert data.open(tmp_path / "files").validation.cells("text") == [name]


def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path, capsys):
    rows = [f"a {i},x" for i in range(8)]
    for bad in ('a "quoted" word,"x', '"a,x'):  # to the end of the file, and to the next quote
        (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows[:3], bad, *rows[3:6], 'b,"y"', *rows[6:]]))
        message = fault(data.open, tmp_path / "a.csv")
        assert message.startswith("a.csv, row 5: expected quotes that close before a comma; in lines 5 to ")
        assert "--skip-bad" in message
        kept = data.open(tmp_path / "a.csv", skip_bad=True).train.cells("text")
        assert kept[:3] == ["a 0", "a 1", "a 2"]
        assert all(text in ("a 0", "a 1", "a 2", "a 6", "a 7") for text in kept)
        assert "skipped: a.csv, row 5" in capsys.readouterr().out
    (tmp_path / "a.csv").write_text('text,"label\na,x\n')
    assert "a.csv, row 1: expected quotes" in fault(data.open, tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text('text,label\n"a ""b"", c\nd",x\n')  # and what is quoted well is read
    assert data.open(tmp_path / "a.csv").train.cells("text") == ['a "b", c\nd']


def test_what_is_no_unicode_is_told_with_its_place(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "whole \\ud83d\\ude00"}\n{"text": "half \\ud83d"}\n')
    assert "a.jsonl, row 2: expected text, got half of a \\u pair" in fault(data.open, tmp_path / "a.jsonl")
    assert data.open(tmp_path / "a.jsonl", skip_bad=True).train.cells("text") == ["whole \U0001f600"]
    (tmp_path / "a.csv").write_bytes("text,größe\na,1\n".encode("latin-1"))
    assert "a.csv, row 1: expected UTF-8" in fault(data.open, tmp_path / "a.csv")
    for name in ("1", "2"):
        write_png(tmp_path / "pictures" / "cat" / f"{name}.png")
    (tmp_path / "pictures" / "cat" / "1.txt").write_bytes("schön".encode("latin-1"))
    assert "1.txt: expected a text in UTF-8" in fault(data.open, tmp_path / "pictures")
    (path,) = data.open(tmp_path / "pictures", skip_bad=True).train.cells("image")
    assert path.endswith("2.png")
    assert "skipped: " in capsys.readouterr().out


def test_what_cannot_be_opened_is_told_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds nothing to read" in fault(data.open, tmp_path / "empty")
    (tmp_path / "a.parquet").write_text("x")
    assert "neither .jsonl nor .csv" in fault(data.open, tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("")
    assert "a.jsonl is empty" in fault(data.open, tmp_path / "a.jsonl")
    (tmp_path / "a.csv").write_text("text,label\n")
    assert "a.csv is empty" in fault(data.open, tmp_path / "a.csv")
    assert "that file does not exist" in fault(data.open, "no_such.jsonl")
    assert "tfds:NAME" in fault(data.open, "imagenet")


def test_split_that_is_not_there_is_told_with_a_guess():
    source = data.scenes(16)
    assert "Did you mean `validation`?" in fault(source.split, "validatoin")
    with pytest.raises(AttributeError, match="no split `valid`"):
        _ = source.valid
    message = fault(source.train.cells, "txt")
    assert message.startswith("scenes, train has no column `txt`")
    assert "Did you mean `text`?" in message
    assert "--columns" in message


# Columns --------------------------------------------------------------------------------------------------------------


def test_rename_by_name_and_by_kind():
    split = table(photo=["p"], title=["t"], kind=["k"], kinds={})
    renamed = split.rename({"image": "photo", "text": "title"})
    assert renamed.kinds == {"image": "image", "text": "text", "kind": "other"}
    assert renamed.cells("image") == ["p"]
    declared = split.rename({"photo": "image", "title": "text", "kind": "label"})
    assert declared.kinds == {"photo": "image", "title": "text", "kind": "label", "label": "label"}
    assert declared.cells("kind") == ["k"]
    assert declared.cells("label") == ["k"]
    assert split.kinds == {"photo": "other", "title": "other", "kind": "other"}


def test_rename_replaces_a_column_of_that_name():
    split = table(label=["old"], category=["new"])
    renamed = split.rename({"label": "category"})
    assert renamed.cells("label") == ["new"]
    assert list(renamed.kinds) == ["label"]
    place = table(domain=["d"], camera=["c"], kinds={}).rename({"domain": "camera"})  # of no kind, either of them
    assert place.kinds == {"domain": "other"}
    assert place.cells("domain") == ["c"]
    two = table(left=["l"], right=["r"], kinds={}).rename({"left": "image", "right": "image"})
    assert two.kinds == {"left": "image", "right": "image"}
    assert (two.cells("left"), two.cells("right")) == (["l"], ["r"])


def test_rename_reads_a_modality_on_the_left_as_the_new_name():
    split = table(text=["t"], label=["l"], caption=["c"])
    assert split.rename({"text": "label"}).cells("text") == ["l"]
    assert split.rename({"label": "text"}).cells("label") == ["t"]
    assert split.rename({"caption": "text"}).cells("caption") == ["c"]
    assert split.rename({"caption": "label"}).cells("label") == ["c"]


def test_rename_refuses_a_column_that_is_not_there():
    message = fault(table(text=["t"], where="a.csv").rename, {"image": "foto"})
    assert "a.csv has no column `foto`. It has: text." in message


def test_open_renames_every_split(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"title": str(i), "kind": "k"} for i in range(20)])
    source = data.open(tmp_path / "a.jsonl", columns={"title": "text", "label": "kind"})
    for split in source.splits.values():
        assert split.kinds == {"title": "text", "label": "label"}
    assert source.spec.endswith("a.jsonl")


def test_columns_are_made_when_first_asked_for_and_once():
    calls = []
    labels = {"label": lambda: calls.append(1) or ["x", "y", "z"]}
    split = table(text=["a", "b", "c"]).replace(labels, {"label": "label"})
    part = split.take([2, 0]).rename({"name": "text"}).take([1])
    assert not calls
    assert part.cells("label") == ["x"]
    assert part.cells("name") == ["a"]
    assert split.cells("label") == ["x", "y", "z"]
    assert calls == [1]


@pytest.mark.parametrize(
    ("kind", "cell", "plain"),
    [
        ("image", None, ""),
        ("image", "a/b.png", "base/a/b.png"),
        ("image", "/a/b.png", "/a/b.png"),
        ("image", b"\x89PNG", b"\x89PNG"),
        ("image", b"", b""),
        ("audio", "", ""),
        ("text", None, ""),
        ("text", "two words", "two words"),
        ("text", ["one", "two"], ["one", "two"]),
        ("vector", None, []),
        ("vector", "", []),
        ("vector", "1 2;3.5", [1.0, 2.0, 3.5]),
        ("vector", "[1, 2]", [1.0, 2.0]),
        ("vector", [1, 2.5], [1.0, 2.5]),
        ("tags", "a; b|c", ["a", "b", "c"]),
        ("tags", '["a", "b c"]', ["a", "b c"]),
        ("tags", ["a", 3], ["a", "3"]),
        ("tags", None, []),
        ("label", " dog ", "dog"),
        ("label", 7, "7"),
        ("label", None, ""),
        ("other", {"any": 1}, {"any": 1}),
    ],
)
def test_plain_cells(kind, cell, plain):
    result = plain_cell(kind, cell, "base")
    assert result == plain
    assert type(result) is type(plain)


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        ("image", 3), ("text", 3), ("text", []), ("text", ["a", 3]), ("vector", "1 two"), ("vector", ["a"]),
        ("vector", 3), ("tags", 3), ("tags", [["a"]]), ("tags", "[1,"), ("label", ["a"]), ("number", "three"),
        ("number", "nan"), ("number", "-inf"), ("number", float("nan")),
    ],
)  # fmt: skip
def test_cells_of_a_wrong_type_are_refused(kind, cell):
    with pytest.raises(ValueError, match=r"expected|Expecting"):
        plain_cell(kind, cell, None)


# Dividing and joining -------------------------------------------------------------------------------------------------


@given(size=st.integers(10, 300), seed=st.integers(0, 5), has_test=st.booleans())
@settings(max_examples=30, deadline=None)
def test_divide_loses_and_repeats_no_row(size, seed, has_test):
    splits = {"train": table(id=list(range(size)))}
    if has_test:
        splits["test_style"] = table("test_style", id=[-1])
    source = divide("x", splits, seed)
    assert {name: split.name for name, split in source.splits.items()} == {name: name for name in source.splits}
    parts = [split.cells("id") for name, split in source.splits.items() if name != "test_style"]
    assert sorted(i for part in parts for i in part) == list(range(size))
    assert len(source.validation) == size // 10
    assert all(part == sorted(part) for part in parts)
    again = divide("x", splits, seed)
    assert [split.cells("id") for split in again.splits.values()] == [s.cells("id") for s in source.splits.values()]
    assert divide("x", source.splits).rule is None


def test_divide_is_by_the_seed_and_needs_a_training_split():
    rows = {"train": table(id=list(range(200)))}
    assert divide("x", rows, 0).validation.cells("id") != divide("x", rows, 1).validation.cells("id")
    assert set(divide("x", {"all": table("all", id=list(range(20)))}).splits) == {"train", "validation", "test"}
    assert set(divide("x", {"train": table(id=[1, 2])}).splits) == {"train"}  # too few to divide
    assert "Fewer than 10 rows are not divided" in fault(divide("x", {"train": table(id=[1, 2])}).split, "validation")
    assert "no split `train`" in fault(divide, "x", {"a": table(id=[1]), "b": table(id=[2])})


def source_of(spec="x", **columns):
    return Source(spec, {"train": table("train", spec, **columns)})


def test_pair_in_a_seeded_order():
    a, b = source_of("a", text=list("abcdefgh")), source_of("b", label=list("12345"))
    joined = data.pair(a, b).train
    assert len(joined) == 5
    assert len(set(joined.cells("text"))) == 5
    assert sorted(joined.cells("label")) == list("12345")
    assert joined.cells("text") == data.pair(a, b).train.cells("text")
    orders = {tuple(data.pair(a, b, seed=seed).train.cells("text")) for seed in range(5)}
    assert len(orders) == 5
    row = joined.where(0)
    i, j = (int(number) - 1 for number in re.fullmatch(r"a, row (\d) with b, row (\d)", row).groups())
    assert (joined.cells("text")[0], joined.cells("label")[0]) == ("abcdefgh"[i], "12345"[j])


def test_pair_by_equal_values_takes_turns():
    a = source_of("a", text=["t0", "t1", "t2", "t3", "t4"], label=["x", "y", "x", "z", "x"])
    b = source_of("b", image=["ix1", "iy", "ix2", "iw"], label=["x", "y", "x", "w"])
    joined = data.pair(a, b, on="label").train
    assert joined.cells("text") == ["t0", "t1", "t2", "t4"]  # z has no partner, every other row one
    images = joined.cells("image")
    assert images[1] == "iy"
    assert images[0] != images[2]
    assert {images[0], images[2]} == {"ix1", "ix2"}
    assert images[3] == images[0]  # of two partners, the third row begins anew
    assert joined.kinds == {"text": "text", "label": "label", "image": "image"}


def test_pair_numbers_the_second_modality_and_drops_other_columns():
    a, b = source_of("a", image=["p"], note=["a"], kinds=None), source_of("b", image=["q"], note=["b"])
    joined = data.pair(a, b).train
    assert (joined.cells("image"), joined.cells("image2"), joined.cells("note")) == (["p"], ["q"], ["a"])
    assert joined.kinds["image2"] == "image"
    third = source_of("c", image=["r"], kinds=None)
    assert data.pair(data.pair(a, b), third).train.cells("image3") == ["r"]


def test_pair_needs_something_in_common():
    a, b = source_of("a", label=["x"]), source_of("b", label=["y"])
    assert "equal `label`" in fault(data.pair, a, b, on="label")
    other = Source("c", {"test": table("test", text=["t"])})
    assert "no split in common" in fault(data.pair, a, other)


def test_paired_files_find_their_own_pictures(tmp_path):
    for name, color in (("a", (255, 0, 0)), ("b", (0, 0, 255))):
        write_png(tmp_path / name / "p.png", color)
        write_jsonl(tmp_path / name / "rows.jsonl", [{"image": "p.png", "label": "x"}] * 3)
    joined = data.open(f"{tmp_path}/a/rows.jsonl+{tmp_path}/b/rows.jsonl@label").train
    good = data.checked(joined, {"image": "image", "image2": "image"}, decode=True)
    colors = []
    for column in ("image", "image2"):
        with Image.open(good.cells(column)[0]) as image:
            colors.append(image.getpixel((0, 0)))
    assert colors == [(255, 0, 0), (0, 0, 255)]


def test_paired_files_find_pictures_in_columns_declared_later(tmp_path):
    for name, column in (("a", "front"), ("b", "back")):
        write_png(tmp_path / name / "p.png")
        write_jsonl(tmp_path / name / "rows.jsonl", [{column: "p.png"}] * 3)
    both = f"{tmp_path}/a/rows.jsonl+{tmp_path}/b/rows.jsonl"
    joined = data.open(both, columns={"front": "image", "back": "image"}).train
    good = data.checked(joined, {"front": "image", "back": "image"})
    assert good.cells("front") == [str(tmp_path / "a" / "p.png")] * 3
    assert good.cells("back") == [str(tmp_path / "b" / "p.png")] * 3


@pytest.mark.parametrize("width", [6, 7])
def test_halves_together_are_the_picture(width, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (5, width, 3), dtype="uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (tmp_path / "p.png").write_bytes(buffer.getvalue())
    cells = ["p.png", buffer.getvalue(), "", None]
    source = Source("x", {"train": table(image=cells, folder=tmp_path)})
    cut = data.halves(source).train
    left, right = cut.cells("left"), cut.cells("right")
    for i in (0, 1):
        joined = np.concatenate([pixels_of(left[i])[0], pixels_of(right[i])[0]], axis=1)
        np.testing.assert_array_equal(joined, pixels)
        assert pixels_of(left[i]).shape == (1, 5, width // 2, 3)
    assert left[2:] == right[2:] == [b"", b""]
    assert cut.kinds["left"] == cut.kinds["right"] == "image"
    assert data.open("halves:scenes:16").train.kinds["left"] == "image"


def test_halves_of_a_broken_picture_are_told_and_those_in_cmyk_work(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
    source = Source("x", {"train": table(image=["c.jpg", "broken.png"], folder=tmp_path)})
    message = fault(data.halves(source).train.cells, "left")
    assert message.startswith("t, row 2: ")
    assert "broken.png is no picture" in message
    source = Source("x", {"train": table(image=["c.jpg"], folder=tmp_path)})
    red = pixels_of(data.halves(source).train.cells("right")[0])
    assert red[0, 0, 0].argmax() == 0


# COCO and Flickr30k, in the form they are downloaded in ---------------------------------------------------------------


def write_coco(path, numbers, captions=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": n, "file_name": f"COCO_{n:03d}.jpg", "height": 4} for n in numbers],
        "annotations": [
            {"image_id": n, "id": 10 * n + k, "caption": f"caption {k} of {n}\n"}
            for k in range(captions) for n in reversed(numbers)
        ],
        "licenses": [],
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_coco_as_downloaded(tmp_path):
    file = write_coco(tmp_path / "annotations" / "captions_train2014.json", list(range(1, 31)))
    write_coco(tmp_path / "annotations" / "captions_val2014.json", [91, 92])
    (tmp_path / "train2014").mkdir()
    source = data.open(f"coco:{file}")
    assert set(source.splits) == {"train", "validation", "test"}  # the pictures of val2014 are not there
    assert sum(len(split) for split in source.splits.values()) == 30
    (tmp_path / "val2014").mkdir()
    source = data.open(f"coco:{file}")
    assert source.validation.cells("id") == [91, 92]
    assert source.validation.cells("text")[1] == ["caption 0 of 92", "caption 1 of 92"]
    assert source.validation.cells("image")[0] == str(tmp_path / "val2014" / "COCO_091.jpg")
    assert source.validation.where(1) == "captions_val2014.json, row 2 (image 92)"
    assert source.train.kinds == {"image": "image", "text": "text", "id": "other"}
    for number, image, texts in zip(*map(source.train.cells, ("id", "image", "text")), strict=True):
        assert image == str(tmp_path / "train2014" / f"COCO_{number:03d}.jpg")
        assert texts == [f"caption {k} of {number}" for k in (0, 1)]


@pytest.mark.parametrize("place", ["annotations/train2014", "annotations/images", "images/train2014", "../images"])
def test_coco_finds_its_pictures(tmp_path, place):
    file = write_coco(tmp_path / "coco" / "annotations" / "captions_train2014.json", [1], captions=0)
    write_png(tmp_path / "coco" / place / "COCO_001.jpg")
    split = data.open(f"coco:{file}").train
    assert split.cells("text") == [""]
    assert len(data.checked(split, {"image": "image", "text": "text"}, decode=True)) == 1


def test_broken_coco_is_told_in_one_line(tmp_path):
    file = write_coco(tmp_path / "captions_train2014.json", [1])
    message = fault(data.open, f"coco:{file}")
    assert all(word in message for word in ("captions_train2014.json", "train2014/", "images/"))
    (tmp_path / "images").mkdir()
    for content, word in [
        ('{"images": [', "captions_train2014.json"),
        ('{"images": []}', "lacks 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": []}', "lacks 'file_name'"),
        ('{"images": [], "annotations": [{"image_id": 1, "caption": null}]}', "Expected"),
        ("[1, 2]", "Expected"),
    ]:
        file.write_text(content)
        assert word in fault(data.open, f"coco:{file}")
    assert "no.json" in fault(data.open, f"coco:{tmp_path / 'no.json'}")


def test_flickr30k_token_file(tmp_path):
    lines = [f"{n}.jpg#{k}\tcaption {k} of {n} .\n" for n in range(100, 120) for k in range(5)]
    file = tmp_path / "results_20130124.token"
    file.write_text("".join(lines), encoding="utf-8")
    message = fault(data.open, f"flickr30k:{file}")
    assert all(name in message for name in ("flickr30k-images/", "flickr30k_images/", "images/"))
    (tmp_path / "flickr30k-images").mkdir()
    source = data.open(f"flickr30k:{file}")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 16, "validation": 2, "test": 2}
    for name, image, texts in zip(*map(source.train.cells, ("id", "image", "text")), strict=True):
        assert image == str(tmp_path / "flickr30k-images" / name)
        assert texts == [f"caption {k} of {name[:3]} ." for k in range(5)]
    assert source.train.kinds["text"] == "text"


def test_flickr30k_of_kaggle_with_its_malformed_row(tmp_path, capsys):
    file = tmp_path / "flickr30k_images" / "results.csv"
    file.parent.mkdir()
    file.write_text(
        "image_name| comment_number| comment\n"
        "1.jpg| 0| A man , two | three dogs .\n"
        "1.jpg| 1|  Dogs .\n"
        "2.jpg| 0| Snow .\n"
        "2.jpg| 4   A dog runs across the grass .\n",
        encoding="utf-8",
    )  # fmt: skip
    (tmp_path / "flickr30k_images" / "flickr30k_images").mkdir()
    message = fault(data.open, f"flickr30k:{file}")
    assert "results.csv, row 5" in message
    assert "--skip-bad" in message
    split = data.open(f"flickr30k:{file}", skip_bad=True).train
    assert "results.csv, row 5" in capsys.readouterr().out
    assert split.cells("id") == ["1.jpg", "2.jpg"]
    assert split.cells("text") == [["A man , two | three dogs .", "Dogs ."], ["Snow ."]]
    assert split.cells("image")[0] == str(file.parent / "flickr30k_images" / "1.jpg")


def test_flickr30k_of_karpathy_has_splits(tmp_path):
    file = tmp_path / "captions" / "flickr_annotations_30k.csv"
    file.parent.mkdir()
    (tmp_path / "images").mkdir()
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["raw", "sentids", "split", "filename", "img_id"])
        writer.writerow(['["One, \\"two\\" .", "Three ."]', "[0, 1]", "train", "1.jpg", 0])
        writer.writerow(['["Four"]', "[2]", "val", "2.jpg", 1])
        writer.writerow(['["Five"]', "[3]", "test", "3.jpg", 2])
    source = data.open(f"flickr30k:{file}")
    assert {name: split.cells("text") for name, split in source.splits.items()} == {
        "train": [['One, "two" .', "Three ."]], "validation": [["Four"]], "test": [["Five"]],
    }  # fmt: skip
    assert source.rule is None
    file.write_text(file.read_text() + "no list,[0],train,4.jpg,0\n")
    assert "flickr_annotations_30k.csv, row 5" in fault(data.open, f"flickr30k:{file}")
    file.write_text("")
    assert "holds no caption" in fault(data.open, f"flickr30k:{file}")


# Word vectors ---------------------------------------------------------------------------------------------------------


def test_word_vectors_come_in_the_vocabularys_order(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("the 1 2 3\n. . . 7 8 9\ncat -1 0.5 1e-2\ndog 4 5 6\n", encoding="utf-8")
    vectors, found = data.read_word_vectors(file, ["dog", "unseen", "cat", ". . ."])
    np.testing.assert_allclose(vectors, [[4, 5, 6], [0, 0, 0], [-1, 0.5, 0.01], [7, 8, 9]], rtol=1e-6)
    assert found.tolist() == [True, False, True, True]
    assert vectors.dtype == np.float32


def test_word2vec_text_begins_with_two_counts(tmp_path):
    file = tmp_path / "w2v.txt"
    file.write_text("2 3\nthe 1 2 3 \nkatze 4 5 6 \n", encoding="utf-8")
    vectors, found = data.read_word_vectors(file, ["katze"])
    np.testing.assert_array_equal(vectors, [[4, 5, 6]])
    assert found.all()


@pytest.mark.parametrize("line", ["cat 1 2", "cat 1 2 3 4", "cat"])
def test_word_vectors_of_another_width_are_refused(tmp_path, line):
    file = tmp_path / "glove.txt"
    file.write_text(f"the 1 2 3\n{line}\n", encoding="utf-8")
    message = fault(data.read_word_vectors, file, ["the"])
    assert "row 2: expected 3 numbers, got" in message
    assert str(len(line.split()) - 1) in message.split("got")[1]


def test_word_vectors_without_any_word_are_refused(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("the 1 2 3\n", encoding="utf-8")
    assert "none of the 1 words" in fault(data.read_word_vectors, file, ["der"])


def test_shapes_are_those_of_the_labels():
    assert set(data.scenes(200).train.cells("label")) == set(SHAPES)


@pytest.mark.parametrize("size", SIZES)
def test_no_two_shapes_are_drawn_alike_in_any_styles(size):
    drawn = {
        (shape, style): np.prod(np.broadcast_arrays(*_stamp(shape, SIZES[size], style)), axis=0) / 255
        for shape, style in itertools.product(SHAPES, STYLES)
    }
    for one, other in itertools.combinations(drawn, 2):
        if one[0] != other[0]:
            assert np.abs(drawn[one] - drawn[other]).mean() > 25, (one, other)  # of 255
