"""Clips to frames, inside the graph."""

import keras
import tensorflow as tf

from mmkeras.layers.decode_image import DecodeImage


@keras.saving.register_keras_serializable(package="mmkeras")
class DecodeVideo(keras.layers.Layer):
    """Clips `(batch,)` to pixels `(batch, frames, height, width, channels)` in 0..1.

    A clip is a GIF, a single picture, or several pictures packed by `tf.io.serialize_tensor` (a folder of frames).
    Frames are taken at even distances from the first to the last; a clip of fewer repeats some. An empty byte string
    is an absent clip: zeros.

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
        return tf.map_fn(self._one, clips, fn_output_signature=tf.TensorSpec(shape, tf.float32), parallel_iterations=16)

    def _one(self, clip):
        shape = (self.num_frames, *self.picture.size, self.picture.channels)
        start = tf.strings.substr(clip, 0, 4)
        cases = [
            (tf.equal(start, b""), lambda: tf.zeros(shape)),
            (tf.equal(start, b"GIF8"), lambda: self._gif(clip)),
            (tf.reduce_any(tf.equal(start, [b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1"])),
             lambda: self._pictures(clip[None])),
        ]  # fmt: skip
        frames = tf.case(cases, default=lambda: self._pictures(tf.io.parse_tensor(clip, tf.string)))
        return tf.ensure_shape(frames, shape)

    def _gif(self, clip):
        frames = tf.io.decode_gif(clip)
        return self.picture.fitted(tf.cast(self._chosen(frames), tf.float32) / 255)

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
