"""Public drawings of emoji, as their repositories are laid out, to a folder of manifests."""

import collections
import json
import pathlib
import re
import shutil
import zlib
from xml.etree import ElementTree

from mmkeras.data import DataError
from mmkeras.runs import replaced

LANGUAGES = {"en": "text", "de": "text_de", "fr": "text_fr", "zh": "text_zh"}
HELD_OUT_STYLE = "fluent3d"
_SKIN_TONES = {f"{tone:x}" for tone in range(0x1F3FB, 0x1F400)}
_VARIATION = "fe0f"  # "drawn as an emoji", which some sets write and others do not


def import_emoji(folders, to, held_out_style=HELD_OUT_STYLE):
    """Writes `train`, `validation`, `test_style` and `test_concept` as manifests, and the drawings beside them.

    A tenth of the concepts (a concept is one emoji, by its code points) is held out in all styles (`test_concept`), one
    style of the others (`test_style`); a twelfth of what is left is `validation`. A concept belongs to one of them by a
    hash of its code points. Emoji of several skin tones are left out. Columns: `image`, `text`, `tags`, `category`,
    `subcategory`, `style`, and `text_de`, `text_fr`, `text_zh` where the annotations have these languages.

    Args:
        folders: paths, or `STYLE=PATH`, of clones: drawings (googlefonts/noto-emoji, jdecked/twemoji,
            hfg-gmuend/openmoji, microsoft/fluentui-emoji, or whatever is laid out as one of them), unicode-org/cldr for
            names and tags, and Unicode's `emoji-test.txt`, or a folder that holds it, for categories.
        to: the folder, which must not exist yet.
        held_out_style: that is in no training row.

    Returns:
        `{split: number of rows}`.

    Raises:
        DataError: if a folder is none of these, or one is missing.
    """
    to = pathlib.Path(to)
    if to.exists():
        raise DataError(f"{to} exists. Name a folder that does not, with --to.")
    drawings, names, groups = {}, {}, {}
    for given in folders:
        style, _, path = str(given).rpartition("=")
        path = pathlib.Path(path)
        if found := _categories(path):
            groups = found
        elif found := _annotations(path):
            names = found
        else:
            found, own_style = _drawings(path)
            drawings[style or own_style] = found
    _check(drawings, names, groups, held_out_style)
    splits = collections.defaultdict(list)
    for style, files in drawings.items():
        for code, file in sorted(files.items()):
            if code in names and code in groups:
                splits[_split(code, style, held_out_style)].append((code, style, file))
    if not splits.keys() >= {"train", "test_style"}:
        raise DataError("Too few of the drawings are of emoji that have a name and a category. Received: {}.".format(
            ", ".join(f"{style} {len(files)}" for style, files in drawings.items())))  # fmt: skip
    with replaced(to) as beside:
        for split, rows in splits.items():
            _write(beside, split, rows, names, groups)
    return {split: len(rows) for split, rows in splits.items()}


def _check(drawings, names, groups, held_out_style):
    if not names:
        raise DataError(
            "Expected a clone of unicode-org/cldr among the folders: common/annotations/en.xml has the names of emoji."
        )
    if not groups:
        raise DataError(
            "Expected emoji-test.txt among the folders, from unicode.org/Public/emoji/latest: it has the categories."
        )
    if held_out_style not in drawings or len(drawings) < 2:
        raise DataError(
            f"Expected drawings of the style `{held_out_style}`, which is held out, and of another. Received: "
            f"{', '.join(drawings) or 'none'}. Name another with --held-out, or a folder's style with STYLE=FOLDER."
        )


def _split(code, style, held_out_style):
    draw = zlib.crc32(code.encode()) % 120
    if draw < 12:
        return "test_concept"
    if style == held_out_style:
        return "test_style"
    return "validation" if zlib.crc32(f"{code} {style}".encode()) % 12 == 0 else "train"


def _write(to, split, rows, names, groups):
    lines = []
    for code, style, file in rows:
        image = f"{style}/{code}.png"
        (to / style).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to / image)
        category, subcategory = groups[code]
        row = {"image": image, **names[code], "category": category, "subcategory": subcategory, "style": style}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    (to / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def _code(text):
    """Code points, in any case and with any mark between them, as `1f468-200d-1f33e`; None with a skin tone."""
    points = [point.lstrip("0") for point in re.split(r"[-_ ]", text.lower()) if point != _VARIATION]
    return None if _SKIN_TONES.intersection(points) else "-".join(points)


def _drawings(folder):
    """(`{code: file}`, name of the style) of a repository of drawings."""
    layouts = {
        "noto": ("png/128", r"emoji_u([0-9a-f_]+)\.png"),
        "twemoji": ("assets/72x72", r"([0-9a-f-]+)\.png"),
        "openmoji": ("color/72x72", r"([0-9A-F-]+)\.png"),
    }
    for style, (inside, pattern) in layouts.items():
        named = [(re.fullmatch(pattern, file.name), file) for file in sorted((folder / inside).glob("*.png"))]
        found = {_code(match[1]): file for match, file in named if match}
        if found:
            found.pop(None, None)
            return found, style
    found = {}
    for file in sorted(folder.glob("assets/*/metadata.json")):
        code = _code(json.loads(file.read_text(encoding="utf-8"))["unicode"])
        pictures = [*sorted(file.parent.glob("3D/*.png")), *sorted(file.parent.glob("Default/3D/*.png"))]
        if code and pictures:
            found[code] = pictures[0]
    if not found:
        raise DataError(
            f"{folder} holds nothing about emoji. Expected a clone of noto-emoji (png/128/emoji_u*.png), twemoji "
            "(assets/72x72/*.png), openmoji (color/72x72/*.png), fluentui-emoji (assets/*/3D/*.png, metadata.json) or "
            "cldr (common/annotations/en.xml), or emoji-test.txt."
        )
    return found, "fluent3d"


def _annotations(folder):
    """`{code: {"text", "tags", "text_de" …}}` of the languages that a clone of CLDR has; without English none."""
    found = {}
    for language, column in LANGUAGES.items():
        for kind in ("annotations", "annotationsDerived"):
            for path in (folder / kind / f"{language}.xml", folder / "common" / kind / f"{language}.xml"):
                if path.is_file():
                    _read_annotations(path, column, found)
    return {code: row for code, row in found.items() if "text" in row}


def _read_annotations(path, column, found):
    for one in ElementTree.parse(path).iter("annotation"):
        code = _code(" ".join(f"{ord(character):x}" for character in one.get("cp")))
        if code is None or not one.text:
            continue
        row = found.setdefault(code, {})
        if one.get("type") == "tts":
            row[column] = one.text.strip()
        elif column == "text":
            row["tags"] = [tag.strip() for tag in one.text.split("|")]


def _categories(path):
    """`{code: (category, subcategory)}` of emoji-test.txt, or of the folder it lies in; nothing if there is none."""
    path = path / "emoji-test.txt" if path.is_dir() else path
    if path.name != "emoji-test.txt" or not path.is_file():
        return {}
    found, group, subgroup = {}, "", ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.partition(":")[2].strip().lower().replace(" & ", "-")
        elif line.startswith("# subgroup:"):
            subgroup = line.partition(":")[2].strip()
        elif "; fully-qualified" in line:
            found[_code(line.partition(";")[0].strip())] = (group, subgroup)
    return found
