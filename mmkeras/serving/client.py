"""A client of any server with TensorFlow Serving's API, over REST or gRPC."""

import pathlib
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from mmkeras.serving.client_grpc import GrpcTransport
from mmkeras.serving.client_rest import RestTransport
from mmkeras.serving.objects import objects

_TRANSPORTS: dict[str, type[RestTransport] | type[GrpcTransport]] = {
    "http": RestTransport,
    "https": RestTransport,
    "grpc": GrpcTransport,
    "grpcs": GrpcTransport,
}


class Client:
    """Asks a server; what it takes and gives is the same over REST and gRPC.

    Args:
        url: `http://host:port` or `https://host:port` for REST, `grpc://host:port` or `grpcs://host:port` for gRPC.
        timeout: seconds until an answer has to be there.
        token: said as `Authorization: Bearer …`.
        ca: file of the certificates that a server with TLS may show, such as its own; those of the system if None.

    Raises:
        ValueError: if the URL is none of these, or the certificates cannot be read.

    Example:

        with Client("http://127.0.0.1:8501") as client:
            client.predict("fusion_classifier", photo=[pathlib.Path("boot.png")], title=["red boots"])["label"]
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8501",
        timeout: float = 30.0,
        token: str | None = None,
        ca: str | pathlib.Path | None = None,
    ) -> None:
        address = urllib.parse.urlsplit(url)
        if address.scheme not in _TRANSPORTS or not address.netloc:
            raise ValueError(
                f"Expected a URL such as http://127.0.0.1:8501 or grpc://127.0.0.1:8500. Received: {url!r}."
            )
        use_tls = address.scheme in ("https", "grpcs")
        if ca is not None and not use_tls:
            raise ValueError(f"Certificates are of https:// and grpcs://. Received: {url!r}, with ca={str(ca)!r}.")
        self._transport = _TRANSPORTS[address.scheme](address.netloc, timeout, token, use_tls, ca)
        self._signatures: dict[tuple[str, int | None], dict[str, Any]] = {}

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def predict(
        self,
        model: str,
        signature: str = "serving_default",
        version: int | None = None,
        inputs: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature, `{name: array}`: texts as `str`, what is called `…_bytes` as `bytes`.

        The signatures of a model are asked for once: where a new version has other ones, make a new client.

        Args:
            model: its name.
            signature: of the model.
            version: a number, or None for the latest.
            inputs: `{name: value}`, for inputs that are called as an argument is.
            **named: the same by keywords. A value is a number, a text, bytes, or a list or array of them; a
                `pathlib.Path` stands for the contents of its file.

        Raises:
            ServingError: what the server said.
            ValueError: if a value cannot be sent as its input's type.
            OSError: if there is no server.

        Example:

            client.predict("half_plus_two", x=[[1.0], [2.0]])  # {"y": array([[2.5], [3. ]], dtype=float32)}
            client.predict("shop", inputs={"model": ["T"], "version": [3]})
        """
        described = self._signature(model, version, signature)
        types = _types(described["inputs"])
        given = {**_mapping(inputs), **named}
        arrays = {name: _sent(name, _read(value), types.get(name)) for name, value in given.items()}
        return self._transport.predict(model, version, signature, arrays, _types(described["outputs"]))

    def classify(
        self,
        model: str,
        examples: Iterable[Mapping[str, Any]],
        signature: str = "classify",
        version: int | None = None,
    ) -> list[list[tuple[str, float]]]:
        """`[[(label, score), …], …]`, a list an example, in the model's order.

        Args:
            model, signature, version: see `predict`.
            examples: `{feature: value or list of values}` each.

        Raises:
            ServingError, OSError: see `predict`.

        Example:

            client.classify("fusion_classifier", [{"photo": pathlib.Path("boot.png"), "title": "red boots"}])
        """
        return self._transport.classify(model, version, signature, _features(examples))

    def regress(
        self,
        model: str,
        examples: Iterable[Mapping[str, Any]],
        signature: str = "serving_default",
        version: int | None = None,
    ) -> list[float]:
        """A number an example; for the arguments see `classify`.

        Example:

            client.regress("half_plus_two", [{"x": 1.0}], "regress_x_to_y")  # [2.5]
        """
        return self._transport.regress(model, version, signature, _features(examples))

    def signatures(self, model: str, version: int | None = None) -> dict[str, Any]:
        """The signatures of a model, `{name: {"inputs": …, "outputs": …, "method_name": …}}`, as its metadata tell.

        Example:

            list(client.signatures("half_plus_two")["serving_default"]["inputs"])  # ["x"]
        """
        return self._transport.signatures(model, version)

    def status(self, model: str, version: int | None = None) -> list[dict[str, Any]]:
        """The states of a model's versions, the newest first.

        Example:

            client.status("half_plus_two")[0]["state"]  # "AVAILABLE"
        """
        return self._transport.status(model, version)

    def _signature(self, model: str, version: int | None, signature: str) -> dict[str, Any]:
        """A signature, asked for once; one without inputs if there is none, which the server is to say."""
        if signature not in self._signatures.get((model, version), ()):
            self._signatures[model, version] = self.signatures(model, version)
        return {"inputs": {}, "outputs": {}, **self._signatures[model, version].get(signature, {})}


def _mapping(inputs: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if inputs is not None and not isinstance(inputs, Mapping):
        raise ValueError(
            f"Expected inputs to be {{name: value}}. Received: {type(inputs).__name__}. An input that is itself called "
            "so is given as inputs={'inputs': value}."
        )
    return inputs or {}


def _types(infos: Mapping[str, Any]) -> dict[str, tf.DType]:
    """`{name: tf.DType}` of inputs or outputs in metadata."""
    return {name: tf.dtypes.as_dtype(types_pb2.DataType.Value(info["dtype"])) for name, info in infos.items()}


def _read(value: Any) -> Any:
    """A value with the contents of files in the place of their paths."""
    if isinstance(value, pathlib.Path):
        return value.read_bytes()
    return [_read(item) for item in value] if isinstance(value, (list, tuple)) else value


def _features(examples: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: _read(value) for name, value in example.items()} for example in examples]


def _sent(name: str, value: Any, dtype: tf.DType | None) -> np.ndarray:
    """An input as an array of its type, where its numbers have one in it; the server says so of others."""
    try:
        array = _array(value)
    except ValueError:
        raise ValueError(f"Expected a value of one shape for `{name}`. Received lists of different lengths.") from None
    if dtype is None or (array.size and (dtype == tf.string or array.dtype == object)):
        return array
    if not array.size or (dtype.is_floating and array.dtype.kind in "iuf"):
        return array.astype(dtype.as_numpy_dtype)
    if dtype.is_integer and array.dtype.kind in "iu":
        if not dtype.min <= int(array.min()) or not int(array.max()) <= dtype.max:
            raise ValueError(
                f"Expected numbers from {dtype.min} to {dtype.max} for `{name}`, which is {dtype.name}. Received "
                f"numbers from {array.min()} to {array.max()}."
            )
        return array.astype(dtype.as_numpy_dtype)
    return array


def _array(value: Any) -> np.ndarray:
    leaf = value
    while isinstance(leaf, (list, tuple)) and leaf:
        leaf = leaf[0]
    if isinstance(leaf, (str, bytes)):
        return objects(value)
    array = np.asarray(value)
    return objects(array.tolist()) if array.dtype.kind in "OSU" else array
