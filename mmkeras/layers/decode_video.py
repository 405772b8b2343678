"""Clips to frames, inside the graph."""

import keras
import tensorflow as tf

from mmkeras.layers.decode_image import MOST_PIXELS, DecodeImage


@keras.saving.register_keras_serializable(package="mmkeras")
class DecodeVideo(keras.layers.Layer):
    """Clips `(batch,)` to pixels `(batch, frames, height, width, channels)` in 0..1.

    A clip is a GIF, a single picture, or several pictures packed by `tf.io.serialize_tensor` (a folder of frames).
    Frames are taken at even distances from the first to the last; a clip of fewer repeats some. An empty byte string
    is an absent clip: zeros. A GIF whose frames have more than `MOST_PIXELS` pixels together is an error that names its
    row, before any of them is decoded.

    Args:
        num_frames: number of frames.
        size: `(height, width)` in pixels.
        channels: 1 or 3.
        resize: see DecodeImage.

    Example:

    >>> png = tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8))
    >>> DecodeVideo(5, (8, 8))(tf.io.serialize_tensor([png, png])[None]).shape
    TensorShape([1, 5, 8, 8, 3])
    """

    def __init__(self, num_frames, size, channels=3, resize="stretch", **kwargs):
        super().__init__(**kwargs)
        if num_frames < 1:
            raise ValueError(f"Expected one frame or more. Received: num_frames={num_frames}")
        self.num_frames = num_frames
        self.picture = DecodeImage(size, channels, resize)

    def build(self, clips_shape):
        self.picture.build(clips_shape)  # Keras warns at loading of a layer inside that was never built

    def call(self, clips):
        shape = (self.num_frames, *self.picture.size, self.picture.channels)
        pixels, rows = tf.TensorSpec(shape, tf.float32), tf.range(tf.shape(clips)[0])
        return tf.map_fn(self._one, (clips, rows), fn_output_signature=pixels, parallel_iterations=16)

    def _one(self, given):
        clip, row = given
        shape = (self.num_frames, *self.picture.size, self.picture.channels)
        start = tf.strings.substr(clip, 0, 4)
        cases = [
            (tf.equal(start, b""), lambda: tf.zeros(shape)),
            (tf.equal(start, b"GIF8"), lambda: self._gif(clip, row)),
            (tf.reduce_any(tf.equal(start, [b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1"])),
             lambda: self._pictures(clip[None])),
        ]  # fmt: skip
        frames = tf.case(cases, default=lambda: self._pictures(tf.io.parse_tensor(clip, tf.string)))
        return tf.ensure_shape(frames, shape)

    def _gif(self, clip, row):
        with tf.control_dependencies([self._checked(clip, row)]):
            frames = tf.io.decode_gif(tf.identity(clip))
        return self.picture.fitted(tf.cast(self._chosen(frames), tf.float32) / 255)

    def _checked(self, clip, row):
        """An operation that fails, naming the row, if a GIF is cut off or has too many pixels."""
        frames, pixels = gif_size(clip)
        name = self.name.removeprefix("read_")
        fits = tf.logical_and(frames > 0, frames * pixels <= MOST_PIXELS)
        said = tf.strings.join(
            [f"The clip `{name}` in row ", tf.strings.as_string(row),
             f" is cut off, or its frames have more than {MOST_PIXELS} pixels together"]
        )  # fmt: skip
        return tf.debugging.Assert(fits, [said], summarize=1)

    def _pictures(self, pictures):
        return self.picture(self._chosen(tf.reshape(pictures, (-1,))))

    def _chosen(self, frames):
        last = tf.cast(tf.shape(frames)[0] - 1, tf.float32)
        return tf.gather(frames, tf.cast(tf.round(tf.linspace(0.0, last, self.num_frames)), tf.int32))

    def compute_output_spec(self, clips):
        shape = (clips.shape[0], self.num_frames, *self.picture.size, self.picture.channels)
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self):
        picture = self.picture
        own = {"num_frames": self.num_frames, "size": picture.size, "channels": picture.channels}
        return {**super().get_config(), **own, "resize": picture.resize}


def gif_size(clip):
    """(number of frames, pixels of one) of a GIF, from its blocks alone; no frames if it is cut off or broken."""
    # Zeros behind it: what is read past its end ends the walk.
    octets = tf.cast(tf.io.decode_raw(tf.strings.join([clip, b"\0" * 1024]), tf.uint8), tf.int32)
    length = tf.strings.length(clip)
    pixels = tf.cast(octets[6] + 256 * octets[7], tf.int64) * tf.cast(octets[8] + 256 * octets[9], tf.int64)

    def table(flags):  # bytes of a table of colours
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def past_data(place):  # data come in pieces, each with its length before it, until one of length zero
        last = tf.while_loop(
            lambda at: (at < length) & (octets[tf.minimum(at, length)] > 0), lambda at: (at + octets[at] + 1,), [place]
        )[0]
        return last + 1

    def step(at, frames):
        is_frame = tf.equal(octets[at], 0x2C)
        begins = tf.where(is_frame, at + 11 + table(octets[at + 9]), at + 2)
        return past_data(begins), frames + tf.cast(is_frame, tf.int64)

    def is_block(at, frames):
        mark = octets[tf.minimum(at, length)]
        return (at < length) & (tf.equal(mark, 0x2C) | tf.equal(mark, 0x21))

    at, frames = tf.while_loop(is_block, step, [13 + table(octets[10]), tf.constant(0, tf.int64)])
    whole = (at < length) & tf.equal(octets[tf.minimum(at, length)], 0x3B)
    return tf.where(whole, frames, 0), pixels
