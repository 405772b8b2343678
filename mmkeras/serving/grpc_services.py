"""TensorFlow Serving's gRPC services: PredictionService and ModelService."""

import functools
import hmac
import math
import time

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import any_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from mmkeras.serving import config, examples
from mmkeras.serving.errors import HTTP_STATUS, LARGEST_BODY, ServingError, echoed, invalid, unexpected
from mmkeras.serving.servable import CLASSIFY, REGRESS

_LONGEST = 1024  # bytes of an error's text
_CODES = {name: getattr(grpc.StatusCode, name) for name in HTTP_STATUS}


def _answering(method):
    """A method of a service, its ServingErrors told as gRPC's, its time noted."""

    @functools.wraps(method)
    def call(self, request, context):
        began, status = time.monotonic(), "OK"
        try:
            return method(self, request, context)
        except Exception as error:
            failed = error if isinstance(error, ServingError) else unexpected(error)
            status = failed.code
        finally:
            name = getattr(getattr(request, "model_spec", None), "name", "")
            known = name if name in self.models.names else ""
            self.metrics.request(known, method.__name__, status, (time.monotonic() - began) * 1e6)
        context.abort(_CODES[status], echoed(failed.message, _LONGEST))

    return call


class TokenAsked(grpc.ServerInterceptor):
    """Refuses calls whose metadata do not say `authorization: Bearer TOKEN`.

    Args:
        token: what they have to say.
    """

    def __init__(self, token):
        self._expected = f"Bearer {token}".encode()
        self._refusal = grpc.unary_unary_rpc_method_handler(_refuse)

    def intercept_service(self, continuation, handler_call_details):
        given = dict(handler_call_details.invocation_metadata).get("authorization", "")
        if hmac.compare_digest(given.encode(), self._expected):
            return continuation(handler_call_details)
        return self._refusal


def _refuse(request, context):
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "Expected the metadata authorization: Bearer TOKEN.")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference, GetModelMetadata.

    Args:
        models, metrics, runner: see `mmkeras.serving.rest.Rest`.
    """

    def __init__(self, models, metrics, runner):
        self.models, self.metrics, self._runner = models, metrics, runner

    @_answering
    def Predict(self, request, context):
        with self._using(request) as servable:
            key = request.model_spec.signature_name or "serving_default"
            signature = servable.signature(key)
            if signature is None:
                raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{echoed(key)}" not found.')
            feeds = _feeds(request.inputs, signature)
            for alias in request.output_filter:
                if alias not in signature.outputs:
                    raise invalid(f"output tensor alias not found in signature: {echoed(alias)} Outputs expected to be "
                                  f"in the set {{{','.join(signature.outputs)}}}.")  # fmt: skip
            run = self.metrics.timed(self._runner, "Predict")
            outputs = run(servable, key, feeds, list(request.output_filter) or None, _timeout(context))
            answer = predict_pb2.PredictResponse()
            _describe(answer.model_spec, servable, key)
            for alias, array in outputs.items():
                answer.outputs[alias].CopyFrom(_tensor(array))
            return answer

    @_answering
    def Classify(self, request, context):
        answer = classification_pb2.ClassificationResponse()
        self._classify(request, request.input, context, answer.model_spec, answer.result)
        return answer

    @_answering
    def Regress(self, request, context):
        answer = regression_pb2.RegressionResponse()
        self._regress(request, request.input, context, answer.model_spec, answer.result)
        return answer

    @_answering
    def MultiInference(self, request, context):
        names = list(dict.fromkeys(task.model_spec.name for task in request.tasks))
        if len(names) > 1:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name. Expected "
                f"{echoed(names[0], 128)}, but got {echoed(names[1], 128)}"
            )
        if not request.tasks:
            raise invalid("Inference task list is empty")
        answer = inference_pb2.MultiInferenceResponse()
        signatures = [task.model_spec.signature_name for task in request.tasks]
        if len(set(signatures)) < len(signatures):
            raise invalid(f"Duplicate evaluation of signature: {echoed(max(signatures, key=signatures.count))}")
        for task in request.tasks:
            result = answer.results.add()
            if task.method_name == CLASSIFY:
                self._classify(task, request.input, context, result.model_spec, result.classification_result)
            elif task.method_name == REGRESS:
                self._regress(task, request.input, context, result.model_spec, result.regression_result)
            else:
                message = f"Unsupported signature method_name: {echoed(task.method_name)}"
                raise ServingError("UNIMPLEMENTED", message)
        return answer

    @_answering
    def GetModelMetadata(self, request, context):
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {echoed(field)} is not supported")
        with self._using(request) as servable:
            found = get_model_metadata_pb2.SignatureDefMap()
            for key, signature in servable.meta_graph.signature_def.items():
                found.signature_def[key].CopyFrom(signature)
            packed = any_pb2.Any()
            packed.Pack(found)
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            answer.model_spec.name = servable.name
            answer.model_spec.version.value = servable.version
            answer.metadata["signature_def"].CopyFrom(packed)
            return answer

    def _using(self, request):
        return self.models.using(*_asked(request))

    def _classify(self, request, given, context, spec, result):
        for row in self._infer(examples.classify, request, given, context, spec):
            one = result.classifications.add()
            for label, score in row:
                one.classes.add(label=label, score=score)

    def _regress(self, request, given, context, spec, result):
        for value in self._infer(examples.regress, request, given, context, spec):
            result.regressions.add(value=value)

    def _infer(self, ask, request, given, context, spec):
        with self._using(request) as servable:
            key = request.model_spec.signature_name or "serving_default"
            _describe(spec, servable, key)
            run = self.metrics.timed(self._runner, "Classify" if ask is examples.classify else "Regress")
            return ask(run, servable, key, _examples(given), _timeout(context))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus, and HandleReloadConfigRequest where it is asked for.

    Args:
        models, metrics: see `mmkeras.serving.rest.Rest`.
        reload: whether a client may change what is served.
    """

    def __init__(self, models, metrics, reload=False):
        self.models, self.metrics, self.reload = models, metrics, reload

    @_answering
    def GetModelStatus(self, request, context):
        name, version, label = _asked(request)
        if label:
            version = self.models.servable(name, None, label).version
        answer = get_model_status_pb2.GetModelStatusResponse()
        for number, one in self.models.status(name, version):
            found = answer.model_version_status.add(version=number)
            found.state = get_model_status_pb2.ModelVersionStatus.State.Value(one.state)
            if one.error:
                found.status.error_code = _CODES[one.error.code].value[0]
                found.status.error_message = one.error.message
        return answer

    @_answering
    def HandleReloadConfigRequest(self, request, context):
        if not self.reload:
            raise ServingError("PERMISSION_DENIED", "This server's models are not changed from outside.")
        self.models.configure(config.models_of(request.config))
        return model_management_pb2.ReloadConfigResponse()


