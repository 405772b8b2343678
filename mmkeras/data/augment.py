"""Augmentation of a batch in the training pipeline: a pure function of the batch and a seed."""

import dataclasses
import math
from collections.abc import Mapping

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Augment:
    """Changes pictures and texts at random, `(batch, ...)` at a time; a strength of zero costs nothing.

    Args:
        kinds: `{input: kind}`; images are moved and coloured, texts lose tokens, the rest stays.
        flip: whether half of the pictures are mirrored.
        shift: largest shift, as a share of the side.
        zoom: largest change of size, as a logarithm: 0.2 is from 0.82 to 1.22.
        rotate: largest turn in degrees.
        color: largest change of saturation, contrast and (as a logarithm) gamma.
        gray: share of the pictures that lose their colour.
        erase: share of the pictures of which a rectangle is painted white.
        token_dropout: probability that a token becomes unknown (id 1); [END] and padding stay.

    Example:

    >>> pixels = tf.random.uniform((4, 8, 8, 3))
    >>> changed = Augment({"image": "image"}, flip=True)({"image": pixels}, (0, 1))
    >>> changed["image"].shape
    TensorShape([4, 8, 8, 3])
    """

    kinds: dict[str, str]
    flip: bool = False
    shift: float = 0.0
    zoom: float = 0.0
    rotate: float = 0.0
    color: float = 0.0
    gray: float = 0.0
    erase: float = 0.0
    token_dropout: float = 0.0

    def __call__(self, inputs: Mapping[str, tf.Tensor], seed: tf.Tensor | tuple[int, int]) -> dict[str, tf.Tensor]:
        """Inputs `{name: (batch, ...)}` and a seed of two integers to inputs."""
        seeds = iter(tf.unstack(tf.random.split(tf.cast(seed, tf.int32), 16 * len(self.kinds))))
        changed = dict(inputs)
        for name, kind in self.kinds.items():
            if kind == "image":
                changed[name] = self._image(inputs[name], seeds)
            elif kind == "text" and self.token_dropout:
                changed[name] = self._text(inputs[name], seeds)
        return changed

    def _image(self, x, seeds):
        def draw(low, high):
            return tf.random.stateless_uniform((tf.shape(x)[0],), next(seeds), low, high)

        if self.flip or self.shift or self.zoom or self.rotate:
            x = self._move(x, draw)
        if self.color and x.shape[-1] == 3:
            x = self._recolor(x, draw)
        if self.gray and x.shape[-1] == 3:
            lost = _per_picture(draw(0, 1)) < self.gray
            x = tf.where(lost, tf.reduce_mean(x, axis=-1, keepdims=True), x)
        if self.erase:
            x = self._erase(x, draw)
        return tf.clip_by_value(x, 0.0, 1.0)

    def _move(self, x, draw):
        height, width = x.shape[1:3]
        scale = tf.exp(draw(-self.zoom, self.zoom))
        turn = draw(-self.rotate, self.rotate) * (math.pi / 180)
        mirror = tf.sign(draw(-1, 1)) if self.flip else tf.ones_like(scale)
        a, b = mirror * scale * tf.cos(turn), -scale * tf.sin(turn)
        c, d = mirror * scale * tf.sin(turn), scale * tf.cos(turn)
        # Around the middle, then shifted.
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        right = middle_x - a * middle_x - b * middle_y + draw(-self.shift, self.shift) * width
        down = middle_y - c * middle_x - d * middle_y + draw(-self.shift, self.shift) * height
        zero = tf.zeros_like(a)
        transform = tf.stack([a, b, right, c, d, down, zero, zero], axis=1)
        return keras.ops.image.affine_transform(x, transform, fill_mode="constant", fill_value=1.0)

    def _recolor(self, x, draw):
        gray = tf.reduce_mean(x, axis=-1, keepdims=True)
        x = gray + (x - gray) * _per_picture(draw(1 - self.color, 1 + self.color))
        x = 1 - (1 - x) * _per_picture(draw(1 - self.color, 1 + self.color))
        return tf.clip_by_value(x, 1e-4, 1.0) ** _per_picture(tf.exp(draw(-self.color, self.color)))

    def _erase(self, x, draw):
        chosen = draw(0, 1) < self.erase

        def stripe(side):
            middle, half = draw(0, side), draw(side / 16, side / 4)
            return tf.abs(tf.range(side, dtype=tf.float32) - middle[:, None]) < half[:, None]

        rows, columns = stripe(x.shape[1]), stripe(x.shape[2])
        hole = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
        return tf.where(hole[..., None], 1.0, x)

    def _text(self, ids, seeds):
        lost = tf.random.stateless_uniform(tf.shape(ids), next(seeds)) < self.token_dropout
        return tf.where(lost & (ids > 3), 1, ids)


def _per_picture(values):
    return values[:, None, None, None]
