"""The commands that ask a server: `zoo client` and `zoo verify`."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import socket
import ssl

from zoo._config import did_you_mean
from zoo._run_commands import quiet_start, write_file
from zoo._serve import token_in

_FILE = re.compile(r"\S+\.(png|jpe?g|gif|bmp|wav)", re.IGNORECASE)


def add_client(commands):
    command = commands.add_parser("client", help="ask a server, and print its answer as JSON")
    command.add_argument("url", help="http://127.0.0.1:8501 or https:// for REST, grpc://127.0.0.1:8500 or grpcs://")
    command.add_argument("model")
    command.add_argument(
        "values", nargs="*", metavar="NAME=VALUE", help="image=cat.png text='a red circle' x='[0.5, 1]': a file's "
        "contents where there is one of that name, numbers and lists as JSON; a row, or a list of rows",
    )  # fmt: skip
    command.add_argument("--signature", default="serving_default")
    command.add_argument("--version", type=int, help="of the model (the latest)")
    command.add_argument("--out", default=".", help="folder for the pictures and sounds of an answer (.)")
    _add_connection(command)
    command.set_defaults(run=_client)


def add_verify(commands):
    command = commands.add_parser("verify", help="whether a server answers as the models did when they were exported")
    command.add_argument("url", help="of any server with TensorFlow Serving's API, as for client")
    command.add_argument("--servables", default="servables", help="folder of the exported models (servables)")
    command.add_argument("--tolerance", type=float, default=1e-4, help="largest difference of a number (1e-4)")
    _add_connection(command)
    command.set_defaults(run=_verify)


def _add_connection(command):
    command.add_argument("--timeout", type=float, default=30.0, help="seconds an answer may take (30)")
    command.add_argument("--token-file", metavar="FILE", help="as for serve")
    command.add_argument("--ca", metavar="FILE", help="of the certificates that a server with TLS may show")


@contextlib.contextmanager
def _asking(options):
    """A client of the server, whose faults are told in a line each."""
    with quiet_start():
        from mmkeras import serving
    try:
        with serving.Client(options.url, options.timeout, token_in(options.token_file), options.ca) as client:
            yield client
    except serving.ServingError as error:
        raise ValueError(f"The server at {options.url} said: {error.message}") from None
    except TimeoutError:
        raise ValueError(f"The server at {options.url} did not answer in {options.timeout:g} seconds.") from None
    except (ConnectionError, socket.gaierror, ssl.SSLError, http.client.HTTPException) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise ValueError(f"Nobody known here vouches for {options.url}: say with --ca whom to trust.") from None
        raise ValueError(f"There is no server at {options.url}: {str(error).splitlines()[0]}") from None


def _verify(options):
    largest = 0.0
    with _asking(options) as client:
        from mmkeras.serving import verify

        for model, version, signature, difference in verify(client, options.servables):
            print(f"{model}, version {version}, {signature}: largest difference {difference:.2g}", flush=True)
            largest = max(largest, difference)
    return 0 if largest <= options.tolerance else 1


def _client(options):
    pairs = [pair.partition("=") for pair in options.values]
    for name, equals, value in pairs:
        if not equals:
            raise ValueError(f"Expected NAME=VALUE, such as text='a red circle'. Received: {name + value!r}.")
    given = {name: value for name, _, value in pairs}
    with _asking(options) as client:
        print(json.dumps(_answer(client, given, options), ensure_ascii=False))


def _answer(client, given, options):
    model, key, version = options.model, options.signature, options.version
    signatures = client.signatures(model, version)
    if key not in signatures:
        names = ", ".join(signatures)
        raise ValueError(f"`{model}` has no signature `{key}`.{did_you_mean(key, signatures)} It has: {names}.")
    verb = signatures[key]["method_name"].rpartition("/")[2]
    if verb in ("classify", "regress"):
        example = {name: _feature(text) for name, text in given.items()}
        return getattr(client, verb)(model, [example], key, version)
    inputs = signatures[key]["inputs"]
    for name in given:
        if name not in inputs:
            hint = did_you_mean(name, inputs)
            raise ValueError(f"`{key}` has no input `{name}`.{hint} It has: {', '.join(inputs) or 'none'}.")
    values = {name: _rows(_value(name, text, inputs[name]), inputs[name]) for name, text in given.items()}
    found = client.predict(model, key, version, values)
    return {name: _shown(array.tolist(), _path(options.out, name)) for name, array in found.items()}


def _value(name, text, info):
    """A value as it was written on the command line."""
    if info["dtype"] == "DT_STRING":
        return _text(_listed(text))
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"Expected numbers as JSON, such as {name}='[0.5, 1]'. Received: {text!r}.") from None


def _feature(text):
    try:
        return json.loads(text)
    except ValueError:
        return _text(text)


def _listed(text):
    """The list that a text is in JSON, or the text."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, list) else text


def _text(value):
    """A text, or the path of the file it names; in lists as well."""
    if isinstance(value, list):
        return [_text(item) for item in value]
    if isinstance(value, str) and os.path.isfile(value):
        return pathlib.Path(value)
    if isinstance(value, str) and _FILE.fullmatch(value):
        raise ValueError(f"There is no file {value}.")
    return value


def _rows(value, info):
    """A value with the first dimension, of rows, that one row lacks."""
    rank, depth, inner = len(info["tensor_shape"]["dim"]), 0, value
    while isinstance(inner, list):
        depth, inner = depth + 1, inner[0] if inner else None
    return [value] if depth == rank - 1 else value


def _path(folder, name):
    return pathlib.Path(folder, re.sub(r"[^\w.-]", "_", name.removesuffix("_bytes")))


def _shown(value, path):
    """An answer as JSON; bytes lie in files, whose names it says."""
    if isinstance(value, list):
        return [_shown(item, path.with_name(f"{path.name}-{i}")) for i, item in enumerate(value)]
    return write_file(path, value) if isinstance(value, bytes) else value
