"""Pictures and clips that are broken, cut off, or far larger than their files: refused, by row, before decoding."""

import concurrent.futures
import functools
import io
import multiprocessing
import pathlib
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mmkeras.layers import DecodeAudio, DecodeImage, DecodeVideo
from mmkeras.layers.picture_headers import walk_gifs

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
        (JPEG[:2] + b"\xff\xda" + JPEG[4:], "has a broken header"),
        (JPEG[:2] + b"\xff\xff" * 20_000 + JPEG[-2:], "has a broken header"),
        (PNG[:24] + b"\x03" + PNG[25:], "has a broken header"),
        (PNG[:12] + b"JHDR" + PNG[16:], "has a broken header"),
        (PNG[:16] + struct.pack(">II", 2**24, 2) + PNG[24:], "has no pixel, or more than 33554432, or a side of more"),
        (BMP[:-1], "is cut off"),
        (BMP[:28] + b"\x08" + BMP[29:], "has a broken header"),
        (BMP[:46].ljust(46, b"\0"), "is cut off"),
        (b"BM" + bytes(44), "has a broken header"),
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


@functools.cache
def packed_zeros(count):
    """So many zeros as a GIF packs them: every code stands for one zero more than the one before."""
    codes, size = [], 3
    while count:
        codes.append((4, size))  # the table begins anew
        run, size = 1, 3
        while count and run < 4090:
            run = min(run, count)
            codes.append((4 + run if run > 1 else 0, size))
            count, run = count - run, run + 1
            size = max(3, (run + 3).bit_length())
    codes.append((5, size))
    bits = "".join(f"{code:0{size}b}"[::-1] for code, size in codes)
    data = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    pieces = (data[i : i + 255] for i in range(0, len(data), 255))
    return b"\x02" + b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"


def black_gif(canvas, *sizes):
    """A GIF of black frames, each of a width and a height, whatever its canvas says."""
    frames = (b"\x2c" + struct.pack("<HHHHB", 0, 0, *size, 0) + packed_zeros(size[0] * size[1]) for size in sizes)
    return b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x81, 0, 0) + bytes(12) + b"".join(frames) + b";"


