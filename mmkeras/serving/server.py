"""The server: REST and gRPC on two ports over the same models."""

import asyncio
import concurrent.futures
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import uvicorn
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from mmkeras.serving.batching import Batcher
from mmkeras.serving.config import Batching
from mmkeras.serving.errors import LARGEST_BODY
from mmkeras.serving.grpc_services import ModelService, PredictionService, TokenAsked
from mmkeras.serving.metrics import Metrics
from mmkeras.serving.models import ModelConfig, Models
from mmkeras.serving.page import pages
from mmkeras.serving.rest import Rest
from mmkeras.serving.servable import run_alone
from mmkeras.serving.warm_up import warm_up

DRAIN_SECONDS = 20.0  # Kubernetes ends what has not stopped after 30
_UPLOAD_SECONDS, _MOST_THREADS = 2.0, 512


class _HttpServer(uvicorn.Server):
    """Uvicorn, which waits as long for the rest of a request as for an answer, when it stops; here, for a moment."""

    async def shutdown(self, sockets=None):
        asyncio.get_running_loop().call_later(_UPLOAD_SECONDS, self.config.app.refuse_uploads)
        await super().shutdown(sockets)


class Server:
    """An embedded server with TensorFlow Serving's APIs.

    Args:
        configs: ModelConfigs, see `mmkeras.serving.config`.
        rest_port, grpc_port: 0 for any that is free; None for none.
        host: address it listens on.
        batching: a Batching; None runs every request by itself.
        poll_seconds: how often new versions are looked for; None for never.
        retries, retry_seconds: see `Models`.
        reload: whether clients may change what is served, over gRPC.
        threads: requests at once on a port, more where they wait for their batch.
        certificate, key: files of a TLS certificate and its key, for both ports.
        token: what clients have to say on both ports, `Authorization: Bearer …`; None for nothing.
        **rest: further options of `Rest`.

    Example:

        server = Server(models_in("servables"))
        server.start()
        ...
        server.stop()
    """

    def __init__(
        self,
        configs: Iterable[ModelConfig],
        rest_port: int | None = 8501,
        grpc_port: int | None = 8500,
        host: str = "127.0.0.1",
        batching: Batching | None = None,
        poll_seconds: float | None = 1.0,
        retries: int = 5,
        retry_seconds: float = 60.0,
        reload: bool = False,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        token: str | None = None,
        threads: int = 16,
        **rest: Any,
    ) -> None:
        if certificate:
            _check_certificate(certificate, key)
        self.models = Models(configs, retries, retry_seconds, warm_up)
        self.metrics = Metrics()
        self.batcher = Batcher(batching) if batching else None
        self.poll_seconds = poll_seconds
        if batching:  # a request that waits for its batch keeps a thread: as many as a batch takes, and the next one
            threads = max(threads, min(2 * batching.most_at_once, _MOST_THREADS))
        runner = self.batcher or run_alone
        self._rest, self._grpc = None, None
        if rest_port is not None:
            rest = {"threads": threads, "pages": pages(self.models, self.metrics), "may_wait": bool(batching), **rest}
            self._app = Rest(self.models, self.metrics, runner, token=token, **rest)
            # Bound here, not in `start`: a port that is taken is told at once, and a free one is known.
            self._socket = _bound(host, rest_port)
            self.rest_port = self._socket.getsockname()[1]
            options: dict[str, Any] = {"ssl_certfile": certificate, "ssl_keyfile": key} if certificate else {}
            # Logging is the program's to set up, not ours.
            self._rest = _HttpServer(
                uvicorn.Config(self._app, log_config=None, access_log=False, lifespan="off", server_header=False,
                               date_header=False, proxy_headers=False, **options)
            )  # fmt: skip
        if grpc_port is not None:
            pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="grpc")
            # 4 MB would be the most otherwise, a few photographs.
            self._grpc = grpc.server(
                pool, interceptors=[] if token is None else [TokenAsked(token)],
                # And a port that another server has would be shared with it.
                options=[("grpc.max_receive_message_length", LARGEST_BODY), ("grpc.so_reuseport", 0)],
            )  # fmt: skip
            prediction = PredictionService(self.models, self.metrics, runner)
            prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, self._grpc)
            self.model_service = ModelService(self.models, self.metrics, reload)
            model_service_pb2_grpc.add_ModelServiceServicer_to_server(self.model_service, self._grpc)
            self.grpc_port = _listen(self._grpc, host, grpc_port, certificate, key)

    def start(self) -> None:
        """Answers from now on, in threads of its own."""
        if self.poll_seconds is not None:
            self.models.watch(self.poll_seconds)
        if self._grpc:
            self._grpc.start()
        if self._rest:
            self._thread = threading.Thread(target=self._rest.run, args=([self._socket],), name="rest", daemon=True)
            self._thread.start()

    def stop(self, seconds: float = DRAIN_SECONDS) -> None:
        """Takes no more requests, answers those it has, for at most so long, and frees the models."""
        end = time.monotonic() + seconds + 1
        ended = self._grpc.stop(seconds) if self._grpc else None
        if self._rest:
            self._rest.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]  # need not be whole
            self._rest.should_exit = True
            self._thread.join(max(end - time.monotonic(), 0))
            self._app.close()
        if ended:
            ended.wait(max(end - time.monotonic(), 0))
        if self.batcher:
            self.batcher.close()
        self.models.close()

    def run(self, started: Callable[[], object] = lambda: None, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Answers until SIGTERM or SIGINT, then stops.

        Args:
            started: called when it answers.
            drain_seconds: see `stop`.
        """
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        self.start()
        started()
        stopping.wait()
        self.stop(drain_seconds)


def _check_certificate(certificate, key):
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        said = error.strerror or error
        raise ValueError(f"Cannot read the certificate {certificate} with the key {key}: {said}.") from None


def _bound(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends answers at once only on a socket that says it is TCP's; others wait 40 ms for the client's nod.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(2048)  # who comes before the first answer can be given waits
    except (OSError, OverflowError) as error:
        bound.close()
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"Cannot listen on {host}:{port}: {why}. Take another --rest-port.") from None
    return bound


def _listen(server, host, port, certificate, key):
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if certificate is None:
            return server.add_insecure_port(address)
        with open(key, "rb") as key_file, open(certificate, "rb") as certificate_file:
            credentials = grpc.ssl_server_credentials([(key_file.read(), certificate_file.read())])
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise ValueError(f"Cannot listen on {address}. Take another --grpc-port.") from None