def _asked(request):
    """(name, version, label) of a request."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    version = spec.version.value if spec.HasField("version") else None
    return spec.name, version, spec.version_label


def _describe(spec, servable, key):
    spec.name, spec.signature_name = servable.name, key
    spec.version.value = servable.version


def _timeout(context):
    """Milliseconds until the caller gives up, or None."""
    left = context.time_remaining()
    return None if left is None or left > 1e6 else max(left * 1000, 1)


def _feeds(inputs, signature):
    """The arrays of a request, those it leaves out filled in from the signature's defaults."""
    missing = [alias for alias in signature.inputs if alias not in inputs and alias not in signature.defaults]
    if len(inputs) > len(signature.inputs) or (len(inputs) != len(signature.inputs) and missing):
        extra = [alias for alias in inputs if alias not in signature.inputs]
        said = f" Sent extra: {{{echoed(','.join(extra), 128)}}}." if extra else ""
        said += f" Missing but required: {{{','.join(missing)}}}." if missing else ""
        given, wanted = echoed(",".join(inputs), 128), ",".join(signature.inputs)
        raise invalid(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} len({{{given}}}) != "
            f"len({{{wanted}}}).{said}"
        )
    feeds = {}
    for alias, (tensor, dtype) in signature.inputs.items():
        if alias in inputs:
            feeds[alias] = _array(alias, inputs[alias], dtype)
        elif alias in signature.defaults:
            feeds[alias] = signature.defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {tensor}) not found in request and no default value "
                f"provided. Inputs expected to be in the set {{{','.join(signature.inputs)}}}."
            )
    return feeds


def _array(alias, message, dtype):
    wanted = tf.dtypes.as_dtype(dtype)
    try:
        given = tf.dtypes.as_dtype(message.dtype)
        if given != wanted:
            raise invalid(f"Expected {alias} of {dtype}. Received: {given.name}.")
        # A few bytes may declare a tensor that fills all memory: the last value given stands for those that are not.
        sizes = [dim.size for dim in message.tensor_shape.dim]
        if min(sizes, default=0) < 0 or math.prod(sizes) * (wanted.size or 1) > LARGEST_BODY:
            raise invalid(f"tensor parsing error: {alias}. Expected a shape of at most {LARGEST_BODY:,} bytes.")
        return tf.make_ndarray(message)
    except (TypeError, ValueError, KeyError):
        raise invalid(f"tensor parsing error: {alias}") from None


def _tensor(array):
    """A TensorProto with its values in the fields `*_val`, as the original writes them."""
    array = np.asarray(array)
    if array.dtype == object:
        return tf.make_tensor_proto(array, tf.string, array.shape)
    message = tf.make_tensor_proto(array)
    if message.tensor_content:
        message.ClearField("tensor_content")
        field = _VALUES.get(array.dtype.name)
        if field is None:
            return tf.make_tensor_proto(array)
        getattr(message, field).extend(array.reshape(-1).tolist())
    return message


_VALUES = {
    "float32": "float_val", "float64": "double_val", "int8": "int_val", "int16": "int_val", "int32": "int_val",
    "uint8": "int_val", "uint16": "int_val", "int64": "int64_val", "uint32": "uint32_val", "uint64": "uint64_val",
    "bool": "bool_val",
}  # fmt: skip


def _examples(given):
    """The serialised examples of an `Input` message."""
    kind = given.WhichOneof("kind")
    if kind == "example_list":
        found = [one.SerializeToString() for one in given.example_list.examples]
    elif kind == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        found = [context + one.SerializeToString() for one in given.example_list_with_context.examples]
    else:
        found = []
    if not found:
        raise invalid("Input is empty")
    return found
