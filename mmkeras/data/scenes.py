"""`scenes`: generated pictures of shapes, with everything a multi-input model may want to learn about them.

Every column is a pure function of the seed and the row, in integer arithmetic, so that the decoded arrays are the
same on every machine. A picture shows one to three objects; the first is the largest and the one that is meant.

| column | kind | what |
|---|---|---|
| `image` | image | 48 x 48 PNG |
| `text` | text | caption: "a large red circle top left and a small blue square bottom left on white" |
| `tags` | tags | the shapes and colours in the picture |
| `label` | label | shape of the first object (6 classes) |
| `object` | other | colour and shape of the first object: "red circle" (48 classes) |
| `question`, `answer` | text, label | about shape, colour, number, place and existence; yes and no balanced |
| `question_type` | other | which of these |
| `mood_image`, `mood_text`, `sentiment` | other | -1 or 1 of picture (dark or bright ground) and remark; their mean |
| `agreement` | other | whether these two are the same: no modality alone knows |
| `remark` | text | an opinion of the first object: "what a lovely red circle" |
| `domain` | other | drawing style: flat, outline, hatched, shaded |
| `vector` | vector | 8 numbers: position, size and colour of the first object, number of objects |
| `audio` | audio | one second of WAV at 8 kHz: timbre by shape, pitch by colour, loudness by size |
| `video` | video | eight-frame GIF: the first object moves left, right, up or down |
| `motion` | other | that direction |
| `id` | other | e.g. `train-00012` |
"""

import functools
import io
import itertools
import struct
import zlib

import numpy as np

from mmkeras.data.source import Source, Split

SIZE = 48  # pixels a side
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLORS = {
    "red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 90, 200), "yellow": (240, 200, 20),
    "purple": (140, 60, 190), "orange": (255, 127, 14), "pink": (240, 110, 190), "black": (30, 30, 30),
}  # fmt: skip
SIZES = {"small": 10, "large": 18}  # pixels across
STYLES = ("flat", "outline", "hatched", "shaded")
SIDES = ("left of", "right of", "above", "below")
MOTIONS = ("left", "right", "up", "down")
REMARKS = {1: ("lovely", "beautiful", "cheerful"), -1: ("awful", "ugly", "gloomy")}
NUM_ROWS = {"train": 4000, "validation": 500, "test": 500}

_COLOR_NAMES = tuple(COLORS)
_COLOR_VALUES = np.array(list(COLORS.values()), dtype="int32")
_SCALE = 4  # every shape is drawn four times as large and averaged down


