"""What a model learns of its data before it is built: sizes, vocabularies, labels."""

import wave

import tensorflow as tf

from mmkeras import data as sources
from mmkeras.layers import TokenizeText
from zoo import _registry
from zoo._config import did_you_mean
from zoo._run import usable


def with_columns(hyperparameters, columns, source):
    """Modalities declared by `--columns photo=image` are the model's, unless it was told others."""
    there = set(source.split("train").kinds) - set(sources.MODALITIES)  # else it is the new name of a column
    declared = {c: kind for c, kind in (columns or {}).items() if kind in sources.MODALITIES and c in there}
    if declared and "modalities" not in hyperparameters:
        return {**hyperparameters, "modalities": declared}
    return hyperparameters


def fit_preprocessor(run):
    """Infers sizes from the training split, fits the preprocessor, and returns the rows that can be used."""
    config, split = run.config, run.source.split("train")
    missing = [name for name in config.names if name not in split.kinds]
    if missing:
        rest = ",".join(f"{n}={kind}" for n, kind in config.modalities.items() if n in split.kinds)
        raise sources.DataError(
            f"{run.data} has no column `{missing[0]}`. It has: {', '.join(split.kinds)}."
            f"{did_you_mean(missing[0], split.kinds)} Say which column it is with --columns {missing[0]}=NAME, or "
            f"train without it: --modalities {rest or 'NAME=KIND'}."
        )
    unfitted = config.replace(vector_dim={**dict.fromkeys(config.of_kind("vector"), 1), **config.vector_dim})
    run.preprocessor = _registry.make_preprocessor(run.module, unfitted)
    split = usable(run, split)
    for name in config.names:
        if name in split.kinds and not any(map(len, split.cells(name))):
            raise sources.DataError(
                f"The modality `{name}` is absent in every row of the training split: leave it out of --modalities."
            )
    sizes = {name: max(map(len, split.cells(name))) for name in config.of_kind("vector")}
    texts = {name: sources.texts_of(split, name) for name in config.of_kind("text")}
    if any(texts.values()):
        tokenizer = TokenizeText(1, unit=config.text_unit, lower=config.text_lower, punctuation=config.text_punctuation)
        longest = max(
            int(tf.reduce_max(tokenizer.split(tf.constant(column)).row_lengths())) for column in texts.values()
        )
        config = config.replace(text_length=min(config.text_length, longest + 1))
    config = config.replace(vector_dim=sizes)
    if config.of_kind("audio"):
        longest = max(_seconds(cell) for name in config.of_kind("audio") for cell in split.cells(name))
        config = config.replace(audio_seconds=min(config.audio_seconds, longest))
    run.preprocessor = _registry.make_preprocessor(run.module, config)
    sources.adapt(run.preprocessor, split, config.vocabulary_size)
    if texts:
        vocabulary = run.preprocessor.reader(next(iter(texts))).vocabulary
        config = config.replace(vocabulary_size=len(vocabulary))
    if hasattr(config, "num_classes") and run.labels:
        config = config.replace(num_classes=len(run.labels))
        if config.num_classes < 2:
            raise sources.DataError(f"Expected two labels or more in the training split. Found one: {run.labels[0]!r}.")
    if hasattr(config, "num_tags") and "tags" in run.label_names:
        config = config.replace(num_tags=len(run.preprocessor.reader("tags").vocabulary))
    run.config = config
    return split


def _seconds(sound):
    """Length of a WAV file, a path or its bytes; of an absent one zero."""
    if not sound:
        return 0.0
    with wave.open(sources.opened(sound)) as file:
        return file.getnframes() / file.getframerate()
