"""What encoded pictures are by their first and last bytes, inside the graph, before anything is decoded.

All rows of a batch are looked at together: a few operations a batch, not a few a row.
"""

import tensorflow as tf

MOST_PIXELS = 2**25  # of a picture, or of all frames of a clip: at most half a gigabyte while it is decoded
MOST_SIDE = 2**16  # of a picture, as of every JPEG and GIF: resizing takes memory by the side
MOST_BLOCKS = 2**14  # that are walked, of a GIF some 3,000 frames: a second

_FAULTS = (
    "",
    "is no PNG, JPEG, GIF or BMP",
    "is cut off",
    f"has no pixel, or more than {MOST_PIXELS}, or a side of more than {MOST_SIDE}",
    "has a broken header",
)
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
# Of a PNG, what may stand for the bits and the kind of its colours.
_PNG_COLORS = [[bits, kind] for kind, several in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)),
               (6, (8, 16))) for bits in several]  # fmt: skip


def measured(images):
    """Encoded pictures `(batch,)` to (fault, pixels, length), each `(batch,)`.

    The fault says in words what is wrong with a picture, nothing where it is good or absent (an empty string); the
    length is how many of its bytes to decode: of a GIF those of the first frame, of a BMP those before any padding.
    """
    start = window(images, 0, 64)
    length = _lengths(images)
    empty, png, jpeg = tf.equal(length, 0), begin(start, b"\x89PNG"), begin(start, b"\xff\xd8\xff")
    gif, bmp = begin(start, b"GIF8"), begin(start, b"BM")
    first, jpeg_size = _first_frames(images, gif), _jpegs(images, jpeg)
    bmp_size, bmp_length, bmp_good = _bmp(start, length)
    png_size = tf.stack([_number(start, range(23, 19, -1)), _number(start, range(19, 15, -1))], axis=1)
    sides = tf.where(png[:, None], png_size, tf.where(gif[:, None], first[:, :2], jpeg_size[:, :2]))
    sides = tf.where(bmp[:, None], bmp_size, sides)
    pixels = tf.reduce_prod(tf.minimum(sides, 2**31 - 1), axis=1)

    known = png | jpeg | gif | bmp
    end = window(images, tf.maximum(length - 64, 0), 64)
    whole = (png & _hold(end, b"IEND")) | (jpeg & (jpeg_size[:, 2] > 0)) | (gif & _hold(end, b";")) | bmp
    fits = (pixels >= 1) & (pixels <= MOST_PIXELS) & tf.reduce_all(sides <= MOST_SIDE, axis=1)
    good = (jpeg & (pixels > 0)) | (bmp & bmp_good) | (gif & (first[:, 2] > 0)) | (png & _png_is_good(start))
    faults = [(empty, 0), (~known, 1), (~whole, 2), (~good, 4), (~fits, 3)]
    faults.append((bmp & (length < bmp_length), 2))
    number = tf.zeros_like(length)
    for found, fault in reversed(faults):  # the first in the list tells most
        number = tf.where(found, tf.constant(fault, tf.int64), number)
    return (
        tf.gather(_FAULTS, number),
        tf.where(empty, tf.zeros_like(pixels), pixels),
        tf.where(gif, first[:, 2], tf.where(bmp, tf.minimum(bmp_length, length), length)),
    )


