"""`zoo data import emoji` on clones in miniature."""

import json

import pytest
from PIL import Image

from mmkeras import data
from zoo import _cli

CODES = [f"{0x1F400 + i:x}" for i in range(60)]
FARMER = "1f468-200d-1f33e"


def draw(path, color=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (8, 8), color).save(path)


@pytest.fixture
def clones(tmp_path):
    for code in [*CODES, "1f44b", "1f44b_1f3fd", "23_20e3", FARMER.replace("-", "_")]:
        draw(tmp_path / f"noto-emoji/png/128/emoji_u{code}.png", (255, 0, 0))
    draw(tmp_path / "noto-emoji/png/128/emoji_u1f9ff.png")  # without a name
    for code in [*CODES, "1f44b", "1f44b-1f3fd", "23-fe0f-20e3", FARMER]:
        draw(tmp_path / f"twemoji/assets/72x72/{code}.png", (0, 255, 0))
        draw(tmp_path / f"openmoji/color/72x72/{code.upper()}.png", (0, 0, 255))
    for i, code in enumerate([*CODES, "1f44b"]):
        folder = tmp_path / f"fluentui-emoji/assets/Thing {i}"
        draw(folder / ("Default/3D/thing_3d_default.png" if code == "1f44b" else "3D/thing_3d.png"), (0, 0, 0))
        (folder / "metadata.json").write_text(json.dumps({"unicode": code}))
    for language, word in (("en", "thing"), ("de", "Ding")):
        for kind, codes in (("annotations", [*CODES, "1f44b", "23-20e3"]), ("annotationsDerived", [FARMER])):
            path = tmp_path / f"cldr/common/{kind}/{language}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = []
            for code in codes:
                cp = "".join(chr(int(point, 16)) for point in code.split("-"))
                lines.append(f'<annotation cp="{cp}">{word} | it</annotation>')
                lines.append(f'<annotation cp="{cp}" type="tts">{word} {code}</annotation>')
            text = f'<!DOCTYPE ldml SYSTEM "x.dtd"><ldml><annotations>{"".join(lines)}</annotations></ldml>'
            path.write_text(text, encoding="utf-8")
    lines = ["# group: Animals & Nature", "# subgroup: animal-thing"]
    lines += [f"{code.upper()}  ; fully-qualified     # X" for code in CODES]
    lines += ["# group: People & Body", "# subgroup: person-role", "1F44B ; fully-qualified # X"]
    lines += ["1F468 200D 1F33E ; fully-qualified # X", "0023 FE0F 20E3 ; fully-qualified # X"]
    (tmp_path / "emoji-test.txt").write_text("\n".join(lines))
    return tmp_path


FOLDERS = ("noto-emoji", "twemoji", "openmoji", "fluentui-emoji", "cldr", "emoji-test.txt")


def take(clones, *folders, **options):
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    paths = []
    for folder in folders or FOLDERS:
        style, equals, name = folder.rpartition("=")
        paths.append(f"{style}{equals}{clones / name}")
    return _cli.main(["data", "import", "emoji", *paths, "--to", str(clones / "out"), *given])


def test_every_drawing_with_a_name_is_a_row_of_one_split(clones, capsys):
    assert take(clones) == 0
    source = data.open(str(clones / "out"))
    counts = {name: len(split) for name, split in source.splits.items()}
    said = capsys.readouterr().out.strip().partition(": ")[2].split(", ")
    assert {name: int(number) for name, number in map(str.split, said)} == counts
    assert sum(counts.values()) == 3 * (len(CODES) + 3) + len(CODES) + 1
    concepts = {name: set(split.cells("text")) for name, split in source.splits.items()}
    held_out = concepts.pop("test_concept")
    assert 2 < len(held_out) < 15
    assert not held_out & set.union(*concepts.values())
    assert set(source.split("test_style").cells("style")) == {"fluent3d"}
    assert set(source.train.cells("style")) == {"noto", "twemoji", "openmoji"}
    lines = [
        line for file in (clones / "out").glob("*.jsonl") for line in file.read_text(encoding="utf-8").splitlines()
    ]
    rows = list(map(json.loads, lines))
    (farmer,) = (r for r in rows if r["text"] == f"thing {FARMER}" and r["style"] == "openmoji")
    assert farmer == {
        "image": f"openmoji/{FARMER}.png", "text": f"thing {FARMER}", "text_de": f"Ding {FARMER}",
        "tags": ["thing", "it"], "category": "people-body", "subcategory": "person-role", "style": "openmoji",
    }  # fmt: skip
    with Image.open(clones / "out" / farmer["image"]) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255, 255)
    assert {r["category"] for r in rows} == {"people-body", "animals-nature"}
    assert sum(r["text"] == "thing 23-20e3" for r in rows) == 3  # however the code is written
    assert not any("1f3fd" in r["image"] for r in rows)


def test_a_clone_may_be_given_another_style_and_another_be_held_out(clones):
    assert take(clones, "twemoji", "blob=noto-emoji", "cldr", "emoji-test.txt", held_out="blob") == 0
    source = data.open(str(clones / "out"))
    assert set(source.train.cells("style")) == {"twemoji"}
    assert set(source.split("test_style").cells("style")) == {"blob"}


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("noto-emoji", "fluentui-emoji", "emoji-test.txt"), "Expected a clone of unicode-org/cldr among the folders"),
        (("noto-emoji", "fluentui-emoji", "cldr"), "Expected emoji-test.txt among the folders"),
        (("noto-emoji", "twemoji", "cldr", "emoji-test.txt"), "Expected drawings of the style `fluent3d`"),
        (("nothing", *FOLDERS), "nothing holds nothing about emoji."),
    ],
)
def test_what_is_missing_is_told_in_a_line_and_nothing_is_written(clones, capsys, folders, said):
    (clones / "nothing").mkdir()
    assert take(clones, *folders) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (clones / "out").exists()


def test_a_folder_that_is_there_is_left_alone(clones, capsys):
    (clones / "out").mkdir()
    assert take(clones) == 2
    assert "out exists." in capsys.readouterr().err
