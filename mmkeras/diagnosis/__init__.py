"""Diagnosis: what a model looked at, and what ails it."""

from mmkeras.diagnosis.attribution import grad_cam, integrated_gradients, shapley
from mmkeras.diagnosis.doctor import (
    Doctor,
    accuracies,
    chances,
    collapsed_embeddings,
    dead_modalities,
    gradient_shares,
    shared_rows,
    small_shares,
    stuck_losses,
    told_rows,
    useless_modalities,
)

__all__ = [
    "Doctor",
    "accuracies",
    "chances",
    "collapsed_embeddings",
    "dead_modalities",
    "grad_cam",
    "gradient_shares",
    "integrated_gradients",
    "shapley",
    "shared_rows",
    "small_shares",
    "stuck_losses",
    "told_rows",
    "useless_modalities",
]
