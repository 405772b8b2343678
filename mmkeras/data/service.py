"""Input workers: processes that read, decode and augment batches for one that trains (tf.data service, Audibert 2023).

Workers answer in any order; here the batches come in their own.
"""

import contextlib
import socket
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.data.experimental import service

from mmkeras.data.source import DataError

LOST = "A batch was lost by the input workers at"


@contextlib.contextmanager
def input_workers(port: int = 0, workers: int = 2, join: str | None = None, host: str = "localhost") -> Iterator[str]:
    """A dispatcher of batches and workers for it, within this process, while the block lasts; gives its address.

    Args:
        port: that the dispatcher listens on; any that is free if 0.
        workers: how many.
        join: address `"host:port"` of a dispatcher in another process, that these workers work for instead.
        host: name of this machine by which trainings on others reach its workers.

    Raises:
        DataError: if nobody listens at `join`.
    """
    dispatcher = None
    if join is None:
        dispatcher = service.DispatchServer(service.DispatcherConfig(port=port))
        join = f"{host}:{dispatcher.target.rpartition(':')[2]}"
    check_reached(join)
    options = service.WorkerConfig(dispatcher_address=join, worker_address=f"{host}:%port%")
    running = [service.WorkerServer(options) for _ in range(workers)]
    try:
        yield join
    finally:
        for worker in running:
            worker.stop()
        if dispatcher is not None:
            dispatcher._stop()


def check_reached(address: str, seconds: float = 5.0) -> None:
    """Raises DataError if nobody listens at an address: TensorFlow would try for an hour."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), seconds).close()
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(
            f"No input workers can be reached at {address!r} ({error}). Expected HOST:PORT of a `zoo data serve`."
        ) from None


def by_workers(dataset, numbers, address):
    """The elements of a dataset, worked out by the workers of a dispatcher, in their order.

    Args:
        dataset: of `(number, element)`, its source the only one it has: each element goes to one of the workers.
        numbers: those of the elements, in the order in which they are wanted.
        address: `"host:port"` of the dispatcher. Files that the dataset reads lie where the workers see them.

    Returns:
        A `tf.data.Dataset` of the elements.

    Raises:
        DataError: if nobody listens at the address. When a worker ends with a batch, the dataset does with an error
            that holds `LOST`.
    """
    check_reached(address)
    policy = service.ShardingPolicy.DYNAMIC
    far = dataset.apply(service.distribute(policy, f"grpc://{address}"))

    def in_order():
        early, wanted = {}, iter(numbers)
        number = next(wanted, None)
        for came, element in far:
            early[int(came)] = element
            while number in early:
                yield early.pop(number)
                number = next(wanted, None)
        if number is not None:
            raise RuntimeError(f"{LOST} {address}")

    signature = dataset.element_spec[1]
    ordered = tf.data.Dataset.from_generator(in_order, output_signature=signature)
    return ordered.apply(tf.data.experimental.assert_cardinality(len(numbers))).prefetch(2)
