"""The drawings of emoji that several protocols are about."""

import os
import pathlib


def emoji():
    """The source of the folder that `EMOJI_DATA_DIR` names, or of `emoji`.

    Raises:
        DataError: if there is no such folder.
    """
    from mmkeras import data

    folder = pathlib.Path(os.environ.get("EMOJI_DATA_DIR", "emoji"))
    if not (folder / "train.jsonl").is_file():
        raise data.DataError(
            f"Expected drawings of emoji in {folder}, as train.jsonl, validation.jsonl, test_style.jsonl and "
            'test_concept.jsonl, a line a drawing: {"image", "text", "tags", "category", "subcategory", "style"}. Set '
            "EMOJI_DATA_DIR to the folder that holds them. Public drawings: googlefonts/noto-emoji (Apache 2.0), "
            "jdecked/twemoji (CC BY 4.0), microsoft/fluentui-emoji (MIT); names: annotations of Unicode CLDR (Unicode "
            "License)."
        )
    return data.open(str(folder))
