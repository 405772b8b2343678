"""How a client asks over gRPC."""

import pathlib

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from mmkeras.serving.client_rest import as_json
from mmkeras.serving.errors import ServingError
from mmkeras.serving.examples import read_examples

_ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]  # 4 MB would be the most


class GrpcTransport:
    """A channel and what is asked over it; for the methods see `RestTransport`.

    Args:
        address: `host:port`.
        timeout, token, ca: see `Client`.
        use_tls: whether the server speaks TLS.
    """

    def __init__(self, address, timeout, token, use_tls, ca):
        self._timeout = timeout
        self._metadata = [("authorization", f"Bearer {token}")] if token is not None else []
        if use_tls:
            self._channel = grpc.secure_channel(address, _trusting(ca), _ANY_SIZE)
        else:
            self._channel = grpc.insecure_channel(address, _ANY_SIZE)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self):
        self._channel.close()

    def predict(self, model, version, signature, arrays, types):
        request = predict_pb2.PredictRequest()
        for name, array in arrays.items():
            dtype = tf.string if array.dtype == object else None
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype, array.shape))
        answer = self._ask(self._prediction.Predict, request, model, version, signature)
        return {name: _as_array(name, value) for name, value in answer.outputs.items()}

    def classify(self, model, version, signature, features):
        request = classification_pb2.ClassificationRequest()
        answer = self._infer(self._prediction.Classify, request, model, version, signature, features)
        return [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]

    def regress(self, model, version, signature, features):
        request = regression_pb2.RegressionRequest()
        answer = self._infer(self._prediction.Regress, request, model, version, signature, features)
        return [one.value for one in answer.result.regressions]

    def _infer(self, method, request, model, version, signature, features):
        examples = [{name: _as_lists(as_json(value)) for name, value in one.items()} for one in features]
        for example in read_examples({"examples": examples}):
            request.input.example_list.examples.add().ParseFromString(example)
        return self._ask(method, request, model, version, signature)

    def signatures(self, model, version):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        answer = self._ask(self._prediction.GetModelMetadata, request, model, version)
        found = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        return _as_dict(found).get("signature_def", {})

    def status(self, model, version):
        answer = self._ask(self._models.GetModelStatus, get_model_status_pb2.GetModelStatusRequest(), model, version)
        return [
            {**one, "status": {"error_code": "OK", "error_message": "", **one.get("status", {})}}
            for one in _as_dict(answer)["model_version_status"]
        ]

    def _ask(self, method, request, model, version, signature=""):
        spec = request.model_spec
        spec.name, spec.signature_name = model, signature
        if version is not None:
            spec.version.value = version
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            code, said = error.code().name, error.details() or ""
        if code == "UNAVAILABLE" and "failed to connect" in said:  # gRPC's words, no server's
            raise ConnectionError(said)
        raise ServingError(code, said)


def _trusting(ca):
    try:
        return grpc.ssl_channel_credentials(pathlib.Path(ca).read_bytes() if ca is not None else None)
    except OSError as error:
        raise ValueError(f"Cannot read the certificates in {ca}: {error.strerror or error}.") from None


def _as_lists(value):
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _as_dict(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _as_array(name, message):
    """An output; as over REST its strings are texts, unless it is called `…_bytes` or they are none."""
    array = tf.make_ndarray(message)
    if array.dtype != object or name.endswith("_bytes"):
        return array
    try:
        return np.vectorize(lambda value: value.decode("utf-8"), otypes=[object])(array)
    except UnicodeDecodeError:
        return array
