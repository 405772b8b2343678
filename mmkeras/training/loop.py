"""The training loop: epochs over a pipeline that is a function of the epoch, with Keras callbacks."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import keras
import tensorflow as tf

from mmkeras.training.checks import check_batch
from mmkeras.training.strategy import pieces, synchronize_batch_norm
from mmkeras.training.tensorflow_optimizers import gradient_norms


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Seeds Python, NumPy and Keras; `deterministic` makes equal runs bit-identical, and slower."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def precision(name: Literal["float16", "bfloat16"] | None = None) -> Iterator[None]:
    """A block in which layers are made that compute in `"float16"` or `"bfloat16"`, their weights in float32."""
    if name not in (None, "float16", "bfloat16"):
        raise ValueError(f"Expected --mixed-precision float16 or bfloat16. Received: {name!r}.")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{name}" if name else before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def fit(
    model: keras.Model,
    epoch_batches: Callable[[int, int], tf.data.Dataset],
    epochs: int,
    start: tuple[int, int] = (0, 0),
    validation: tf.data.Dataset | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> keras.callbacks.History:
    """Trains a compiled model.

    Unlike `model.fit` it asks for each epoch's batches anew, so that their order can be a pure function of the epoch,
    begins at any step of any epoch, and takes the steps of several replicas that one would take: the losses are shares
    (`mmkeras.layers.replicas`), gradients are clipped when they are summed, batch norms look at all rows.

    Args:
        model: a compiled keras.Model, made in the scope of its strategy where there are several replicas. Compiled with
            `steps_per_execution`, it takes so many steps between two looks at its losses, with `jit_compile` by XLA.
        epoch_batches: function of (epoch, step) to a `tf.data.Dataset` of the epoch's batches from that step on; where
            there are several replicas, of what this process's replicas get of each, one after the other.
        epochs: number of epochs in all.
        start: the first epoch and step to train, counted from zero.
        validation: a `tf.data.Dataset`, or None.
        callbacks: Keras callbacks. Where there are several processes each runs its own.
        verbose: 1 for a progress bar, 2 for a line an epoch, 0 for silence.

    Returns:
        The `keras.callbacks.History`; its `input_wait` is the share of the steps' time in which they waited for their
        batches, None where several steps are taken at once.

    Raises:
        ValueError: if the first batch holds NaN or pixels outside 0..1.
        FloatingPointError: if the loss is no longer a finite number.
    """
    # Without autograph: nothing here branches on a tensor, and converting all of Keras doubles the wait for step one.
    strategy = model.distribute_strategy
    train_step, test_step = _step(model, model.train_step), _step(model, model.test_step)
    taking = _Taking(train_step, model.steps_per_execution)
    several = strategy.num_replicas_in_sync > 1
    synchronize_batch_norm(model, several)
    first_epoch, first_step = start
    steps = _checked_steps(strategy, epoch_batches, start) if first_epoch < epochs else 0
    history = keras.callbacks.History()
    callbacks = [history, *getattr(model, "own_callbacks", ()), *callbacks]
    shown = {"add_progbar": verbose > 0, "epochs": epochs, "steps": steps, "verbose": verbose}
    told = keras.callbacks.CallbackList(callbacks, model=model, **shown)
    model.stop_training = False
    told.on_train_begin()
    logs = {}
    for epoch in range(first_epoch, epochs):
        if model.stop_training:
            break
        step = first_step if epoch == first_epoch else 0
        if step == 0:
            model.reset_metrics()
        told.on_epoch_begin(epoch)
        batches = iter(_distributed(strategy, epoch_batches(epoch, step)))
        logs = _trained(model, taking, batches, told, epoch, step, steps)
        if several or not logs:  # what a step gives are the numbers of one replica; there may be no step left
            logs = numbers(model.get_metrics_result())
        if validation is not None:
            logs.update(_validated(model, test_step, _distributed(strategy, validation), several))
        told.on_epoch_end(epoch, logs)
    told.on_train_end(logs)
    history.input_wait = taking.wait
    synchronize_batch_norm(model, False)  # as it is saved: other backends know no such thing
    return history


def _checked_steps(strategy, epoch_batches, start):
    """How many steps an epoch has; the first batch from `start` on is looked at."""
    batches = epoch_batches(*start)
    for batch in batches.take(1):  # none, if training was stopped before its epoch was validated
        check_batch(batch)
    return start[1] + int(batches.cardinality()) // _replicas_here(strategy)


def _trained(model, taking, batches, callbacks, epoch, step, steps):
    """Takes an epoch's steps from one on, and gives the logs of the last; none, if there is no step left."""
    logs = {}
    while step < steps:
        callbacks.on_train_batch_begin(step)
        count = min(taking.at_once, steps - step)
        logs = taking(batches, count)
        step += count
        if not all(map(math.isfinite, (*logs.values(), *gradient_norms(model).values()))):
            raise FloatingPointError(_not_finite(model, epoch, step, count, logs))
        callbacks.on_train_batch_end(step - 1, logs)
    return logs


