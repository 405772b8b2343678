"""The command `zoo serve`."""

import os
import pathlib
import sys

from zoo._run_commands import quiet_start


def add_serve(commands):
    command = commands.add_parser("serve", help="TensorFlow Serving's REST and gRPC API over exported models")
    command.add_argument("folder", nargs="?", help="of models, as export writes it; the latest version of each")
    command.add_argument("--config", help="TensorFlow Serving's models.config instead of a folder")
    command.add_argument("--rest-port", type=int, default=8501, help="8501; 0 for any that is free")
    command.add_argument("--grpc-port", type=int, default=8500)
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    command.add_argument("--batching", metavar="FILE", help="batching_parameters.txt: requests run together")
    command.add_argument("--monitoring", metavar="FILE", help="monitoring.config: metrics for Prometheus")
    command.add_argument("--poll-seconds", type=float, default=1.0, help="how often new versions are looked for (1)")
    command.add_argument(
        "--load-retries", type=int, default=5, help="a version that cannot be loaded, a minute later (5)"
    )
    command.add_argument("--timeout", type=float, default=30.0, help="seconds a REST request may take (30)")
    command.add_argument("--drain-seconds", type=float, default=20.0, help="longest wait for answers at SIGTERM (20)")
    command.add_argument("--cors", action="store_true", help="pages of any origin may ask")
    command.add_argument("--allow-reload", action="store_true", help="clients may change the models, over gRPC")
    command.add_argument("--certificate", metavar="FILE", help="TLS certificate of both ports")
    command.add_argument("--key", metavar="FILE", help="of the certificate")
    command.add_argument("--token-file", metavar="FILE", help="requests say `Authorization: Bearer` what it holds")
    command.set_defaults(run=_serve)


def token_in(file):
    """What a file of a token holds; None without a file."""
    if file is None:
        return None
    token = pathlib.Path(file).read_text().strip()
    if not token or not token.isascii() or not token.isprintable():
        raise ValueError(f"Expected a token of printable ASCII characters in {file}. Write one, and no more, into it.")
    return token


def _serve(options):
    if bool(options.folder) == bool(options.config):
        raise ValueError("Say what to serve: a folder of models, or --config models.config. Received: "
                         + ("both." if options.folder else "neither."))  # fmt: skip
    if bool(options.certificate) != bool(options.key):
        raise ValueError("TLS takes a --certificate and its --key. Received: one of them.")
    with quiet_start():
        from mmkeras import serving
    try:
        server = _server(options, serving)
    except serving.ServingError as error:
        raise ValueError(f"{options.config or options.folder} cannot be served: {error.message}") from None
    server.run(lambda: _tell(server, options), options.drain_seconds)
    sys.stdout.flush()
    os._exit(0)  # Python would wait for the threads of requests that could not be answered in time


def _tell(server, options):
    """Says what is served where; what is wrong with a version has been logged."""
    scheme = "https" if options.certificate else "http"
    for name in server.models.names:
        for number, one in server.models.status(name) if server.models.knows(name) else ():
            if one.servable:
                url = f"{scheme}://{options.host}:{server.rest_port}/v1/models/{name}"
                print(f"{name}, version {number}: {url}", flush=True)
    for name, why in server.models.without_versions().items():
        print(f"{name}: no version to serve. {why}", flush=True)
    print(f"gRPC: {options.host}:{server.grpc_port}. Stop with Ctrl-C (process {os.getpid()}).", flush=True)


def _server(options, serving):
    configs = serving.read_models(options.config) if options.config else serving.models_in(options.folder)
    return serving.Server(
        configs, options.rest_port, options.grpc_port, options.host,
        batching=serving.read_batching(options.batching) if options.batching else None,
        metrics_path=serving.read_monitoring(options.monitoring) if options.monitoring else None,
        poll_seconds=options.poll_seconds, retries=options.load_retries, timeout=options.timeout, cors=options.cors,
        reload=options.allow_reload, certificate=options.certificate, key=options.key,
        token=token_in(options.token_file),
    )  # fmt: skip
