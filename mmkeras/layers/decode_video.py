"""Clips to frames, inside the graph."""

import keras
import tensorflow as tf

from mmkeras.layers.decode_image import DecodeImage
from mmkeras.layers.each_row import each_row, refused
from mmkeras.layers.picture_headers import (
    MOST_BLOCKS,
    MOST_PIXELS,
    begin,
    fit_in_memory,
    walk_gifs,
    walk_packed,
    window,
)
from mmkeras.layers.traced import traced_once


@keras.saving.register_keras_serializable(package="mmkeras")
class DecodeVideo(keras.layers.Layer):
    """Clips `(batch,)` to pixels `(batch, frames, height, width, channels)` in 0..1.

    A clip is a GIF, a single picture, or several pictures packed by `tf.io.serialize_tensor` (a folder of frames).
    Frames are taken at even distances from the first to the last; a clip of fewer repeats some. An empty byte string
    is an absent clip: zeros. A GIF whose frames have more than `MOST_PIXELS` pixels together, and a picture that
    DecodeImage refuses, is an error that names its row, before it is decoded.

    Args:
        num_frames: number of frames.
        size: `(height, width)` in pixels.
        channels: 1 or 3.
        resize, names_all: see DecodeImage.

    Example:

    >>> png = tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8))
    >>> DecodeVideo(5, (8, 8))(tf.io.serialize_tensor([png, png])[None]).shape
    TensorShape([1, 5, 8, 8, 3])
    """

    def __init__(self, num_frames, size, channels=3, resize="stretch", names_all=False, **kwargs):
        super().__init__(**kwargs)
        if num_frames < 1:
            raise ValueError(f"Expected one frame or more. Received: num_frames={num_frames}")
        self.num_frames = num_frames
        self.names_all = names_all
        self.picture = DecodeImage(size, channels, resize)

    def build(self, clips_shape):
        self.picture.build(clips_shape)  # Keras warns at loading of a layer inside that was never built

    def call(self, clips):
        rows = tf.strings.as_string(tf.range(tf.shape(clips)[0]))
        return self._read(clips, tf.strings.join([f"The clip `{self.name.removeprefix('read_')}` in row ", rows]))

    @traced_once
    def _read(self, clips, names):
        shape = (self.num_frames, *self.picture.size, self.picture.channels)
        fault, num_pixels = _measured(clips)
        with tf.control_dependencies([refused(fault, names)]):
            given = tf.identity(clips), names
        spec = tf.TensorSpec(shape, tf.float32)
        return each_row(self._one, given, spec, fit_in_memory(num_pixels), names if self.names_all else None)

    def _one(self, given):
        clip, name = given
        shape = (self.num_frames, *self.picture.size, self.picture.channels)
        start = tf.strings.substr(clip, 0, 4)
        cases = [
            (tf.equal(start, b""), lambda: tf.zeros(shape)),
            (tf.equal(start, b"GIF8"), lambda: self._gif(clip)),
            (tf.equal(tf.strings.substr(clip, 0, 3), PACKED), lambda: self._pictures(unpacked(clip), name)),
        ]
        return tf.ensure_shape(
            tf.case(cases, default=lambda: self._chosen(self.picture.read(clip[None], name[None]))), shape
        )

    def _gif(self, clip):
        frames = tf.io.decode_gif(clip)
        shape = (*self.picture.size, self.picture.channels)
        # One at a time: all those chosen may be many times what was decoded.
        return tf.map_fn(
            lambda place: self.picture.fitted(frames[place]), self._chosen(tf.range(tf.shape(frames)[0])),
            fn_output_signature=tf.TensorSpec(shape, tf.float32), parallel_iterations=1,
        )  # fmt: skip

    def _pictures(self, pictures, name):
        numbers = tf.range(tf.size(pictures))
        numbers = tf.cond(tf.size(pictures) > self.num_frames, lambda: self._chosen(numbers), lambda: numbers)
        names = tf.strings.join([name, ", frame ", tf.strings.as_string(numbers), ","])
        return self._chosen(self.picture.read(tf.gather(pictures, numbers), names))

    def _chosen(self, frames):
        last = tf.cast(tf.shape(frames)[0] - 1, tf.float32)
        return tf.gather(frames, tf.cast(tf.round(tf.linspace(0.0, last, self.num_frames)), tf.int32))

    def compute_output_spec(self, clips):
        shape = (clips.shape[0], self.num_frames, *self.picture.size, self.picture.channels)
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self):
        picture = self.picture
        own = {"num_frames": self.num_frames, "size": picture.size, "channels": picture.channels}
        return {**super().get_config(), **own, "resize": picture.resize, "names_all": self.names_all}


PACKED = b"\x08\x07\x12"  # how a serialised tensor of strings begins: its dtype, then its shape


def unpacked(clip):
    """The pictures `(frames,)` that `tf.io.serialize_tensor` packed."""
    # Not by parse_tensor: that makes as many as the clip declares, and a few bytes can declare any number.
    return tf.io.decode_proto(clip, "tensorflow.TensorProto", ["string_val"], [tf.string]).values[0]


def _measured(clips):
    """Clips `(batch,)` to (fault, pixels), see `picture_headers.measured`; what is no GIF may have as many as any."""
    start = window(clips, 0, 4)
    gif, packed = begin(start, b"GIF8"), begin(start, PACKED)
    frames, height, width, _ = walk_gifs(tf.boolean_mask(clips, gif))
    pixels = tf.scatter_nd(tf.where(gif), frames * height * width, tf.shape(clips, tf.int64))
    pictures = tf.scatter_nd(tf.where(packed), walk_packed(tf.boolean_mask(clips, packed)), tf.shape(clips, tf.int64))
    fits = (pixels > 0) & (pixels <= MOST_PIXELS)
    of_gif = f"is cut off, or its frames have more than {MOST_PIXELS} pixels or {MOST_BLOCKS} blocks together"
    of_packed = f"is broken, or holds no frame, or more than {MOST_BLOCKS}"
    fault = tf.where(gif & ~fits, of_gif, tf.where(packed & tf.equal(pictures, 0), of_packed, ""))
    return fault, tf.where(gif, pixels, MOST_PIXELS)