def scenes(num_rows: int | None = None, seed: int = 0) -> Source:
    """The generated source.

    Args:
        num_rows: rows of the training split (4,000 if None); validation and test have an eighth of it each.
        seed: another seed, other scenes.

    Example:

    >>> scenes(num_rows=16).train.cells("text")[0]
    'a large orange cross bottom right on white'
    """
    sizes = dict(NUM_ROWS)
    if num_rows is not None:
        if num_rows < 1:
            raise ValueError(f"Expected at least one row of scenes. Received: num_rows={num_rows}.")
        sizes = {"train": num_rows, "validation": max(num_rows // 8, 1), "test": max(num_rows // 8, 1)}
    splits = {name: _split(name, n, seed) for name, n in sizes.items()}
    spec = "scenes" if num_rows is None else f"scenes:{num_rows}"
    return Source(spec, splits, f"generated with seed {seed}; a scene belongs to one split by a hash of its objects")


def _split(name, num_rows, seed):
    rows = functools.cache(lambda: _draw_rows(name, num_rows, seed))  # late: who wants one split waits for no other

    def column(function):
        return lambda: [function(row) for row in rows()]

    columns = {
        "image": column(picture),
        "text": column(caption),
        "tags": column(lambda row: sorted({w for o in row["objects"] for w in (o["shape"], o["color"])})),
        "label": column(lambda row: row["objects"][0]["shape"]),
        "object": column(lambda row: f"{row['objects'][0]['color']} {row['objects'][0]['shape']}"),
        "question": column(lambda row: row["question"][1]),
        "answer": column(lambda row: row["question"][2]),
        "question_type": column(lambda row: row["question"][0]),
        "remark": column(remark),
        "mood_image": column(lambda row: row["mood_image"]),
        "mood_text": column(lambda row: row["mood_text"]),
        "sentiment": column(lambda row: (row["mood_image"] + row["mood_text"]) / 2),
        "agreement": column(lambda row: "yes" if row["mood_image"] == row["mood_text"] else "no"),
        "domain": column(lambda row: row["style"]),
        "vector": column(features),
        "audio": column(tone),
        "video": column(clip),
        "motion": column(lambda row: row["motion"]),
        "id": column(lambda row: row["id"]),
    }
    kinds = {
        "image": "image", "text": "text", "tags": "tags", "label": "label", "question": "text", "answer": "label",
        "remark": "text", "vector": "vector", "audio": "audio", "video": "video",
    }  # fmt: skip
    return Split(name, columns, kinds, num_rows, where=lambda i: f"scenes, {name}, row {i + 1}")


def _draw_rows(split, num_rows, seed):
    """Scenes whose objects belong to this split, and to no other."""
    random = np.random.default_rng([seed, zlib.crc32(split.encode())])
    rows = []
    while len(rows) < num_rows:
        objects = _draw_objects(random)
        place = zlib.crc32(repr([(o["shape"], o["color"], o["size"]) for o in objects]).encode()) % 10
        if split == {0: "test", 1: "validation"}.get(place, "train"):
            rows.append(_draw_rest(objects, random, len(rows), split))
    return rows


def _draw_objects(random):
    """One to three objects in different quarters of the picture, the first larger than the others or alone."""
    count = int(random.integers(1, 4))
    shape, color, quarter = (random.permutation(n)[:count] for n in (len(SHAPES), len(COLORS), 4))
    large = count > 1 or random.integers(2)
    objects = []
    for i in range(count):
        size = "large" if i == 0 and large else "small"
        room = SIZE // 2 - SIZES[size]
        top, left = (int(random.integers(1, room)) + SIZE // 2 * int(half) for half in divmod(int(quarter[i]), 2))
        objects.append({
            "shape": SHAPES[shape[i]], "color": _COLOR_NAMES[color[i]], "size": size, "top": top, "left": left,
        })  # fmt: skip
    return objects


def _draw_rest(objects, random, i, split):
    return {
        "id": f"{split}-{i:05d}",
        "objects": objects,
        "style": STYLES[random.integers(len(STYLES))],
        "mood_image": int(random.integers(2)) * 2 - 1,
        "mood_text": int(random.integers(2)) * 2 - 1,
        "opinion": int(random.integers(3)),
        "motion": MOTIONS[random.integers(4)],
        "question": _question(objects, random, i),
    }


def side(a, b):
    """Where object `a` lies as seen from `b`, along the axis on which they are further apart."""
    across, down = _middle(a, "left") - _middle(b, "left"), _middle(a, "top") - _middle(b, "top")
    if abs(across) >= abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def _middle(thing, edge):
    return thing[edge] + SIZES[thing["size"]] // 2


def _noun(thing):
    return f"{thing['size']} {thing['color']} {thing['shape']}"


def place(thing):
    """The quarter of the picture that an object lies in."""
    down = "top" if _middle(thing, "top") < SIZE // 2 else "bottom"
    return f"{down} {'left' if _middle(thing, 'left') < SIZE // 2 else 'right'}"


def caption(row):
    """The caption of a scene: its objects and where they lie, the first one and then as one reads, and the ground."""
    first, *others = row["objects"]
    others.sort(key=lambda thing: (place(thing).startswith("bottom"), place(thing).endswith("right")))
    parts = [f"a {_noun(thing)} {place(thing)}" for thing in (first, *others)]
    objects = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{objects} on {'white' if row['mood_image'] > 0 else 'gray'}"


def remark(row):
    """An opinion of the first object."""
    first = row["objects"][0]
    return f"what a {REMARKS[row['mood_text']][row['opinion']]} {first['color']} {first['shape']}"


def features(row):
    """Eight numbers that describe the scene."""
    first = row["objects"][0]
    color = [value / 255 for value in COLORS[first["color"]]]
    place = [_middle(first, "left") / SIZE, _middle(first, "top") / SIZE, SIZES[first["size"]] / SIZE]
    return [*place, *color, len(row["objects"]) / 3, float(first["size"] == "large")]


def _question(objects, random, i):
    """(type, question, answer); the types take turns, and so do yes and no."""
    kind = ("color", "shape", "count", "exists", "side")[i % 5]
    yes = (i // 5) % 2 == 0
    thing = objects[random.integers(len(objects))]
    if kind == "color":
        return kind, f"what color is the {thing['shape']}", thing["color"]
    if kind == "shape":
        return kind, f"what shape is the {thing['color']} object", thing["shape"]
    if kind == "count":
        return kind, "how many objects are there", str(len(objects))
    if kind == "exists" or len(objects) == 1:
        color, shape = thing["color"], thing["shape"]
        if not yes:  # a wrong shape, so that neither the colour nor the words alone give it away
            shape = random.choice([s for s in SHAPES if s != shape])
        return "exists", f"is there a {color} {shape}", "yes" if yes else "no"
    a, b = objects[0], objects[1]
    where = (
        side(a, b)
        if yes
        else {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[side(a, b)]
    )
    return kind, f"is the {a['shape']} {where} the {b['shape']}", "yes" if yes else "no"


def picture(row):
    """The scene as PNG bytes."""
    return encode_png(draw(row))


def draw(row, shift=(0, 0)):
    """The scene as pixels `(48, 48, 3)`, uint8; `shift` moves the first object by (down, across) pixels."""
    ground = 245 if row["mood_image"] > 0 else 150
    pixels = np.full((SIZE, SIZE, 3), ground, dtype="int32")
    for i, thing in enumerate(row["objects"]):
        down, across = shift if i == 0 else (0, 0)
        size = SIZES[thing["size"]]
        top = min(max(thing["top"] + down, 0), SIZE - size)
        left = min(max(thing["left"] + across, 0), SIZE - size)
        alpha, shade = _stamp(thing["shape"], size, row["style"])
        place = pixels[top : top + size, left : left + size]
        ink = np.array(COLORS[thing["color"]], dtype="int32") * shade // 255
        place[:] = (place * (255 - alpha) + ink * alpha + 127) // 255
    return pixels.astype("uint8")


@functools.cache
def _stamp(shape, size, style):
    """Coverage and shading `(size, size, 1)` in 0..255 of a shape in a style, drawn large and averaged down."""
    n = size * _SCALE
    y, x = np.mgrid[:n, :n] * 2 + 1 - n  # odd integers, symmetric around zero
    alpha = _average(_inside(shape, x, y, n) * 255)
    shade = np.full_like(alpha, 255)
    if style == "outline":
        inner = _inside(shape, x * 3 // 2, y * 3 // 2, n)
        if shape == "ring":  # a line outside and one inside, or it would be an outlined circle
            distance = x * x + y * y
            inner = (5 * distance > 2 * n * n) & (25 * distance < 18 * n * n)
        alpha = _average((_inside(shape, x, y, n) & ~inner) * 255)
    elif style == "hatched":
        rows = (np.arange(size) + np.arange(size)[:, None]) % 4 < 2
        shade = np.where(rows, 255, 170)[..., None]
    elif style == "shaded":
        light = 255 - 130 * (np.arange(size)[:, None] + np.arange(size)) // (2 * size)
        shade = light[..., None]
    return alpha, shade


def _inside(shape, x, y, n):
    if shape == "circle":
        return x * x + y * y < n * n
    if shape == "square":
        return (abs(x) < n * 7 // 8) & (abs(y) < n * 7 // 8)
    if shape == "triangle":
        return (y < n) & (2 * abs(x) < y + n)
    if shape == "diamond":
        return abs(x) + abs(y) < n
    if shape == "cross":
        return ((abs(x) < n // 3) | (abs(y) < n // 3)) & (abs(x) < n) & (abs(y) < n)
    distance = x * x + y * y
    return (distance < n * n) & (9 * distance > 2 * n * n)


def _average(mask):
    size = len(mask) // _SCALE
    return mask.reshape(size, _SCALE, size, _SCALE).sum(axis=(1, 3))[..., None] // _SCALE**2


def encode_png(pixels):
    """Pixels `(height, width, 3)`, uint8, as PNG bytes: four times as fast as Pillow for small pictures."""
    height, width, _ = pixels.shape
    lines = np.zeros((height, 1 + 3 * width), dtype="uint8")  # a line begins with its filter, 0: none
    lines[:, 1:] = pixels.reshape(height, -1)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tone(row, rate=8000):
    """One second of sound as WAV bytes: the wave's form by shape, its pitch by colour, its loudness by size."""
    first = row["objects"][0]
    period = 16 + 6 * _COLOR_NAMES.index(first["color"])  # samples
    phase = np.arange(rate) % period
    half, quarter = period // 2, period // 4
    wave = {
        "circle": 2 * abs(2 * phase - period) - period,
        "square": np.where(phase < half, period, -period),
        "triangle": 2 * phase - period,
        "diamond": np.where(phase < quarter, period, -period // 3),
        "cross": np.where(phase % half < quarter, period, -period),
        "ring": np.where(phase < half, 4 * phase - period, 0),
    }[first["shape"]]
    samples = (wave * (12000 if first["size"] == "large" else 4000) // period).astype("<i2").tobytes()
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate,
                         2, 16, b"data", len(samples))  # fmt: skip
    return header + samples


def clip(row):
    """Eight frames as GIF bytes: the first object moves in the direction `motion`."""
    from PIL import Image

    down, across = {"left": (0, -2), "right": (0, 2), "up": (-2, 0), "down": (2, 0)}[row["motion"]]
    frames = [draw(row, (down * (t - 4), across * (t - 4))) for t in range(8)]
    # Each of red, green and blue in six steps: a fixed palette, so that no library chooses one.
    steps = (np.stack(frames).astype("int32") * 5 + 127) // 255
    indices = (steps[..., 0] * 36 + steps[..., 1] * 6 + steps[..., 2]).astype("uint8")
    palette = [51 * c for i in range(216) for c in (i // 36, i // 6 % 6, i % 6)]
    for last, frame in itertools.pairwise(indices):
        if (frame == last).all():  # at the edge; Pillow drops an equal frame, so one pixel's colour gets another number
            color = 3 * int(frame[0, 0])
            frame[0, 0] = len(palette) // 3
            palette += palette[color : color + 3]
    images = []
    for frame in indices:
        image = Image.fromarray(frame, mode="P")
        image.putpalette(palette)
        images.append(image)
    buffer = io.BytesIO()
    options = {"duration": 100, "loop": 0, "optimize": False, "disposal": 2}
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], **options)
    return buffer.getvalue()
