"""Requests that come at the same time run as one batch."""

import collections
import concurrent.futures
import threading
import time

import numpy as np

from mmkeras.serving.errors import ServingError, invalid


class Task:
    """A request that waits for its turn: what it feeds, how many rows, its patience, and its answer to be."""

    def __init__(self, feeds, rows, timeout_ms=None):
        self.feeds, self.rows, self.timeout_ms, self.came = feeds, rows, timeout_ms, time.monotonic()
        self.answer = concurrent.futures.Future()


class Batcher:
    """Runs signatures as `Servable.run` does, several requests at once.

    Requests go together if they ask the same signature for the same outputs with rows of the same shapes, and the
    servable may batch. A batch begins when it is full or its oldest request has waited long enough, and is filled up
    to an allowed size by repeating its first row; a request that is larger than a batch runs in several. Where a batch
    fails its requests run one by one, so that each fails for itself alone.

    Args:
        batching: a Batching.
    """

    def __init__(self, batching):
        self.batching = batching
        self._queues = collections.OrderedDict()  # (servable, signature, outputs, shapes): tasks, the oldest first
        self._changed = threading.Condition()
        self._closed = False
        for i in range(batching.num_batch_threads):
            threading.Thread(target=self._work, name=f"batch {i}", daemon=True).start()

    def __call__(self, servable, key, feeds, outputs=None, timeout_ms=None):
        """The outputs, see `Servable.run`."""
        sizes = {len(array) if np.ndim(array) else None for array in feeds.values()}
        # Rows that cannot be put beside others run alone.
        if not servable.may_batch or len(sizes) != 1 or None in sizes or 0 in sizes:
            return servable.run(key, feeds, outputs, timeout_ms)
        task = Task(feeds, sizes.pop(), timeout_ms)
        if task.rows > self.batching.max_batch_size:
            raise invalid(
                f"Task size {task.rows} is larger than maximum input batch size {self.batching.max_batch_size}"
            )
        kinds = tuple((name, array.shape[1:], array.dtype.str) for name, array in sorted(feeds.items()))
        self._enqueue((servable, key, tuple(outputs or ()), kinds), task)
        try:
            return task.answer.result(None if timeout_ms is None else timeout_ms / 1000)
        except concurrent.futures.TimeoutError:
            task.answer.cancel()
            raise ServingError("DEADLINE_EXCEEDED", "Timed out waiting for its batch.") from None

    def _enqueue(self, kind, task):
        most = self.batching.max_enqueued_batches * self.batching.max_batch_size
        with self._changed:
            queue = self._queues.setdefault(kind, collections.deque())
            if sum(one.rows for one in queue) + task.rows > most:
                raise ServingError("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full")
            queue.append(task)
            self._changed.notify()

    def close(self):
        """Ends its threads when no request waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self):
        while True:
            with self._changed:
                found = self._ready()
                while found is None:
                    if self._closed and not self._queues:
                        return
                    self._changed.wait(self._patience())
                    found = self._ready()
            self._run(*found)

    def _ready(self):
        """(kind, tasks) of a batch that may begin, taken from its queue; or None."""
        for kind, queue in self._queues.items():
            rows = sum(task.rows for task in queue)
            waited = (time.monotonic() - queue[0].came) * 1e6
            if self._closed or rows >= self.batching.most_at_once or waited >= self.batching.batch_timeout_micros:
                tasks, rows = [], 0
                while queue and (not tasks or rows + queue[0].rows <= self.batching.most_at_once):
                    tasks.append(queue.popleft())
                    rows += tasks[-1].rows
                del self._queues[kind]
                if queue:
                    self._queues[kind] = queue  # behind the others
                return kind, tasks
        return None

    def _patience(self):
        """Seconds until the oldest request has waited long enough; None where none waits."""
        oldest = min((queue[0].came for queue in self._queues.values()), default=None)
        if oldest is None:
            return None
        return max(oldest + self.batching.batch_timeout_micros / 1e6 - time.monotonic(), 0)

    def _run(self, kind, tasks):
        servable, key, outputs, _ = kind
        tasks = [task for task in tasks if task.answer.set_running_or_notify_cancel()]
        try:
            answers = self._answers(servable, key, outputs or None, tasks)
        except ServingError as error:
            if len(tasks) == 1:
                tasks[0].answer.set_exception(error)
                return
            answers = [self._alone(servable, key, outputs or None, task) for task in tasks]
        except Exception as error:  # whoever waits must hear of it
            answers = [error] * len(tasks)
        for task, answer in zip(tasks, answers, strict=True):
            (task.answer.set_exception if isinstance(answer, Exception) else task.answer.set_result)(answer)

    def _answers(self, servable, key, outputs, tasks):
        if not tasks:
            return []
        feeds = {name: _joined([task.feeds[name] for task in tasks]) for name in tasks[0].feeds}
        patience = [task.timeout_ms for task in tasks]
        timeout_ms = None if None in patience else max(patience)
        rows, most = sum(task.rows for task in tasks), self.batching.most_at_once
        found = []
        for start in range(0, rows, most):
            part = {name: array[start : start + most] for name, array in feeds.items()}
            found.append(self._batch(servable, key, outputs, part, timeout_ms))
            if len(tasks) > 1 or rows > most:
                _check_rows(found[-1], min(most, rows - start))
        if len(tasks) == 1 and rows <= most:
            return found
        found = {name: _joined([one[name] for one in found]) for name in found[0]}
        ends = np.cumsum([task.rows for task in tasks])
        return [
            {name: array[end - task.rows : end] for name, array in found.items()}
            for task, end in zip(tasks, ends, strict=True)
        ]

    def _batch(self, servable, key, outputs, feeds, timeout_ms):
        """The outputs of one run, filled up to an allowed size."""
        rows = len(next(iter(feeds.values())))
        padding = next((size for size in self.batching.allowed_batch_sizes if size >= rows), rows) - rows
        if not padding:
            return servable.run(key, feeds, outputs, timeout_ms)
        feeds = {name: np.concatenate([array, np.repeat(array[:1], padding, 0)]) for name, array in feeds.items()}
        found = servable.run(key, feeds, outputs, timeout_ms)
        _check_rows(found, rows + padding)
        return {name: array[:rows] for name, array in found.items()}

    def _alone(self, servable, key, outputs, task):
        try:
            return servable.run(key, task.feeds, outputs, task.timeout_ms)
        except ServingError as error:
            return error


def _joined(arrays):
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


def _check_rows(outputs, rows):
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            raise ServingError(
                "FAILED_PRECONDITION",
                f"Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                f"input tensors: {name}",
            )
