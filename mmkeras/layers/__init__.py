"""Layers that models and encoders are made of. Those for strings and bytes need TensorFlow; the others do not."""

from mmkeras.layers.attention import AttentionPool, ParallelCoAttention
from mmkeras.layers.embedding import AddCoordinates, AddPosition, L2Normalize, SimilarityScale, TokenEmbedding
from mmkeras.layers.modality_dropout import ModalityDropout
from mmkeras.layers.pooling import Pool
from mmkeras.layers.presence import FillAbsent, PresentMean
from mmkeras.layers.relation import Relations
from mmkeras.layers.transformer import TransformerBlock

__all__ = [
    "AddCoordinates",
    "AddPosition",
    "AttentionPool",
    "DecodeAudio",
    "DecodeImage",
    "DecodeVideo",
    "EncodeLabel",
    "EncodeTags",
    "FillAbsent",
    "L2Normalize",
    "ModalityDropout",
    "ParallelCoAttention",
    "Pool",
    "PresentMean",
    "RawPresence",
    "Relations",
    "SimilarityScale",
    "StandardizeVector",
    "TokenEmbedding",
    "TokenizeText",
    "TransformerBlock",
]

_RAW = {
    "DecodeAudio": "decode_audio",
    "DecodeImage": "decode_image",
    "DecodeVideo": "decode_video",
    "EncodeLabel": "encode_label",
    "EncodeTags": "encode_label",
    "RawPresence": "raw_presence",
    "StandardizeVector": "standardize_vector",
    "TokenizeText": "tokenize_text",
}


def __getattr__(name):
    """The layers for raw strings and bytes, imported when used: they need TensorFlow, which JAX users may not want."""
    if name in _RAW:
        import importlib

        return getattr(importlib.import_module(f"mmkeras.layers.{_RAW[name]}"), name)
    raise AttributeError(f"module 'mmkeras.layers' has no attribute {name!r}. It has: {', '.join(__all__)}.")
