"""Fusions: layers from the tokens of several modalities to one vector or to other tokens, and from logits to logits.

| kind | from | to |
|---|---|---|
| feature | `{name: tokens (batch, length, width)}` | `(batch, width)` |
| token | the same | `{name: tokens (batch, length, width)}`, each having looked at the others |
| decision | `{name: logits (batch, classes)}` | `(batch, classes)` |
| staged | `{name: features (batch, .., channels)}` at a stage of the encoders | the same, and `(batch, width)` |

Each takes an optional presence `(batch, modalities)`, in the order of sorted names. Any number of modalities, at least
two where it is made of what they say to each other; an absent one changes nothing and gets exactly zero gradient.
"""

from mmkeras.fusion.attention import Attention, CrossAttention
from mmkeras.fusion.bilinear import Bilinear, Block, CompactBilinear, FactorizedBilinear, Mutan, Tucker
from mmkeras.fusion.concat import Concat, DeepSets, Product, Sum, WeightedSum
from mmkeras.fusion.decision import Evidential, Late
from mmkeras.fusion.experts import MixtureOfExperts, ProductOfExperts
from mmkeras.fusion.gated import Gated
from mmkeras.fusion.modulation import FiLM, Multiplicative
from mmkeras.fusion.staged import MMTM, CentralNet
from mmkeras.fusion.tensor import LowRankTensor, Tensor
from mmkeras.fusion.token import Bottleneck, CoAttention, CrossModal, SingleStream

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
    "deep_sets": DeepSets,
    "multiplicative": Multiplicative,
    "mfb": FactorizedBilinear,
    "tucker": Tucker,
    "mutan": Mutan,
    "block": Block,
    "mcb": CompactBilinear,
    "product_of_experts": ProductOfExperts,
    "mixture_of_experts": MixtureOfExperts,
}
TOKEN_FUSIONS = {
    "transformer": SingleStream,
    "cross_modal": CrossModal,
    "bottleneck": Bottleneck,
    "co_attention": CoAttention,
}
DECISION_FUSIONS = {"late": Late, "evidential": Evidential}
STAGED_FUSIONS = {"mmtm": MMTM, "central": CentralNet}
_TABLES = (FEATURE_FUSIONS, TOKEN_FUSIONS, DECISION_FUSIONS, STAGED_FUSIONS)

__all__ = [
    "DECISION_FUSIONS", "FEATURE_FUSIONS", "STAGED_FUSIONS", "TOKEN_FUSIONS",
    *(c.__name__ for table in _TABLES for c in table.values()),
]  # fmt: skip
