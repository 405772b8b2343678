"""Encoded pictures to pixels, inside the graph."""

import keras
import tensorflow as tf

MOST_PIXELS = 2**25  # of a picture: 128 MiB as it is decoded


@keras.saving.register_keras_serializable(package="mmkeras")
class DecodeImage(keras.layers.Layer):
    """Encoded pictures `(batch,)` (PNG, JPEG, GIF, BMP) to pixels `(batch, height, width, channels)` in 0..1.

    Of a GIF the first frame is taken, transparency is laid over white, 16 bits become 8. An empty byte string is an
    absent picture: zeros. What is no picture, is cut off, or has more than `MOST_PIXELS` pixels by its header, is an
    error that names its row, before anything is decoded.

    Args:
        size: `(height, width)` in pixels.
        channels: 1 or 3.
        resize: `"stretch"` to the size, `"pad"` with white, or `"crop"` the middle.

    Example:

    >>> png = tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8))
    >>> DecodeImage((8, 8))(png[None]).shape
    TensorShape([1, 8, 8, 3])
    """

    def __init__(self, size, channels=3, resize="stretch", **kwargs):
        super().__init__(**kwargs)
        if resize not in ("stretch", "pad", "crop"):
            raise ValueError(f"Expected resize to be 'stretch', 'pad' or 'crop'. Received: resize={resize!r}")
        if channels not in (1, 3):
            raise ValueError(f"Expected channels to be 1 or 3. Received: channels={channels}")
        self.size = tuple(size)
        self.channels = channels
        self.resize = resize

    def call(self, images):
        pixels = tf.TensorSpec((*self.size, self.channels), tf.float32)
        rows = tf.range(tf.shape(images)[0])
        return tf.map_fn(self._one, (images, rows), fn_output_signature=pixels, parallel_iterations=16)

    def _one(self, given):
        image, row = given
        shape = (*self.size, self.channels)
        empty = tf.equal(tf.strings.length(image), 0)

        def decode():
            with tf.control_dependencies([checked(image, self.name.removeprefix("read_"), row)]):
                return self._decode(tf.identity(image))

        return tf.ensure_shape(tf.cond(empty, lambda: tf.zeros(shape), decode), shape)

    def _decode(self, image):
        is_png = tf.equal(tf.strings.substr(image, 0, 4), b"\x89PNG")
        # Only PNG keeps its alpha here: decode_image drops it silently and refuses four channels for JPEG.
        x = tf.cond(
            is_png,
            lambda: over_white(_decode_png(image)),
            lambda: tf.cast(tf.io.decode_image(image, channels=3, expand_animations=False), tf.float32) / 255,
        )
        x.set_shape((None, None, 3))
        return self.fitted(x)

    def fitted(self, x):
        """Pixels `(..., height, width, 3)` of one or several pictures brought to the size and channels."""
        if self.channels == 1:
            x = tf.image.rgb_to_grayscale(x)
        same = tf.reduce_all(tf.equal(tf.shape(x)[-3:-1], self.size))
        return tf.cond(same, lambda: x, lambda: self._resize(x))

    def _resize(self, x):
        height, width = self.size
        if self.resize == "pad":  # resize_with_pad pads with zeros: white is zero in the negative
            return 1 - tf.clip_by_value(tf.image.resize_with_pad(1 - x, height, width, antialias=True), 0, 1)
        if self.resize == "crop":
            sides = tf.cast(tf.shape(x)[-3:-1], tf.float32)
            scale = tf.reduce_max(tf.constant(self.size, tf.float32) / sides)
            x = tf.image.resize(x, tf.cast(tf.math.ceil(sides * scale - 1e-3), tf.int32), antialias=True)
            return tf.clip_by_value(tf.image.resize_with_crop_or_pad(x, height, width), 0, 1)
        return tf.clip_by_value(tf.image.resize(x, self.size, antialias=True), 0, 1)

    def compute_output_spec(self, images):
        return keras.KerasTensor((images.shape[0], *self.size, self.channels), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "size": self.size, "channels": self.channels, "resize": self.resize}


def checked(image, name, row):
    """An operation that fails, naming the row, if an encoded picture is none, is cut off, or is too large."""
    start = tf.strings.join([tf.strings.substr(image, 0, 32), b"\0" * 32])
    end = tf.strings.substr(image, tf.maximum(tf.strings.length(image) - 64, 0), 64)
    end = tf.io.decode_raw(tf.strings.join([b"\0" * 8, end]), tf.uint8)  # eight at least

    def begins(*starts):
        return tf.reduce_any([tf.equal(tf.strings.substr(start, 0, len(s)), s) for s in starts])

    def sides(place, dtype, little_endian=True):
        size = 2 * tf.as_dtype(dtype).size
        found = tf.io.decode_raw(tf.strings.substr(start, place, size), dtype, little_endian)
        return tf.abs(tf.cast(found, tf.int64))

    def ends(mark):
        count = tf.shape(end)[0] - len(mark) + 1
        return tf.reduce_any(tf.reduce_all([tf.equal(end[i : count + i], byte) for i, byte in enumerate(mark)], axis=0))

    png, jpeg, gif, bmp = begins(b"\x89PNG"), begins(b"\xff\xd8\xff"), begins(b"GIF8"), begins(b"BM")
    size = tf.case(
        [
            (png, lambda: sides(16, tf.int32, little_endian=False)),
            (gif, lambda: sides(6, tf.uint16)),
            (jpeg, lambda: tf.cast(tf.io.extract_jpeg_shape(image)[:2], tf.int64)),
            (bmp, lambda: sides(18, tf.int32)),
        ],
        default=lambda: tf.zeros((2,), tf.int64),
    )
    pixels = tf.reduce_prod(size)
    whole = bmp | (png & ends(b"IEND")) | (jpeg & ends(b"\xff\xd9")) | (gif & ends(b";"))
    fault = tf.case(
        [
            (tf.logical_not(png | jpeg | gif | bmp), lambda: tf.constant("is no PNG, JPEG, GIF or BMP")),
            (tf.logical_not(whole), lambda: tf.constant("is cut off")),
            ((pixels < 1) | (pixels > MOST_PIXELS) | tf.reduce_any(size > MOST_PIXELS),
             lambda: tf.constant(f"has no pixel, or more than {MOST_PIXELS}")),
        ],
        default=lambda: tf.constant(""),
    )  # fmt: skip
    said = tf.strings.join([f"The picture `{name}` in row ", tf.strings.as_string(row), " ", fault])
    return tf.debugging.Assert(tf.equal(fault, ""), [said], summarize=1)


def _decode_png(image):
    """An encoded PNG to pixels `(height, width, 4)` in 0..255."""
    rgba = tf.io.decode_png(image, channels=4)
    # Where a picture of fewer than eight bits has no alpha, TensorFlow 2.21 makes it 2 ** bits - 1: all but unseen.
    bits = tf.cast(tf.io.decode_raw(tf.strings.substr(image, 24, 1), tf.uint8)[0], tf.int32)
    filler = tf.cast(tf.bitwise.left_shift(1, tf.minimum(bits, 8)) - 1, tf.uint8)
    alpha = rgba[..., 3:]
    alpha = tf.where(tf.reduce_all(tf.equal(alpha, filler)), tf.ones_like(alpha) * 255, alpha)
    return tf.concat([rgba[..., :3], alpha], axis=-1)


def over_white(rgba):
    """Pixels `(height, width, 4)` in 0..255 laid over white: `(height, width, 3)` in 0..1."""
    rgba = tf.cast(rgba, tf.float32) / 255
    return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])
