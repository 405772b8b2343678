"""Pictures and texts by PyTorch's DataLoader and Pillow, as one would write it."""

import re

import numpy as np
import torch
from PIL import Image

from mmkeras.layers.tokenize_text import END, SPECIAL, UNKNOWN


class Rows(torch.utils.data.Dataset):
    """Paths and texts to pixels `(channels, height, width)` in 0..1 and token ids.

    Args:
        paths, texts: of the rows.
        size: (height, width).
        vocabulary: all tokens by their id.
        length: number of ids a row.
    """

    def __init__(self, paths, texts, size, vocabulary, length):
        self.paths, self.texts, self.size, self.length = paths, texts, size, length
        self.ids = {word: i for i, word in enumerate(vocabulary)}

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as picture:
            picture = picture.convert("RGB").resize(self.size[::-1], Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        words = re.findall(r"[\w]+|[^\w\s]", self.texts[i].lower())[: self.length - 1]
        ids = [self.ids.get(word, SPECIAL.index(UNKNOWN)) for word in words] + [SPECIAL.index(END)]
        return pixels, torch.tensor(ids + [0] * (self.length - len(ids)))


def loader(rows, batch_size, workers, shuffle):
    """The DataLoader; its workers stay from one epoch to the next."""
    return torch.utils.data.DataLoader(
        rows, batch_size, shuffle=shuffle, num_workers=workers, persistent_workers=workers > 0
    )
