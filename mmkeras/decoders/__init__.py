"""Decoders: functions that return a keras.Model from a latent `(batch, width)` to one modality."""

from mmkeras.decoders.image import IMAGE_DECODERS, image_decoder
from mmkeras.decoders.text import text_decoder
from mmkeras.decoders.vector import vector_decoder

__all__ = ["IMAGE_DECODERS", "image_decoder", "text_decoder", "vector_decoder"]