def fit_in_memory(pixels):
    """Whether pictures of so many pixels, `(batch,)`, can be read sixteen at once."""
    return tf.reduce_all(pixels <= MOST_PIXELS // 16)


def walk_gifs(gifs, most_frames=None):
    """GIFs `(batch,)` to (frames, height, width, end), each `(batch,)`, from their blocks alone.

    Height and width are the largest of the canvas and all frames: so TensorFlow takes memory for every frame. The end
    lies behind the last frame. There are no frames where a GIF is cut off, broken, or has more than `MOST_BLOCKS`.

    Args:
        most_frames: after which the walk ends; None for all.
    """
    padding = 32  # zeros behind each: what is read past its end ends its walk
    octets = tf.io.decode_raw(tf.strings.reduce_join(tf.strings.join([gifs, b"\0" * padding])), tf.uint8)
    lengths = _lengths(gifs)
    last = tf.cumsum(lengths + padding) - padding

    def read(places):  # a row of bytes a GIF
        return tf.cast(tf.gather(octets, tf.minimum(places, last[:, None])), tf.int64)

    def step(blocks, active, place, in_data, frames, height, width):
        head = read(place[:, None] + tf.range(10, dtype=tf.int64))
        is_frame, is_extension = ~in_data & tf.equal(head[:, 0], 0x2C), ~in_data & tf.equal(head[:, 0], 0x21)
        # Data come in pieces, each with its length before it, until one of length zero; most are equally long.
        size = head[:, :1]
        pieces = read(place[:, None] + (size + 1) * tf.range(64, dtype=tf.int64))
        alike = tf.reduce_sum(tf.math.cumprod(tf.cast(tf.equal(pieces, size) & (size > 0), tf.int64), axis=1), axis=1)
        behind = place + alike * (size[:, 0] + 1)
        closes = in_data & tf.equal(read(behind[:, None])[:, 0], 0)
        begins = tf.where(is_frame, place + 11 + _table(head[:, 9]), tf.where(is_extension, place + 2, place))
        place = tf.where(active, tf.where(in_data, behind + tf.cast(closes, tf.int64), begins), place)
        in_data = tf.where(active, is_frame | is_extension | (in_data & ~closes), in_data)
        frames += tf.cast(active & is_frame, tf.int64)
        height = tf.where(active & is_frame, tf.maximum(height, head[:, 7] + 256 * head[:, 8]), height)
        width = tf.where(active & is_frame, tf.maximum(width, head[:, 5] + 256 * head[:, 6]), width)
        active &= (is_frame | is_extension | in_data | closes) & (place < last) & ~enough(frames, in_data)
        return blocks + 1, active, place, in_data, frames, height, width

    def enough(frames, in_data):
        return tf.equal(frames, -1 if most_frames is None else most_frames) & ~in_data

    screen = read((last - lengths)[:, None] + tf.range(13, dtype=tf.int64))
    place = last - lengths + 13 + _table(screen[:, 10])
    no = tf.zeros_like(place)
    state = [place < last, place, no > 0, no, screen[:, 8] + 256 * screen[:, 9], screen[:, 6] + 256 * screen[:, 7]]
    _, _, place, in_data, frames, height, width = tf.while_loop(
        lambda blocks, active, *_: (blocks < MOST_BLOCKS) & tf.reduce_any(active), step, [0, *state]
    )
    closed = (place < last) & tf.equal(read(place[:, None])[:, 0], 0x3B)
    whole = ~in_data & (closed | (enough(frames, in_data) & (place <= last)))
    return tf.where(whole, frames, 0), height, width, place - last + lengths


def walk_packed(clips):
    """How many strings are in serialised tensors of strings `(batch,)`; 0 if it is cut off, broken or has too many."""
    size = _lengths(clips)

    def step(blocks, active, place, count):
        head = window(clips, place, 6)  # the field's mark, and its length in bytes of seven bits, the least first
        goes_on = tf.math.cumprod(tf.cast(head[:, 1:5] >= 128, tf.int64), axis=1, exclusive=True)
        length = tf.reduce_sum(goes_on * (head[:, 1:5] % 128) * [1, 2**7, 2**14, 2**21], axis=1)
        active &= tf.equal(head[:, 0], 0x42)
        place += tf.where(active, 1 + tf.reduce_sum(goes_on, axis=1) + length, 0)
        return blocks + 1, active & (place < size), place, count + tf.cast(active, tf.int64)

    _, active, place, count = _walk(step, clips, 4 + window(clips, 3, 1)[:, 0], tf.zeros_like(size))
    return tf.where(~active & tf.equal(place, size), count, 0)


def _walk(step, encoded, place, found):
    """The last state `(blocks, active, place, found)` of a walk through encoded rows that begins at a place."""
    place += tf.zeros_like(encoded, tf.int64)
    return tf.while_loop(
        lambda blocks, active, *_: (blocks < MOST_BLOCKS) & tf.reduce_any(active), step, [0, place >= 0, place, found]
    )


def window(encoded, place, size):
    """Bytes `(batch, size)` of each row from a place on, zeros behind its end."""
    place = tf.minimum(tf.cast(place, tf.int32), tf.strings.length(encoded))
    return tf.cast(tf.io.decode_raw(_part(encoded, place, size), tf.uint8, fixed_length=size), tf.int64)


def _lengths(encoded):
    return tf.cast(tf.strings.length(encoded), tf.int64)


def _part(encoded, place, size):
    place += tf.zeros_like(encoded, tf.int32)
    return tf.strings.substr(encoded, place, tf.fill(tf.shape(place), size))


def begin(start, mark):
    """Whether bytes `(batch, count)` begin with some."""
    return tf.reduce_all(tf.equal(start[:, : len(mark)], tf.constant(list(mark), start.dtype)), axis=1)


def _number(start, places):
    """The whole number in some bytes, the least byte's place first."""
    return tf.add_n([start[:, place] * 256**i for i, place in enumerate(places)])


def _table(flags):
    """Bytes of a GIF's table of colours."""
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8), 0)


