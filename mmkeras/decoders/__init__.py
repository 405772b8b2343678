"""Decoders: functions that return a keras.Model to one modality, from a latent `(batch, width)` or a memory."""

from mmkeras.decoders.audio import audio_decoder
from mmkeras.decoders.caption import CAPTION_DECODERS, caption_decoder, word_by_word
from mmkeras.decoders.image import IMAGE_DECODERS, image_decoder
from mmkeras.decoders.text import text_decoder
from mmkeras.decoders.vector import vector_decoder
from mmkeras.decoders.video import video_decoder

__all__ = [
    "CAPTION_DECODERS",
    "IMAGE_DECODERS",
    "audio_decoder",
    "caption_decoder",
    "image_decoder",
    "text_decoder",
    "vector_decoder",
    "video_decoder",
    "word_by_word",
]
