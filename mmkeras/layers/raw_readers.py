"""The layers that read raw bytes and strings: they need TensorFlow, and are registered with Keras by being imported."""

from mmkeras.layers import (  # noqa: F401
    decode_audio,
    decode_image,
    decode_video,
    encode_label,
    raw_presence,
    standardize_vector,
    tokenize_text,
)
