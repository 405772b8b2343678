"""Diagnosis: what a model looked at, and what ails it."""

from mmkeras.diagnosis.attribution import grad_cam, integrated_gradients, shapley

__all__ = ["grad_cam", "integrated_gradients", "shapley"]
