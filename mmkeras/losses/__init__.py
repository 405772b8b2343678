"""Losses: functions of tensors, on any backend. Each gives one value a row unless it says otherwise."""

from mmkeras.losses.adversarial import ADVERSARIAL_LOSSES, generator_loss, gradient_penalty
from mmkeras.losses.alignment import (
    ALIGNMENT_LOSSES,
    barlow_twins,
    canonical_correlations,
    cca,
    correlation,
    moment_discrepancy,
    overlap,
    pair_distance,
    vicreg,
)
from mmkeras.losses.classification import Distillation, LabelCrossentropy, TagsCrossentropy
from mmkeras.losses.contrastive import CONTRASTIVE_LOSSES, clip, siglip, supcon, triplet
from mmkeras.losses.domain import DOMAIN_LOSSES, coral, mmd
from mmkeras.losses.episodic import EPISODIC_LOGITS, matching, prototypical
from mmkeras.losses.reconstruction import (
    gaussian_kl,
    pixel_bce,
    pixel_mse,
    token_cross_entropy,
    token_nll,
    vector_mse,
)

__all__ = [
    "ADVERSARIAL_LOSSES",
    "ALIGNMENT_LOSSES",
    "CONTRASTIVE_LOSSES",
    "DOMAIN_LOSSES",
    "EPISODIC_LOGITS",
    "Distillation",
    "LabelCrossentropy",
    "TagsCrossentropy",
    "barlow_twins",
    "canonical_correlations",
    "cca",
    "clip",
    "coral",
    "correlation",
    "gaussian_kl",
    "generator_loss",
    "gradient_penalty",
    "matching",
    "mmd",
    "moment_discrepancy",
    "overlap",
    "pair_distance",
    "pixel_bce",
    "pixel_mse",
    "prototypical",
    "siglip",
    "supcon",
    "token_cross_entropy",
    "token_nll",
    "triplet",
    "vector_mse",
    "vicreg",
]
