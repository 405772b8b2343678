"""Decoders: functions that return a keras.Model from a latent `(batch, width)` to one modality."""

from mmkeras.decoders.audio import audio_decoder
from mmkeras.decoders.image import IMAGE_DECODERS, image_decoder
from mmkeras.decoders.text import text_decoder
from mmkeras.decoders.vector import vector_decoder
from mmkeras.decoders.video import video_decoder

__all__ = ["IMAGE_DECODERS", "audio_decoder", "image_decoder", "text_decoder", "vector_decoder", "video_decoder"]
