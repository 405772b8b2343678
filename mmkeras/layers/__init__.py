"""Layers that models and encoders are made of. Those for strings and bytes need TensorFlow; the others do not."""

from mmkeras.layers.attention import AttentionPool, ParallelCoAttention
from mmkeras.layers.attention_lstm import AttentionLSTM
from mmkeras.layers.batch_norm import BatchNormalization
from mmkeras.layers.embedding import (
    AddCoordinates,
    AddPosition,
    AddSinusoids,
    L2Normalize,
    QueuedSimilarity,
    SimilarityScale,
    TokenEmbedding,
)
from mmkeras.layers.gaussian import GaussianProduct, Ramp, SampleGaussian, gaussian_product
from mmkeras.layers.gradient_reversal import GradientReversal, RisingWeight
from mmkeras.layers.label_queries import LabelQueries, Thresholds
from mmkeras.layers.memory import JoinTokens
from mmkeras.layers.modality_dropout import ModalityDropout
from mmkeras.layers.patches import HideTokens, StandIn, from_patches, patch_side, to_patches
from mmkeras.layers.pooling import Pool
from mmkeras.layers.presence import FillAbsent, PresentMean
from mmkeras.layers.projection import Projection, canonical_directions
from mmkeras.layers.relation import Relations
from mmkeras.layers.tokens import ScheduledSampling, ShiftRight
from mmkeras.layers.transformer import TransformerBlock

__all__ = [
    "AddCoordinates",
    "AddPosition",
    "AddSinusoids",
    "AttentionLSTM",
    "AttentionPool",
    "BatchNormalization",
    "DecodeAudio",
    "DecodeImage",
    "DecodeVideo",
    "EncodeLabel",
    "EncodeTags",
    "FillAbsent",
    "GaussianProduct",
    "GradientReversal",
    "HideTokens",
    "JoinTokens",
    "L2Normalize",
    "LabelQueries",
    "ModalityDropout",
    "ParallelCoAttention",
    "Pool",
    "PresentMean",
    "Projection",
    "QueuedSimilarity",
    "Ramp",
    "RawPresence",
    "ReadNumber",
    "Relations",
    "RisingWeight",
    "SampleGaussian",
    "ScheduledSampling",
    "ShiftRight",
    "SimilarityScale",
    "StandIn",
    "StandardizeVector",
    "Thresholds",
    "TokenEmbedding",
    "TokenizeText",
    "TransformerBlock",
    "canonical_directions",
    "from_patches",
    "gaussian_product",
    "patch_side",
    "to_patches",
]

_RAW = {
    "DecodeAudio": "decode_audio",
    "DecodeImage": "decode_image",
    "DecodeVideo": "decode_video",
    "EncodeLabel": "encode_label",
    "EncodeTags": "encode_label",
    "RawPresence": "raw_presence",
    "ReadNumber": "encode_label",
    "StandardizeVector": "standardize_vector",
    "TokenizeText": "tokenize_text",
}


def __getattr__(name):
    """The layers for raw strings and bytes, imported when used: they need TensorFlow, which JAX users may not want."""
    if name in _RAW:
        import importlib

        return getattr(importlib.import_module(f"mmkeras.layers.{_RAW[name]}"), name)
    raise AttributeError(f"module 'mmkeras.layers' has no attribute {name!r}. It has: {', '.join(__all__)}.")
