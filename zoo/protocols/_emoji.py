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
            f"Expected drawings of emoji in {folder}, or where EMOJI_DATA_DIR says. Make them of clones of "
            "googlefonts/noto-emoji (Apache 2.0), jdecked/twemoji (CC BY 4.0), microsoft/fluentui-emoji (MIT), "
            "unicode-org/cldr and Unicode's emoji-test.txt (Unicode License): zoo data import emoji noto-emoji twemoji "
            f"fluentui-emoji cldr emoji-test.txt --to {folder}"
        )
    return data.open(str(folder))
