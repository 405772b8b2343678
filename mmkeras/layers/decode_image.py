"""Encoded pictures to pixels, inside the graph."""

import keras
import tensorflow as tf

from mmkeras.layers.each_row import each_row, refused
from mmkeras.layers.picture_headers import fit_in_memory, measured, window
from mmkeras.layers.traced import traced_once

_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")


@keras.saving.register_keras_serializable(package="mmkeras")
class DecodeImage(keras.layers.Layer):
    """Encoded pictures `(batch,)` (PNG, JPEG, GIF, BMP) to pixels `(batch, height, width, channels)` in 0..1.

    Of a GIF the first frame is taken, transparency is laid over white, 16 bits become 8. A JPEG of four times the size
    and more is decoded to less than its own, but to twice the size at least, as fast readers of photographs do. An
    empty byte string is an absent picture: zeros. What is no picture, is cut off, has a broken header, or has more than
    `MOST_PIXELS` pixels by it, is an error that names its row, before anything is decoded. What only decoding finds,
    such as damaged data within a PNG, is an error that names its row with `names_all`.

    Args:
        size: `(height, width)` in pixels.
        channels: 1 or 3.
        resize: `"stretch"` to the size, `"pad"` with white, or `"crop"` the middle.
        names_all: whether every error names its row, which makes reading slower: for serving.

    Example:

    >>> png = tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8))
    >>> DecodeImage((8, 8))(png[None]).shape
    TensorShape([1, 8, 8, 3])
    """

    def __init__(self, size, channels=3, resize="stretch", names_all=False, **kwargs):
        super().__init__(**kwargs)
        if resize not in ("stretch", "pad", "crop"):
            raise ValueError(f"Expected resize to be 'stretch', 'pad' or 'crop'. Received: resize={resize!r}")
        if channels not in (1, 3):
            raise ValueError(f"Expected channels to be 1 or 3. Received: channels={channels}")
        self.size = tuple(size)
        self.channels = channels
        self.resize = resize
        self.names_all = names_all

    def call(self, images):
        rows = tf.strings.as_string(tf.range(tf.shape(images)[0]))
        return self.read(images, tf.strings.join([f"The picture `{self.name.removeprefix('read_')}` in row ", rows]))

    @traced_once
    def read(self, images, names):
        """What `call` gives; an error says of a bad picture its name, of `names (batch,)`."""
        pixels = tf.TensorSpec((*self.size, self.channels), tf.float32)
        fault, num_pixels, length = measured(images)
        kind = tf.zeros_like(length, tf.int32)
        for number, start in enumerate(_STARTS, 1):
            kind = tf.where(tf.equal(tf.strings.substr(images, 0, len(start)), start), number, kind)
        # Where a PNG of fewer than eight bits has no alpha, TensorFlow 2.21 makes it 2 ** bits - 1: all but unseen.
        bits = tf.minimum(tf.cast(window(images, 24, 1)[:, 0], tf.int32), 8)
        filler = tf.cast(tf.bitwise.left_shift(1, bits) - 1, tf.uint8)
        with tf.control_dependencies([refused(fault, names)]):
            given = tf.identity(images), tf.cast(length, tf.int32), kind, filler
        return each_row(self._one, given, pixels, fit_in_memory(num_pixels), names if self.names_all else None)

    def _one(self, given):
        image, length, kind, filler = given
        shape = (*self.size, self.channels)
        ways = [
            lambda: tf.zeros(shape),
            lambda: self._decode_png(image, filler),
            lambda: self._decode_jpeg(image),
            # The first frame alone: TensorFlow decodes them all before it leaves out the others.
            lambda: self._decode(tf.strings.substr(image, 0, length) + b";"),
            lambda: self._decode(tf.strings.substr(image, 0, length)),  # TensorFlow refuses a BMP with padding
        ]
        return tf.ensure_shape(tf.switch_case(kind, ways), shape)  # one operation, where `tf.case` takes dozens

    def _decode(self, image):
        x = tf.io.decode_image(image, channels=3, expand_animations=False)
        x.set_shape((None, None, 3))
        return self.fitted(x)

    def _decode_jpeg(self, image):
        # A large one is decoded to a half, a fourth or an eighth, which its format makes cheap, and at least to twice
        # the size that it is brought to.
        room = tf.cast(tf.io.extract_jpeg_shape(image)[:2], tf.float32) / self.size / 2
        room = (tf.reduce_max if self.resize == "pad" else tf.reduce_min)(room)
        halvings = tf.cast(room >= 2, tf.int32) + tf.cast(room >= 4, tf.int32) + tf.cast(room >= 8, tf.int32)

        def decoded(ratio):
            return lambda: tf.io.decode_jpeg(image, channels=3, ratio=ratio)

        x = tf.switch_case(halvings, [decoded(2**n) for n in range(4)])
        return self.fitted(tf.ensure_shape(x, (None, None, 3)))

    def _decode_png(self, image, filler):
        # Only PNG keeps its alpha here: decode_image drops it silently and refuses four channels for JPEG.
        rgba = tf.io.decode_png(image, channels=4)
        rgb, alpha = rgba[..., :3], rgba[..., 3:]
        opaque = tf.reduce_all(tf.equal(alpha, filler)) | tf.reduce_all(tf.equal(alpha, 255))
        return tf.cond(opaque, lambda: self.fitted(rgb), lambda: self.fitted(over_white(rgb, alpha), 255 * 255))

    def fitted(self, x, levels=255):
        """Whole numbers `(height, width, 3)` in 0..levels to pixels in 0..1 of the size and channels.

        They become fractions only when they are resized: a large picture is kept in a byte a number as long as can be.
        """
        same = tf.reduce_all(tf.equal(tf.shape(x)[:2], self.size))
        x = tf.cond(same, lambda: tf.cast(x, tf.float32), lambda: self._resize(x, levels))
        # No quotient: TensorFlow makes it this product in some graphs and not in others, which rounds otherwise.
        x = tf.clip_by_value(x * (1 / levels), 0, 1)
        return tf.image.rgb_to_grayscale(x) if self.channels == 1 else x

    def _resize(self, x, levels):
        sides = tf.cast(tf.shape(x)[:2], tf.float32)
        if self.resize == "pad":  # as resize_with_pad, which makes nothing of the short side of a strip
            inside = tf.cast(sides, tf.float64) / tf.reduce_max(tf.cast(sides, tf.float64) / self.size)
            top, left = tf.unstack(tf.cast((self.size - inside) / 2, tf.int32))
            x = tf.image.resize(x, tf.maximum(tf.cast(inside, tf.int32), 1), antialias=True)
            # Padding is zeros: white is zero in the negative.
            return levels - tf.image.pad_to_bounding_box(levels - x, top, left, *self.size)
        if self.resize == "crop":  # from the picture as it would be resized to cover the size; the rest is not made
            whole = tf.math.ceil(sides * tf.reduce_max(self.size / sides) - 1e-3)
            margin = tf.cast((tf.cast(whole, tf.int32) - self.size) // 2, tf.float32)
            return tf.raw_ops.ScaleAndTranslate(
                images=x[None], size=self.size, scale=whole / sides, translation=-margin, kernel_type="triangle"
            )[0]
        # What shrinks has its fine lines averaged; where nothing does that comes to the same, and takes much longer.
        shrinks = tf.reduce_any(tf.shape(x)[:2] > self.size)
        return tf.cond(
            shrinks,
            lambda: tf.image.resize(x, self.size, antialias=True),
            lambda: tf.image.resize(x, self.size),
        )

    def compute_output_spec(self, images):
        return keras.KerasTensor((images.shape[0], *self.size, self.channels), dtype="float32")

    def get_config(self):
        own = {"size": self.size, "channels": self.channels, "resize": self.resize, "names_all": self.names_all}
        return {**super().get_config(), **own}


def over_white(rgb, alpha):
    """Colours `(height, width, 3)` and opacity `(height, width, 1)` in 0..255 laid over white: in 0..255 * 255."""
    rgb, alpha = tf.cast(rgb, tf.uint16), tf.cast(alpha, tf.uint16)
    return rgb * alpha + 255 * (255 - alpha)
