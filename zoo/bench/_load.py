"""A load generator: clients that ask a server over HTTP, each answer timed and looked at."""

import asyncio
import dataclasses
import itertools
import time

import httptools
import numpy as np


@dataclasses.dataclass
class Load:
    """What clients saw.

    Args:
        seconds: how long they asked.
        times: seconds from a request, or the moment it was due, to its answer, one an answer.
        errors: answers of another status than 200, and connections that broke.
        wrong: answers with other numbers or texts than expected.
    """

    seconds: float
    times: list
    errors: int = 0
    wrong: int = 0

    def figures(self):
        """`requests_per_second`, `p50` and `p99` in milliseconds, `errors`, `wrong`."""
        p50, p99 = np.percentile(self.times, [50, 99]) * 1000 if self.times else (np.nan, np.nan)
        return {
            "requests_per_second": len(self.times) / self.seconds,
            "p50": float(p50),
            "p99": float(p99),
            "errors": self.errors,
            "wrong": self.wrong,
        }


class _Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport):
        self.transport, self.answer = transport, None

    def ask(self, request):
        """A future of (status, body)."""
        if self.transport.is_closing():  # while it was idle
            raise ConnectionError("The server has hung up.")
        self.answer, self.body = asyncio.get_running_loop().create_future(), []
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(request)
        return self.answer

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, body):
        self.body.append(body)

    def on_message_complete(self):
        if not self.answer.done():
            self.answer.set_result((self.parser.get_status_code(), b"".join(self.body)))

    def connection_lost(self, error):
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError("The server has hung up."))


def request(port, path, body):
    """The bytes of a POST of JSON to this machine."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def closed_loop(port, requests, is_right, clients, seconds, warm_up=1.0):
    """Each of so many clients asks again as soon as it has its answer.

    Args:
        port: of the server on this machine.
        requests: bytes, asked in turn.
        is_right: function of the number of a request and the body of its answer.
        clients: how many.
        seconds: how long.
        warm_up: seconds before these that do not count.

    Returns:
        A Load.
    """

    numbers = itertools.count()

    async def client(found, ends):
        protocol = await _connected(port)
        while time.perf_counter() < ends:
            at = next(numbers) % len(requests)
            protocol = await _asked(protocol, port, requests, at, is_right, found, time.perf_counter())
        protocol.transport.close()

    async def run(seconds):
        found, began = Load(seconds, []), time.perf_counter()
        await asyncio.gather(*(client(found, began + seconds) for _ in range(clients)))
        found.seconds = time.perf_counter() - began
        return found

    if warm_up:
        _run(run(warm_up))
    return _run(run(seconds))


def open_loop(port, requests, is_right, rate, seconds):
    """Requests at a fixed rate, whether answers come or not; their times count from when they were due.

    Args:
        rate: requests a second.
        port, requests, is_right, seconds: see `closed_loop`.

    Returns:
        A Load.
    """

    async def run():
        found, idle, tasks = Load(seconds, []), [], []

        async def one(number, due):
            protocol = idle.pop() if idle else await _connected(port)
            idle.append(await _asked(protocol, port, requests, number % len(requests), is_right, found, due))

        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            while (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(max(early - 0.002, 0))  # a timer wakes up to a millisecond late
            tasks.append(asyncio.create_task(one(number, due)))
        await asyncio.gather(*tasks)
        found.seconds = time.perf_counter() - began
        for protocol in idle:
            protocol.transport.close()
        return found

    return _run(run())


def _run(work):
    """`asyncio.run`, by uvloop where it is there: the clients take cores from the server they ask."""
    try:
        import uvloop
    except ImportError:  # on Windows
        return asyncio.run(work)
    return uvloop.run(work)


async def _connected(port):
    _, protocol = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    return protocol


async def _asked(protocol, port, requests, at, is_right, found, began):
    """Asks, notes what came, and returns the connection, or another where it broke."""
    try:
        status, body = await protocol.ask(requests[at])
    except ConnectionError:
        found.errors += 1
        return await _connected(port)
    if status == 200:
        found.times.append(time.perf_counter() - began)
        found.wrong += not is_right(at, body)
    else:
        found.errors += 1
    return protocol
