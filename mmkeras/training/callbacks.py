"""What happens during training besides training: checkpoints, and stopping early or when the process is told to."""

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

import keras


class Stopped(KeyboardInterrupt):
    """Training was stopped by a signal, after a checkpoint; `code` is what a shell calls such an end."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


class Checkpoints(keras.callbacks.Callback):
    """Saves a checkpoint after every epoch, within one when some time has passed, and when the process is to stop.

    Args:
        save: function of (epochs done, steps done of the next one).
        after_epoch: function of (epochs done, logs), called before that epoch's checkpoint.
        seconds: between two checkpoints within an epoch; 0 for one after every step.
        chief: whether this process is the one that saves. Another that is told to stop goes on until the chief, which
            is told so as well, has saved and ended: if it left first, the chief would wait for it in its next step.
        whole: whether a checkpoint within an epoch holds what the metrics have counted. Without that, a signal that
            comes in the epoch's last step waits until it is validated.

    Raises:
        Stopped: within `stopping`, when SIGTERM or SIGINT (Ctrl-C) has come, after the checkpoint.
        OSError: if the disk is full; the checkpoints that are there stay.
    """

    def __init__(
        self,
        save: Callable[[int, int], object],
        after_epoch: Callable[[int, dict[str, float]], object],
        seconds: float = 60.0,
        chief: bool = True,
        whole: bool = True,
    ) -> None:
        super().__init__()
        self.save = save
        self.after_epoch = after_epoch
        self.seconds = seconds
        self.chief = chief
        self.whole = whole
        self.signal: int = 0  # none has come yet
        self.epoch = 0
        self.last = -float("inf")  # the first step is kept: a run that was killed never begins from nothing

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """A block in which SIGTERM and SIGINT stop training after its step; a second one stops it at once."""
        if threading.current_thread() is not threading.main_thread():  # others cannot listen to signals
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore():
            for number, handler in before.items():
                signal.signal(number, handler)

        def stop(number, frame):
            self.signal = number
            restore()

        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            restore()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, step, logs=None):
        last_step = step + 1 == self.params.get("steps")
        due = time.monotonic() - self.last >= self.seconds
        if (due and not last_step) or (self.signal and (self.whole or not last_step)):
            self._save(self.epoch, step + 1)

    def on_epoch_end(self, epoch, logs=None):
        with telling_full_disk():
            self.after_epoch(epoch + 1, dict(logs or {}))
        self._save(epoch + 1, 0)

    def _save(self, epoch, step):
        with telling_full_disk():
            self.save(epoch, step)
        self.last = time.monotonic()
        if self.signal and self.chief:
            self.stop(f"epoch {epoch + 1}, step {step}" if step else f"epoch {epoch}")

    def stop(self, where: str) -> NoReturn:
        """Raises Stopped."""
        name = signal.Signals(self.signal).name
        raise Stopped(f"stopped by {name} after {where}; --resume goes on from there", self.signal)


@contextlib.contextmanager
def telling_full_disk() -> Iterator[None]:
    """A block in which a full disk is told as what it means for the training that writes to it."""
    try:
        yield
    except Exception as error:  # TensorFlow, which writes the logs, has errors of its own
        full = os.strerror(errno.ENOSPC) in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full:
            raise
        raise OSError(
            "The disk is full. The checkpoints that are there are whole: make room and go on with --resume, or, "
            "where there is none, begin again."
        ) from None


class Patience(keras.callbacks.Callback):
    """Ends training when the validation loss has not become smaller for some epochs.

    Keras' EarlyStopping counts from zero in a training that is resumed.

    Args:
        epochs: how many.
        losses: the validation losses of the epochs that are done.
    """

    def __init__(self, epochs: int, losses: Iterable[float] = ()) -> None:
        super().__init__()
        self.epochs = epochs
        self.losses = list(losses)

    def on_train_begin(self, logs=None):
        since = len(self.losses) - 1 - self.losses.index(min(self.losses)) if self.losses else 0
        if since >= self.epochs:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["val_loss"])
        self.on_train_begin()
