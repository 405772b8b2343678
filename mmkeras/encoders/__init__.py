"""Encoders: functions that return a keras.Model from one modality to tokens `(batch, length, width)`."""

from mmkeras.encoders.audio import audio_encoder
from mmkeras.encoders.image import IMAGE_ENCODERS, image_encoder
from mmkeras.encoders.stages import NUM_STAGES, staged_encoder
from mmkeras.encoders.text import TEXT_ENCODERS, MaskedConv1D, text_encoder
from mmkeras.encoders.vector import VECTOR_ENCODERS, vector_encoder
from mmkeras.encoders.video import VIDEO_ENCODERS, video_encoder

__all__ = [
    "IMAGE_ENCODERS",
    "NUM_STAGES",
    "TEXT_ENCODERS",
    "VECTOR_ENCODERS",
    "VIDEO_ENCODERS",
    "MaskedConv1D",
    "audio_encoder",
    "image_encoder",
    "staged_encoder",
    "text_encoder",
    "vector_encoder",
    "video_encoder",
]