def packed_frames(declared, *pictures):
    """A serialised tensor that says it has so many strings, whatever it holds."""
    shape = tf.TensorShape([declared]).as_proto().SerializeToString()
    strings = b"".join(b"\x42" + bytes([len(p) % 128 + 128, len(p) // 128 % 128 + 128, len(p) // 2**14]) + p
                       for p in pictures)  # fmt: skip
    return b"\x08\x07\x12" + bytes([len(shape)]) + shape + strings


def peaks(cases):
    """[(MiB, what was said)] of decoding each `(layer, encoded rows)`, in a process of its own."""
    layers = {"image": DecodeImage((64, 64), name="read_x"), "video": DecodeVideo(4, (64, 64), name="read_x")}
    specs, found = [tf.TensorSpec([None], tf.string)], []
    decoders = {kind: tf.function(one, input_signature=specs, autograph=False) for kind, one in layers.items()}
    for kind, rows in cases:
        decode = decoders[kind]
        decode(tf.constant([PNG]))
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before, rows, said = memory(), tf.constant(rows), "good"
        try:
            decode(rows)
        except tf.errors.InvalidArgumentError as error:
            said = error.message[error.message.index("The ") :].splitlines()[0]
        found.append((memory() - before, said))
    return found


def memory():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


@pytest.mark.long
@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak")
def test_bombs_take_no_memory_and_the_largest_pictures_little():
    side = 5792  # squared, nearly as many pixels as are allowed
    blocks = b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\x01a\x02ab" * 1_000_000 + b"\0;"
    picture = f"The picture `x` in row {{}} has no pixel, or more than {2**25}"
    cases = {
        ("image", (PNG, PNG[:16] + struct.pack(">II", 50_000, 50_000) + PNG[24:])): (20, picture.format(1)),
        ("image", (black_gif((1, 1), (20_000, 20_000)),)): (20, picture.format(0)),
        ("image", (blocks,)): (40, "The picture `x` in row 0 has a broken header"),
        ("image", (black_gif((5000, 5000), *[(5000, 5000)] * 9),)): (200, "good"),
        ("image", (flat_png("RGB", side),)): (400, "good"),
        ("image", (flat_png("RGBA", side),) * 2): (800, "good"),
        ("video", (PNG, black_gif((1, 1), (10_000, 10_000)))): (20, "The clip `x` in row 1 is cut off, or its frames"),
        ("video", (black_gif((1, 1), (60_000, 1), (1, 60_000)),)): (20, "The clip `x` in row 0 is cut off, or its fr"),
        ("video", (blocks,)): (40, "The clip `x` in row 0 is cut off, or its frames have more than"),
        ("video", (black_gif((1, 1), *[(1, 1)] * 9000),)): (20, "The clip `x` in row 0 is cut off, or its frames"),
        ("video", (black_gif((side, side), (side, side)),)): (250, "good"),
        ("video", (packed_frames(10**9, PNG),)): (20, "good"),
        ("video", (packed_frames(1, *[b""] * 1_000_000),)): (40, "The clip `x` in row 0 is broken, or holds no frame"),
        ("video", (PNG, packed_frames(2, PNG, PNG[:-30]))): (20, "The clip `x` in row 1, frame 1, is cut off"),
        ("video", (packed_frames(2, PNG, PNG)[:-3],)): (20, "The clip `x` in row 0 is broken, or holds no frame"),
        ("video", (packed_frames(3, *[flat_png("RGB", side)] * 3),)): (600, "good"),
    }  # fmt: skip
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(peaks, list(cases)).result()
    for (_, rows), (most, expected), (taken, said) in zip(cases, cases.values(), found, strict=True):
        assert said.startswith(expected), said
        assert taken < most, (expected, taken)
        assert all(len(row) < 6_000_000 for row in rows)  # small on disk


@functools.cache
def flat_png(mode, side):
    buffer = io.BytesIO()
    Image.new(mode, (side, side), (1, 2, 3, 99)[: len(mode)]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("frames", "size"), [(1, (64, 48)), (2, (5, 7)), (40, (30, 20))])
def test_frames_are_counted_without_decoding(frames, size):
    clip = encoded("GIF", size, frames, duration=50)
    assert [int(v[1]) for v in walk_gifs(tf.constant([GIF, clip]))] == [frames, size[1], size[0], len(clip) - 1]


def test_frames_of_what_is_broken_are_none():
    whole = encoded("GIF", frames=5)
    broken = [b"", b"GIF89a", whole[:-1], whole[:100], whole[:13] + b"\xff" * 50, b"GIF89a" + b"\x00" * 7]
    broken += [whole[:end] for end in range(0, len(whole) - 1, 97)]  # wherever it is cut
    assert not walk_gifs(tf.constant(broken))[0].numpy().any()


def test_a_clip_of_too_many_pixels_is_named_by_its_row():
    layer = DecodeVideo(4, (8, 8), name="read_clip")
    clip = encoded("GIF", (16, 16), 3)
    assert layer(tf.constant([clip, b"", PNG])).shape == (3, 4, 8, 8, 3)
    bomb = clip[:6] + struct.pack("<HH", 60_000, 60_000) + clip[10:]
    for broken in (bomb, clip[:-20]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="The clip `clip` in row 1 is cut off, or its frames"):
            layer(tf.constant([clip, broken]))


def test_a_gif_is_read_up_to_its_first_frame_and_a_strip_is_padded(decode):
    clip = encoded("GIF", (40, 30), 5, duration=50)
    first = Image.open(io.BytesIO(clip)).convert("RGB")
    expected = np.asarray(first, "float32") * np.float32(1 / 255)
    np.testing.assert_array_equal(DecodeImage((30, 40))(tf.constant([clip]))[0], expected)
    strip = DecodeImage((8, 8), resize="pad")(tf.constant([flat_png("RGB", 1), encoded("PNG", (200, 3))]))
    assert strip.shape == (2, 8, 8, 3)
    assert strip[1, 4:].numpy().min() == 1  # white but for one line


def damaged(content):
    """A picture whose header is right and whose data are not."""
    middle = len(content) // 2
    return content[:middle] + bytes(255 - byte for byte in content[middle : middle + 20]) + content[middle + 20 :]


def wav(rate=8000):
    return tf.audio.encode_wav(tf.random.uniform((4000, 1)), rate).numpy()


CLIP = tf.io.serialize_tensor([PNG, JPEG]).numpy()
READERS = {  # a layer that names all rows, what it reads, and damage that only reading finds
    "picture": (functools.partial(DecodeImage, (8, 8)), [PNG, JPEG, GIF, BMP, b""], damaged(PNG)),
    "clip": (functools.partial(DecodeVideo, 3, (8, 8)), [CLIP, GIF, PNG, b""], CLIP.replace(PNG, damaged(PNG))),
    "sound": (functools.partial(DecodeAudio, 8000, 0.5), [wav(), wav(16000), b""], b"RIFF" + bytes(60)),
}


@pytest.mark.parametrize("kind", READERS)
def test_damage_that_only_decoding_finds_is_named_by_its_row_in_serving(kind):
    make, good, bad = READERS[kind]
    named, options = make(name="read_it", names_all=True), {"input_signature": [tf.TensorSpec([None], tf.string)]}
    plain, read = (tf.function(layer, autograph=False, **options) for layer in (make(name="read_it"), named))
    np.testing.assert_array_equal(read(tf.constant(good)), plain(tf.constant(good)))
    assert read(tf.constant([], tf.string)).shape == (0, *plain(tf.constant(good)).shape[1:])
    for row in range(len(good) + 1):
        rows = [*good[:row], bad, *good[row:], bad]  # the first of two
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"The {kind} `it` in row {row} cannot be decoded"):
            read(tf.constant(rows))
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"The {kind} `it` in row 0 cannot be decoded"):
        read(tf.constant([bad, bad]))  # none is left
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        plain(tf.constant([bad]))
    assert "cannot be decoded" not in str(caught.value)
    again = type(named).from_config(named.get_config())
    assert again.names_all