def _validated(model, test_step, batches, several):
    """The metrics over a pass of the validation batches, `val_` before their names."""
    model.reset_metrics()
    logs = {}
    for batch in batches:
        logs = test_step(batch)
    logs = model.get_metrics_result() if several else logs
    return {f"val_{name}": value for name, value in numbers(logs).items()}


def _step(model, function):
    """A step of all replicas as a graph, which gives the logs of the first one of this process."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        function = functools.partial(function)  # TensorFlow would count the traces of all models as one's, and warn
        return tf.function(function, autograph=False, jit_compile=model.jit_compile or None)
    run = tf.function(lambda batch: strategy.run(function, args=(batch,)), autograph=False)
    return lambda batch: strategy.experimental_local_results(run(batch))[0]


class _Taking:
    """Takes the next steps of an iterator, and gives the logs of the last; it knows how long they waited for batches.

    Args:
        step: function of a batch.
        at_once: how many steps are taken in one graph.
    """

    def __init__(self, step, at_once):
        self.step, self.at_once = step, at_once
        self.several = _steps(step) if at_once > 1 else None
        self.waited = self.taken = 0.0
        self.begun = False

    def __call__(self, batches, count):
        if self.several:
            return numbers(self.several(batches, tf.constant(count)))
        began = time.perf_counter()
        batch = next(batches)
        there = time.perf_counter()
        logs = numbers(self.step(batch))
        if self.begun:
            self.waited += there - began
            self.taken += time.perf_counter() - began
        self.begun = True
        return logs

    @property
    def wait(self):
        """The share of the time that was waiting; the first step, which is traced, does not count."""
        return self.waited / self.taken if self.taken else None


def _steps(step):
    """A graph that takes a number of steps with the next batches of an iterator, and gives the logs of the last."""

    def take(batches, count):
        tf.while_loop(lambda i: i < count - 1, lambda i: (step(next(batches)), i + 1)[1:], [0])
        return step(next(batches))

    return tf.function(take, autograph=False)


def _replicas_here(strategy):
    first, end, _ = pieces(strategy)
    return end - first


def _distributed(strategy, dataset):
    """The batches of a dataset, each replica's of this process in its turn."""
    if strategy.num_replicas_in_sync == 1:
        return dataset
    return strategy.distribute_datasets_from_function(lambda context: dataset)


def build_metrics(model: keras.Model, batch: Any) -> None:
    """Makes the variables of a compiled model's metrics, which Keras would make in the first step.

    Args:
        model: a compiled keras.Model.
        batch: as `train_step` takes it.
    """
    if all(getattr(metric, "built", True) for metric in model.metrics):
        return
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    outputs = model(x, training=False)
    model.compute_loss(x, y, outputs, sample_weight, training=False)
    model.compute_metrics(x, y, outputs, sample_weight)
    model.reset_metrics()


def _not_finite(model, epoch, step, count, logs):
    """What is said when the loss, or its slope, is no longer a number after a number of steps."""
    steps = f"step {step}" if count == 1 else f"steps {step - count + 1} to {step}"
    said = [f"The loss or its gradient is no longer a number in epoch {epoch + 1}, {steps}: {logs}."]
    for when, steps_before in (("in the last step", 0), ("in the step before", 1)):
        norms = gradient_norms(model, steps_before)
        if any(norms.values()):
            path = max(norms, key=lambda path: norms[path] if math.isfinite(norms[path]) else math.inf)
            said.append(f"The largest gradient {when} has the norm {norms[path]:.3g}, that of `{path}`.")
    return " ".join([*said, "The last checkpoint has the weights from before. Try a smaller --learning-rate."])


def numbers(logs):
    """Tensors of a dict, nested or not, as Python numbers."""
    return {name: float(value) for name, value in logs.items()}
