"""Audio decoder: a latent `(batch, width)` to a log-mel spectrogram."""

import keras
from keras import layers

from mmkeras.decoders.image import image_decoder


def audio_decoder(
    latent_size: int, shape: tuple[int, int], width: int = 32, name: str = "audio_decoder"
) -> keras.Model:
    """A latent `(batch, latent_size)` to a spectrogram `(batch, frames, mels)` in 0..1.

    The image decoder draws it; `DecodeAudio.restore` makes a sound of it.

    Args:
        latent_size: size of the latent.
        shape: `(frames, mels)`.
        width: channels at half the resolution.
        name: of the model.

    Example:

    >>> audio_decoder(16, (63, 40), width=4).output_shape
    (None, 63, 40)
    """
    inputs = keras.Input((latent_size,), name="latent")
    picture = image_decoder(latent_size, (*shape, 1), "cnn", width, name="spectrogram")(inputs)
    return keras.Model(inputs, layers.Reshape(shape, name="log_mel")(picture), name=name)
