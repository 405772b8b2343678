"""Fusions: layers from the tokens of several modalities to one vector, and from several logits to one.

A feature fusion takes `{name: tokens (batch, length, width)}` and an optional presence `(batch, modalities)`, in the
order of sorted names, and gives `(batch, width)`. A decision fusion takes `{name: logits (batch, classes)}` and gives
`(batch, classes)`. Any number of modalities; an absent one changes nothing and gets exactly zero gradient.
"""

from mmkeras.fusion.attention import Attention, CrossAttention
from mmkeras.fusion.concat import Concat, Product, Sum, WeightedSum
from mmkeras.fusion.gated import Gated
from mmkeras.fusion.late import Late
from mmkeras.fusion.modulation import FiLM
from mmkeras.fusion.tensor import Bilinear, LowRankTensor, Tensor

FEATURE_FUSIONS = {
    "concat": Concat,
    "sum": Sum,
    "weighted_sum": WeightedSum,
    "product": Product,
    "gated": Gated,
    "attention": Attention,
    "cross_attention": CrossAttention,
    "bilinear": Bilinear,
    "tensor": Tensor,
    "low_rank": LowRankTensor,
    "film": FiLM,
}
DECISION_FUSIONS = {"late": Late}

__all__ = ["DECISION_FUSIONS", "FEATURE_FUSIONS", *(c.__name__ for c in (*FEATURE_FUSIONS.values(), Late))]
