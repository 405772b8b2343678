"""How a client asks over REST."""

import base64
import http.client
import json
import ssl
import urllib.parse

import numpy as np
import tensorflow as tf

from mmkeras.serving import json_text
from mmkeras.serving.errors import HTTP_STATUS, ServingError
from mmkeras.serving.objects import objects

_CODES = {status: code for code, status in reversed(HTTP_STATUS.items())}


class RestTransport:
    """One connection, which is opened again where the server has closed it.

    Args:
        address: `host:port`.
        timeout, token, ca: see `Client`.
        use_tls: whether the server speaks TLS.
    """

    def __init__(self, address, timeout, token, use_tls, ca):
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        if use_tls:
            self._connection = http.client.HTTPSConnection(address, timeout=timeout, context=_trusting(ca))
        else:
            self._connection = http.client.HTTPConnection(address, timeout=timeout)

    def close(self):
        self._connection.close()

    def predict(self, model, version, signature, arrays, types):
        """`{name: array}`, see `Client.predict`.

        Args:
            arrays: `{name: array}` of the inputs.
            types: `{name: tf.DType}` of the outputs.
        """
        inputs = {name: as_json(array) for name, array in arrays.items()}
        found = self._ask("POST", _path(model, version, ":predict"), signature_name=signature, inputs=inputs)["outputs"]
        # The name is left out where there is one output; a single output is never an object of several names.
        if not isinstance(found, dict) or len(found) == 1:
            found = dict.fromkeys(types, found)
        return {name: _as_array(value, types.get(name)) for name, value in found.items()}

    def classify(self, model, version, signature, features):
        results = self._infer(model, version, ":classify", signature, features)
        return [[(label, score) for label, score in row] for row in results]

    def regress(self, model, version, signature, features):
        return self._infer(model, version, ":regress", signature, features)

    def _infer(self, model, version, verb, signature, features):
        examples = [{name: as_json(value) for name, value in one.items()} for one in features]
        path = _path(model, version, verb)
        return self._ask("POST", path, signature_name=signature, examples=examples)["results"]

    def signatures(self, model, version):
        return self._ask("GET", _path(model, version, "/metadata"))["metadata"]["signature_def"]["signature_def"]

    def status(self, model, version):
        return self._ask("GET", _path(model, version))["model_version_status"]

    def _ask(self, method, path, **body):
        answer, said = self._exchange(method, path, json_text.dumps(body) if body else None)
        try:
            found = json.loads(said)
        except ValueError:
            found = {"error": said[:256].decode("utf-8", "replace")}
        if answer.status != 200:
            raise ServingError(_CODES.get(answer.status, "UNKNOWN"), found.get("error", ""))
        return found

    def _exchange(self, method, path, body):
        """(response, its body)."""
        kept = self._connection.sock is not None
        try:
            return self._exchange_once(method, path, body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            if not kept:
                raise
            return self._exchange_once(method, path, body)  # the server had closed a connection that lay idle

    def _exchange_once(self, method, path, body):
        try:
            self._connection.request(method, path, body, self._headers)
            answer = self._connection.getresponse()
            return answer, answer.read()
        except Exception:
            self._connection.close()  # what else would come on it is of no request
            raise


def _trusting(ca):
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ValueError(f"Cannot read the certificates in {ca}: {error.strerror or error}.") from None


def _path(model, version=None, verb=""):
    versions = f"/versions/{version}" if version is not None else ""
    return f"/v1/models/{urllib.parse.quote(model, safe='')}{versions}{verb}"


def as_json(value):
    """A value as JSON has it; arrays of numbers are left to what writes them."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "iufb" and value.ndim:
            return np.ascontiguousarray(value)
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.item() if isinstance(value, np.generic) else value


def _as_array(value, dtype):
    """JSON of an output as an array of its type, a `tf.DType`; None if that is not known."""

    def plain(item):
        if isinstance(item, list):
            return [plain(one) for one in item]
        return base64.b64decode(item["b64"]) if isinstance(item, dict) else item

    value = plain(value)
    if dtype is None:
        array = np.array(value)
        return objects(value) if array.dtype.kind in "SU" else array
    return objects(value) if dtype == tf.string else np.array(value, dtype.as_numpy_dtype)
