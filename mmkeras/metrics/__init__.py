"""Metrics over whole splits: NumPy arrays in, plain numbers out."""

from mmkeras.metrics.classification import classification, confusion, expected_calibration_error, multilabel
from mmkeras.metrics.generation import frechet_distance, inception_score, kernel_distance
from mmkeras.metrics.retrieval import ranks, retrieval
from mmkeras.metrics.sequence import bleu, exact_match

__all__ = [
    "bleu",
    "classification",
    "confusion",
    "exact_match",
    "expected_calibration_error",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "multilabel",
    "ranks",
    "retrieval",
]
