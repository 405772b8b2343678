"""Optimisers by name."""

from typing import Literal

import keras


def make_optimizer(
    name: Literal["adamw", "adam", "sgd", "rmsprop", "lion"],
    learning_rate: float,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    schedule: Literal["cosine", "constant"] = "constant",
    warmup: float = 0.0,
    steps: int | None = None,
    beta_1: float = 0.9,
) -> keras.optimizers.Optimizer:
    """A Keras optimiser; on TensorFlow one that scales the loss where layers are made that compute in float16.

    Args:
        name: `"adamw"`, `"adam"`, `"sgd"` (with momentum 0.9), `"rmsprop"` or `"lion"`.
        learning_rate: the rate, or its peak where there is a schedule.
        weight_decay: of adamw and lion.
        clip_norm: largest global norm of the gradient; 0 for no limit.
        schedule: `"cosine"` (to a hundredth, after a warm-up) or `"constant"`; without `steps` it is constant.
        warmup: share of the steps in which the rate of a cosine rises to its peak.
        steps: number of training steps.
        beta_1: decay of adam's, adamw's and lion's first moment (GANs want 0.5, Radford 2016).
    """
    rate = learning_rate
    if steps and schedule == "cosine":
        warmup_steps = min(int(warmup * steps), steps - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            learning_rate / 100 if warmup_steps else learning_rate,
            max(steps - warmup_steps, 1),
            alpha=0.01,
            warmup_target=learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    options = {"learning_rate": rate, "global_clipnorm": clip_norm or None}
    if name in ("adamw", "lion"):
        options["weight_decay"] = weight_decay
    if name in ("adam", "adamw", "lion"):
        options["beta_1"] = beta_1
    if name == "sgd":
        options["momentum"] = 0.9
    classes = keras.optimizers
    if keras.backend.backend() == "tensorflow":
        from mmkeras.training import tensorflow_optimizers as classes
    by_name = {
        "adamw": classes.AdamW,
        "adam": classes.Adam,
        "sgd": classes.SGD,
        "rmsprop": classes.RMSprop,
        "lion": classes.Lion,
    }
    optimizer = by_name[name](**options)
    if keras.config.dtype_policy().name == "mixed_float16" and keras.backend.backend() == "tensorflow":
        return classes.LossScale(optimizer)
    return optimizer
