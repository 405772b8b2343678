"""Video decoder: a latent `(batch, width)` to the pixels of every frame."""

import keras
from keras import layers, ops

from mmkeras.decoders.image import image_decoder
from mmkeras.layers import AddPosition


def video_decoder(
    latent_size: int, shape: tuple[int, int, int, int], width: int = 16, name: str = "video_decoder"
) -> keras.Model:
    """A latent `(batch, latent_size)` to pixels `(batch, *shape)` in 0..1.

    An LSTM runs over the frames' latents (Srivastava 2015, without feeding frames back); one image decoder draws all.

    Args:
        latent_size: size of the latent.
        shape: `(frames, height, width, channels)`.
        width: channels of the image decoder at half the resolution.
        name: of the model.

    Example:

    >>> video_decoder(16, (8, 32, 32, 3), width=4).output_shape
    (None, 8, 32, 32, 3)
    """
    frames, rows, columns, channels = shape
    inputs = keras.Input((latent_size,), name="latent")
    x = AddPosition(frames)(layers.RepeatVector(frames)(inputs))
    x = layers.Concatenate()([x, layers.LSTM(latent_size, return_sequences=True)(x)])
    x = ops.reshape(x, (-1, 2 * latent_size))
    x = image_decoder(2 * latent_size, (rows, columns, channels), "cnn", width, name="frame")(x)
    return keras.Model(inputs, ops.reshape(x, (-1, *shape)), name=name)
