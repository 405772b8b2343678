"""The training loop: epochs over a pipeline that is a function of the epoch, with Keras callbacks."""

import keras
import tensorflow as tf

from mmkeras.training.multi_input import check_batch


def set_seed(seed, deterministic=False):
    """Seeds Python, NumPy and Keras; `deterministic` makes equal runs bit-identical, and slower."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def fit(model, epoch_batches, epochs, start=0, validation=None, callbacks=(), verbose=1):
    """Trains a compiled model.

    Unlike `model.fit` it asks for each epoch's batches anew, so that their order can be a pure function of the epoch,
    and begins at any epoch.

    Args:
        model: a compiled keras.Model.
        epoch_batches: function from an epoch's number to a `tf.data.Dataset`.
        epochs: number of epochs in all.
        start: the first one to train, counted from zero.
        validation: a `tf.data.Dataset`, or None.
        callbacks: Keras callbacks.
        verbose: 1 for a progress bar, 2 for a line an epoch, 0 for silence.

    Returns:
        The `keras.callbacks.History`.

    Raises:
        ValueError: if the first batch holds NaN or pixels outside 0..1.
        FloatingPointError: if the loss is no longer a finite number.
    """
    # Without autograph: nothing here branches on a tensor, and converting all of Keras doubles the wait for step one.
    train_step, test_step = (tf.function(f, autograph=False) for f in (model.train_step, model.test_step))
    steps = int(epoch_batches(start).cardinality()) if start < epochs else 0
    history = keras.callbacks.History()
    callbacks = [history, *getattr(model, "own_callbacks", ()), *callbacks]
    callbacks = keras.callbacks.CallbackList(
        callbacks, add_progbar=verbose > 0, model=model, epochs=epochs, steps=steps, verbose=verbose
    )
    callbacks.on_train_begin()
    for epoch in range(start, epochs):
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        logs = {}
        for step, batch in enumerate(epoch_batches(epoch)):
            if (epoch, step) == (start, 0):
                check_batch(batch)
            callbacks.on_train_batch_begin(step)
            logs = numbers(train_step(batch))
            if not all(abs(value) < float("inf") for value in logs.values()):
                raise FloatingPointError(
                    f"The loss is no longer a number in epoch {epoch + 1}, step {step + 1}: {logs}. "
                    "Try a smaller --learning-rate."
                )
            callbacks.on_train_batch_end(step, logs)
        if validation is not None:
            model.reset_metrics()
            validation_logs = {}
            for batch in validation:
                validation_logs = test_step(batch)
            logs = {**logs, **{f"val_{name}": value for name, value in numbers(validation_logs).items()}}
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    callbacks.on_train_end(logs if start < epochs else {})
    return history


def numbers(logs):
    """Tensors of a dict, nested or not, as Python numbers."""
    return {name: float(value) for name, value in logs.items()}
