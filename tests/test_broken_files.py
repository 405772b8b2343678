"""Pictures and clips that are broken, cut off, or far larger than their files: refused, by row, before decoding."""

import io
import struct
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mmkeras.layers import DecodeImage, DecodeVideo
from mmkeras.layers.decode_video import gif_size

RNG = np.random.default_rng(0)


def encoded(kind, size=(60, 50), frames=1, mode="RGB", **options):
    pictures = [
        Image.fromarray(RNG.integers(0, 255, (size[1], size[0], 3), "uint8")).convert("P" if kind == "GIF" else mode)
        for _ in range(frames)
    ]
    buffer = io.BytesIO()
    if frames > 1:
        options = {"save_all": True, "append_images": pictures[1:], **options}
    pictures[0].save(buffer, kind, **options)
    return buffer.getvalue()


PNG, JPEG, GIF, BMP = (encoded(kind) for kind in ("PNG", "JPEG", "GIF", "BMP"))


@pytest.fixture(scope="module")
def decode():
    layer = DecodeImage((8, 8), name="read_photo")
    return tf.function(layer, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def test_whole_pictures_of_all_kinds_are_read(decode):
    several = [encoded("PNG", mode=mode) for mode in ("L", "RGBA", "1", "P", "LA")]
    several += [encoded("JPEG", mode=mode) for mode in ("L", "CMYK")] + [encoded("JPEG", progressive=True)]
    several += [encoded("PNG", (1, 1)), encoded("JPEG", (1, 1)), encoded("GIF", frames=3)]
    assert decode(tf.constant([PNG, JPEG, GIF, BMP, b"", *several])).shape == (5 + len(several), 8, 8, 3)


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (b"hello", "is no PNG, JPEG, GIF or BMP"),
        (b"\x00", "is no PNG, JPEG, GIF or BMP"),
        (b"RIFF" + b"\x00" * 40, "is no PNG, JPEG, GIF or BMP"),
        (b"\x89PNG", "is cut off"),
        (PNG[:-30], "is cut off"),
        (PNG[: len(PNG) // 2], "is cut off"),
        (JPEG[:-40], "is cut off"),
        (GIF[:-1], "is cut off"),
        (PNG[:16] + struct.pack(">II", 60_000, 60_000) + PNG[24:], "has no pixel, or more than 33554432"),
        (PNG[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + PNG[24:], "has no pixel, or more than 33554432"),
        (PNG[:16] + struct.pack(">II", 0, 5) + PNG[24:], "has no pixel, or more than 33554432"),
        (GIF[:6] + struct.pack("<HH", 65_535, 65_535) + GIF[10:], "has no pixel, or more than 33554432"),
        (BMP[:18] + struct.pack("<ii", 60_000, -60_000) + BMP[26:], "has no pixel, or more than 33554432"),
    ],
)
def test_a_bad_picture_is_named_by_its_row(decode, broken, fault):
    for row in (0, 2):
        pictures = [PNG, JPEG, GIF]
        pictures[row] = broken
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"The picture `photo` in row {row} {fault}"):
            decode(tf.constant(pictures))


def test_a_bomb_takes_no_memory(decode):
    resource = pytest.importorskip("resource", reason="only Unix tells the memory of a process")
    bomb = PNG[:16] + struct.pack(">II", 50_000, 50_000) + PNG[24:]  # 10 GB as it would be decoded
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant([bomb] * 4))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("frames", "size"), [(1, (64, 48)), (2, (5, 7)), (40, (30, 20))])
def test_frames_are_counted_without_decoding(frames, size):
    assert [int(v) for v in gif_size(encoded("GIF", size, frames, duration=50))] == [frames, size[0] * size[1]]


def test_frames_of_what_is_broken_are_none():
    whole = encoded("GIF", frames=5)
    for broken in (b"", b"GIF89a", whole[:-1], whole[:100], whole[:13] + b"\xff" * 50, b"GIF89a" + b"\x00" * 7):
        assert int(gif_size(broken)[0]) == 0
    for end in range(0, len(whole) - 1, 97):  # wherever it is cut
        assert int(gif_size(whole[:end])[0]) == 0


def test_a_clip_of_too_many_pixels_is_named_by_its_row():
    layer = DecodeVideo(4, (8, 8), name="read_clip")
    clip = encoded("GIF", (16, 16), 3)
    assert layer(tf.constant([clip, b"", PNG])).shape == (3, 4, 8, 8, 3)
    bomb = clip[:6] + struct.pack("<HH", 60_000, 60_000) + clip[10:]
    for broken in (bomb, clip[:-20]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="The clip `clip` in row 1 is cut off, or its frames"):
            layer(tf.constant([clip, broken]))
