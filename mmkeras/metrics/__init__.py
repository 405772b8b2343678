"""Metrics over whole splits: NumPy arrays in, plain numbers out."""

from mmkeras.metrics.classification import (
    best_thresholds,
    classification,
    confusion,
    expected_calibration_error,
    linear_probe,
    multilabel,
    polarity,
)
from mmkeras.metrics.generation import frechet_distance, inception_score, kernel_distance
from mmkeras.metrics.retrieval import ranks, recall_by_chance, retrieval
from mmkeras.metrics.sequence import bleu, cider, exact_match, rouge_l

__all__ = [
    "best_thresholds",
    "bleu",
    "cider",
    "classification",
    "confusion",
    "exact_match",
    "expected_calibration_error",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "linear_probe",
    "multilabel",
    "polarity",
    "ranks",
    "recall_by_chance",
    "retrieval",
    "rouge_l",
]
