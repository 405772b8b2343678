"""A server in this process, asked over HTTP; and versions of a model that appear on disk."""

import contextlib
import http.client
import time

import models as examples
import numpy as np

from mmkeras.serving import Server, config


@contextlib.contextmanager
def running(folder, **options):
    server = Server(config.models_in(folder), 0, **{"grpc_port": None, "poll_seconds": None, **options})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def wait_for(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def ask(server, path, body=b"", method="POST", **headers):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.rest_port)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def versions(folder, *numbers):
    for number in numbers:
        examples.versioned(folder / "new", number)
        (folder / "new").rename(folder / str(number))


def answer(models, name="versioned", version=None):
    """What `versioned` answers: its number."""
    with models.using(name, version) as servable:
        return servable.run("serving_default", {"x": np.zeros(1, "float32")})["y"].item()
