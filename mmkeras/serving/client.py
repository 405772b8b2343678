"""A client of any server with TensorFlow Serving's API, over REST or gRPC."""

import base64
import http.client
import json
import pathlib
import urllib.parse

import numpy as np

from mmkeras.serving.errors import HTTP_STATUS, ServingError


class Client:
    """Asks a server.

    Args:
        url: `http://host:port` for REST, `grpc://host:port` for gRPC.
        timeout: seconds until an answer has to be there.
        token: said as `Authorization: Bearer …`, REST only.

    Example:

        client = Client("http://127.0.0.1:8501")
        client.predict("fusion_classifier", photo=[pathlib.Path("boot.png")], title=["red boots"])["label"]
    """

    def __init__(self, url="http://127.0.0.1:8501", timeout=30.0, token=None):
        self.address = urllib.parse.urlsplit(url)
        if self.address.scheme not in ("http", "https", "grpc") or not self.address.netloc:
            raise ValueError(
                f"Expected a URL such as http://127.0.0.1:8501 or grpc://127.0.0.1:8500. Received: {url!r}."
            )
        self.timeout, self.token = timeout, token
        self._connection, self._stub, self._channel = None, None, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the connection."""
        for one in (self._connection, self._channel):
            if one is not None:
                one.close()
        self._connection, self._stub, self._channel = None, None, None

    def predict(self, model, signature="serving_default", version=None, **inputs):
        """The outputs of a signature, `{name: array}`.

        Args:
            model: its name.
            signature: of the model.
            version: a number, or None for the latest.
            **inputs: a list or array a name; a `pathlib.Path` stands for the contents of its file.

        Raises:
            ServingError: what the server said.
            OSError: if there is no server.
        """
        inputs = {name: _read(value) for name, value in inputs.items()}
        if self.address.scheme == "grpc":
            return self._predict_by_grpc(model, signature, version, inputs)
        body = {"signature_name": signature, "inputs": {name: _as_json(value) for name, value in inputs.items()}}
        outputs = self.post(_path(model, version, "predict"), body)["outputs"]
        names = list(self.signatures(model, version)[signature]["outputs"])
        outputs = outputs if len(names) > 1 else {names[0]: outputs}
        return {name: _as_array(value) for name, value in outputs.items()}

    def classify(self, model, examples, signature="classify", version=None):
        """`[[(label, score), …], …]`, a list an example, the best first.

        Args:
            model, signature, version: see `predict`.
            examples: list of `{feature: value}`.
        """
        given = [{name: _as_json(_read(value)) for name, value in example.items()} for example in examples]
        body = {"signature_name": signature, "examples": given}
        results = self.post(_path(model, version, "classify"), body)["results"]
        return [[tuple(pair) for pair in row] for row in results]

    def signatures(self, model, version=None):
        """The signatures of a model, as its metadata tell them."""
        return self.get(_path(model, version, "metadata"))["metadata"]["signature_def"]["signature_def"]

    def status(self, model):
        """The states of a model's versions."""
        return self.get(_path(model))["model_version_status"]

    def get(self, path):
        """The JSON answer to a GET request."""
        return self._ask("GET", path, None)

    def post(self, path, body):
        """The JSON answer to a POST request of JSON."""
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method, path, body):
        if self.address.scheme == "grpc":
            raise ValueError(f"Expected a client of REST, http://…, for {path}. Received: {self.address.geturl()}.")
        kind = http.client.HTTPSConnection if self.address.scheme == "https" else http.client.HTTPConnection
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        for attempt in range(2):
            try:
                self._connection = self._connection or kind(self.address.netloc, timeout=self.timeout)
                self._connection.request(method, path, body, headers)
                answer = self._connection.getresponse()
                said = answer.read()
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.close()  # the server has closed a connection that lay idle
                if attempt:
                    raise
        try:
            found = json.loads(said)
        except ValueError:
            found = {"error": said[:256].decode("utf-8", "replace")}
        if answer.status != 200:
            codes = {status: code for code, status in reversed(HTTP_STATUS.items())}
            raise ServingError(codes.get(answer.status, "UNKNOWN"), found.get("error", ""))
        return found

    def _predict_by_grpc(self, model, signature, version, inputs):
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        if self._stub is None:
            self._channel = grpc.insecure_channel(self.address.netloc)
            self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        if version is not None:
            request.model_spec.version.value = version
        for name, value in inputs.items():
            array = np.asarray(value)
            if array.dtype == "float64" and not isinstance(value, np.ndarray):  # what Python calls a float
                array = array.astype("float32")
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value if array.dtype.kind in "OSU" else array))
        try:
            answer = self._stub.Predict(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise ServingError(error.code().name, error.details()) from None
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}


def _path(model, version=None, verb=None):
    path = f"/v1/models/{urllib.parse.quote(model, safe='')}" + (f"/versions/{version}" if version is not None else "")
    return path + {None: "", "metadata": "/metadata"}.get(verb, f":{verb}")


def _read(value):
    """A value with the contents of files in the place of their paths."""
    if isinstance(value, pathlib.Path):
        return value.read_bytes()
    return [_read(item) for item in value] if isinstance(value, (list, tuple)) else value


def _as_json(value):
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.item() if isinstance(value, np.generic) else value


def _as_array(value):
    """JSON of an output as an array; texts and bytes as objects."""

    def plain(item):
        if isinstance(item, list):
            return [plain(one) for one in item]
        return base64.b64decode(item["b64"]) if isinstance(item, dict) else item

    array = np.array(plain(value))
    return array.astype(object) if array.dtype.kind in "SU" else array
