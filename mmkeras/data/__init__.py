"""Data sources, the training pipeline, and what is fitted on the training split."""

from mmkeras.data.adapt import adapt, labels_of, texts_of
from mmkeras.data.augment import Augment
from mmkeras.data.check import checked, clip_fault, picture_fault, sound_fault
from mmkeras.data.duplicates import near_duplicates
from mmkeras.data.episodes import divide_classes, episodes
from mmkeras.data.opening import open
from mmkeras.data.pair import halves, pair
from mmkeras.data.pipeline import ONE, Preprocessor, batches, encoded, naming_rows, raw_batches, row_numbers, shuffled
from mmkeras.data.report import report
from mmkeras.data.scenes import scenes
from mmkeras.data.service import check_reached, input_workers
from mmkeras.data.source import ENCODED, MODALITIES, DataError, Source, Split
from mmkeras.data.stored import opened
from mmkeras.data.word_vectors import read_word_vectors

__all__ = [
    "ENCODED",
    "MODALITIES",
    "ONE",
    "Augment",
    "DataError",
    "Preprocessor",
    "Source",
    "Split",
    "adapt",
    "batches",
    "check_reached",
    "checked",
    "clip_fault",
    "divide_classes",
    "encoded",
    "episodes",
    "halves",
    "input_workers",
    "labels_of",
    "naming_rows",
    "near_duplicates",
    "open",
    "opened",
    "pair",
    "picture_fault",
    "raw_batches",
    "read_word_vectors",
    "report",
    "row_numbers",
    "scenes",
    "shuffled",
    "sound_fault",
    "texts_of",
]