def _hold(end, mark):
    count = 64 - len(mark) + 1
    return tf.reduce_any(
        tf.reduce_all([tf.equal(end[:, i : count + i], byte) for i, byte in enumerate(mark)], axis=0), axis=1
    )


def _scattered(rows, values, like):
    """Values of some rows in their places, zeros in the others."""
    shape = tf.concat([tf.shape(like, tf.int64)[:1], tf.shape(values, tf.int64)[1:]], axis=0)
    return tf.scatter_nd(tf.where(rows), values, shape)


def _first_frames(images, gif):
    """Height, width and length of the GIFs up to their first frame's end, `(batch, 3)`; length 0 if it is broken."""
    frames, height, width, end = walk_gifs(tf.boolean_mask(images, gif), most_frames=1)
    return _scattered(gif, tf.stack([height, width, tf.where(frames > 0, end, 0)], axis=1), images)


def _jpegs(images, jpeg):
    """Height and width of the JPEGs, zeros where no frame is found before the data begin; and whether they end.

    Cameras write more behind the end, thumbnails before the frame have an end of their own.
    """
    jpegs = tf.boolean_mask(images, jpeg)

    def step(blocks, active, place, sizes):
        head = window(jpegs, place, 9)
        kind = head[:, 1]
        marked = tf.equal(head[:, 0], 0xFF) & (kind >= 1) & (kind < 0xFF)  # anything else is filling
        frame = marked & tf.equal(kind // 16, 0xC) & tf.reduce_all(tf.not_equal(kind[:, None], [0xC4, 0xC8, 0xCC]), 1)
        alone = tf.equal(kind, 1) | ((kind >= 0xD0) & (kind <= 0xD8))  # a marker without a length
        found = tf.stack([head[:, 5] * 256 + head[:, 6], head[:, 7] * 256 + head[:, 8]], axis=1)
        sizes = tf.where((active & frame)[:, None], found, sizes)
        place += 1 + tf.cast(marked, tf.int64) + tf.where(marked & ~alone, head[:, 2] * 256 + head[:, 3], 0)
        active &= ~frame & ~(marked & ((kind == 0xD9) | (kind == 0xDA)))
        return blocks + 1, active & (place < _lengths(jpegs)), place, sizes

    _, _, place, sizes = _walk(step, jpegs, 2, tf.zeros((tf.size(jpegs), 2), tf.int64))
    ends = _hold(window(jpegs, tf.maximum(_lengths(jpegs) - 64, 0), 64), b"\xff\xd9")
    ends = tf.cond(tf.reduce_all(ends), lambda: ends, lambda: ends | _hold_behind(jpegs, place, b"\xff\xd9"))
    return _scattered(jpeg, tf.concat([sizes, tf.cast(ends, tf.int64)[:, None]], axis=1), images)


def _hold_behind(encoded, place, mark):
    """Whether each of `encoded (batch,)` holds a mark from a place on."""
    place = tf.minimum(tf.cast(place, tf.int32), tf.strings.length(encoded))
    rest = tf.strings.substr(encoded, place, tf.strings.length(encoded) - place)
    return tf.strings.split(rest, mark).row_lengths() > 1


def _png_is_good(start):
    colors = tf.reduce_any(tf.reduce_all(tf.equal(start[:, None, 24:26], tf.constant(_PNG_COLORS, tf.int64)), 2), 1)
    return begin(start, _PNG_START) & colors & tf.reduce_all(start[:, 26:29] <= [0, 0, 1], axis=1)


def _bmp(start, length):
    """(height and width, bytes it has to have, whether its header is good) of BMPs, as TensorFlow reads them."""
    offset, width, height = (_number(start, range(place, place + 4)) for place in (10, 18, 22))
    height = tf.where(height >= 2**31, 2**32 - height, height)  # negative: it begins at the top
    channels = _number(start, (28, 29)) // 8
    whole = offset + (channels * width + 3) // 4 * 4 * height
    good = tf.reduce_any(tf.equal(channels[:, None], [1, 3, 4]), axis=1) & (length <= whole + 4)  # some are padded
    return tf.stack([height, width], axis=1), whole, good
