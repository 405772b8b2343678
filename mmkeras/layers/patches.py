"""Pictures cut into square patches, and put together again."""

import keras
from keras import ops


def patch_side(shape, grid):
    """Pixels on the side of a patch where `grid` of them lie on the shorter side of a picture `(height, width, ..)`."""
    return -(-min(shape[:2]) // grid)


def to_patches(pixels, side):
    """Pixels `(batch, height, width, channels)` to patches `(batch, places, side * side * channels)`, row by row.

    Where the side does not divide the picture, zeros are added evenly around it, as a convolution with "same" does.
    """
    cut = ops.image.extract_patches(pixels, side, strides=side, padding="same", data_format="channels_last")
    return ops.reshape(cut, (-1, cut.shape[1] * cut.shape[2], cut.shape[3]))


def from_patches(patches, shape, side):
    """Patches `(batch, places, side * side * channels)` to pixels `(batch, *shape)`: `to_patches` undone."""
    height, width, channels = shape
    rows, columns = -(-height // side), -(-width // side)
    x = ops.reshape(patches, (-1, rows, columns, side, side, channels))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows * side, columns * side, channels))
    top, left = (rows * side - height) // 2, (columns * side - width) // 2
    return x[:, top : top + height, left : left + width]


@keras.saving.register_keras_serializable(package="mmkeras")
class HideTokens(keras.layers.Layer):
    """Tokens `(batch, length, width)` and `hidden (batch, length)` to the same tokens, those of ones masked besides."""

    def call(self, given):
        tokens, _ = given
        return ops.copy(tokens)

    def compute_mask(self, given, previous_mask=None):
        mask, shown = (previous_mask or [None])[0], given[1] < 0.5
        return shown if mask is None else ops.logical_and(mask, shown)

    def compute_output_shape(self, given_shape):
        return given_shape[0]


@keras.saving.register_keras_serializable(package="mmkeras")
class StandIn(keras.layers.Layer):
    """Tokens `(batch, length, width)` to tokens; a learned vector in place of the masked ones, a learned one a place
    added.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, tokens_shape):
        self.stand_in = self.add_weight(name="stand_in", shape=(tokens_shape[-1],), initializer="uniform")
        self.places = self.add_weight(name="places", shape=tokens_shape[1:], initializer="uniform")

    def call(self, tokens, mask=None):
        if mask is not None:
            tokens = ops.where(mask[..., None], tokens, ops.cast(self.stand_in, tokens.dtype))
        return tokens + ops.cast(self.places, tokens.dtype)

    def compute_mask(self, tokens, mask=None):
        return None

    def compute_output_shape(self, tokens_shape):
        return tokens_shape
