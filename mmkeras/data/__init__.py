"""Data sources, the training pipeline, and what is fitted on the training split."""

from mmkeras.data.adapt import adapt, labels_of, texts_of
from mmkeras.data.augment import Augment
from mmkeras.data.check import checked, picture_fault, report
from mmkeras.data.opening import open
from mmkeras.data.pair import halves, pair
from mmkeras.data.pipeline import Preprocessor, batches, naming_rows, raw_batches
from mmkeras.data.scenes import scenes
from mmkeras.data.source import MODALITIES, DataError, Source, Split
from mmkeras.data.word_vectors import read_word_vectors

__all__ = [
    "MODALITIES",
    "Augment",
    "DataError",
    "Preprocessor",
    "Source",
    "Split",
    "adapt",
    "batches",
    "checked",
    "halves",
    "labels_of",
    "naming_rows",
    "open",
    "pair",
    "picture_fault",
    "raw_batches",
    "read_word_vectors",
    "report",
    "scenes",
    "texts_of",
]
