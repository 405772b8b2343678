"""One version of a SavedModel, loaded and ready to answer."""

import dataclasses
import functools
import math
import pathlib
import threading

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from mmkeras.serving.errors import ServingError, echoed, invalid

PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{verb}" for verb in ("predict", "classify", "regress"))
# What a run of TensorFlow may fail with, by the names of gRPC.
_CODES = {
    tf.errors.InvalidArgumentError: "INVALID_ARGUMENT", tf.errors.DeadlineExceededError: "DEADLINE_EXCEEDED",
    tf.errors.NotFoundError: "NOT_FOUND", tf.errors.ResourceExhaustedError: "RESOURCE_EXHAUSTED",
    tf.errors.FailedPreconditionError: "FAILED_PRECONDITION", tf.errors.UnimplementedError: "UNIMPLEMENTED",
    tf.errors.OutOfRangeError: "OUT_OF_RANGE", tf.errors.CancelledError: "CANCELLED",
    tf.errors.AbortedError: "ABORTED", tf.errors.UnavailableError: "UNAVAILABLE", tf.errors.InternalError: "INTERNAL",
}  # fmt: skip


MOST_CALLABLES = 1000  # of a version
HERE = 0.0  # as a timeout, see `Servable.run`
# What takes as long as the shapes of its inputs say, whatever their values. Loops and branches do not, nor what makes a
# tensor of a size that is a value (Range, Fill, Tile), what draws, and what reads texts, pictures and sounds.
_STEADY = {
    "Placeholder", "PlaceholderWithDefault", "Const", "VarHandleOp", "ReadVariableOp", "HashTableV2", "NoOp",
    "Identity", "IdentityN", "StopGradient", "PartitionedCall", "StatefulPartitionedCall", "Cast", "Abs", "Add", "AddN",
    "AddV2", "Sub", "Mul", "Neg", "Div", "RealDiv", "DivNoNan", "FloorDiv", "FloorMod", "Maximum", "Minimum", "Square",
    "SquaredDifference", "Pow", "Sqrt", "Rsqrt", "Reciprocal", "Exp", "Expm1", "Log", "Log1p", "Sin", "Cos", "Tanh",
    "Sigmoid", "Erf", "Erfc", "Floor", "Ceil", "Round", "Sign", "BiasAdd", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu",
    "Softplus", "Softsign", "Softmax", "LogSoftmax", "Equal", "NotEqual", "Greater", "GreaterEqual", "Less",
    "LessEqual", "LogicalAnd", "LogicalOr", "LogicalNot", "IsNan", "IsFinite", "Select", "SelectV2", "ClipByValue",
    "MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D", "DepthwiseConv2dNative", "MaxPool", "AvgPool",
    "FusedBatchNormV3", "Sum", "Mean", "Prod", "Max", "Min", "All", "Any", "ArgMax", "ArgMin", "Shape", "Size", "Rank",
    "Reshape", "Squeeze", "ExpandDims", "Transpose", "Pack", "Unpack", "ConcatV2", "Split", "SplitV", "Slice",
    "StridedSlice", "GatherV2", "ZerosLike", "OnesLike", "LookupTableFindV2", "ParseExampleV2",
}  # fmt: skip
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}


@dataclasses.dataclass(frozen=True)
class Signature:
    """A serving function: its tensors by the names that requests use.

    Args:
        method: what it is for, such as `"tensorflow/serving/predict"`.
        inputs, outputs: `{alias: (tensor name, dtype)}`, the dtype a name of TensorFlow's.
        defaults: `{alias: array}` of inputs that a gRPC request may leave out.
    """

    method: str
    inputs: dict
    outputs: dict
    defaults: dict

    @property
    def dtypes(self):
        """`{alias: dtype}` of the inputs."""
        return {alias: dtype for alias, (_, dtype) in self.inputs.items()}


class Servable:
    """A loaded version.

    Args:
        name: of the model.
        version: its number.
        path: the folder that holds `saved_model.pb`.

    Attributes:
        may_batch: whether requests may run together. Of what `zoo export` wrote, with its golden answers, if it has a
            `batching_params.pbtxt`, as for TensorFlow Serving; of what others wrote always.

    Raises:
        ServingError: if it cannot be loaded.
    """

    def __init__(self, name, version, path):
        self.name, self.version, self.path = name, version, path
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        logger, level = tf.get_logger(), tf.get_logger().level
        try:
            logger.setLevel("ERROR")  # that a session is of TensorFlow 1; it is also the fastest to call
            with graph.as_default():
                self.meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
            self._session.close()
            raise ServingError(_code(error, "NOT_FOUND"), f"Could not load {path}: {_telling(error)}") from None
        finally:
            logger.setLevel(level)
        found = self.meta_graph.signature_def
        self.signatures = {key: _signature(one) for key, one in found.items() if key != "__saved_model_init_op"}
        extra = pathlib.Path(path, "assets.extra", "golden.json")
        self.may_batch = not extra.exists() or pathlib.Path(path, "batching_params.pbtxt").exists()
        self._steady = _steady(self.meta_graph.graph_def, self.signatures)
        self._callables = {}
        self._lock = threading.Lock()
        self._users, self._closing = 0, False

    def signature(self, key):
        """The signature of that name, or None."""
        return self.signatures.get(key)

    def is_steady(self, key):
        """Whether a signature takes as long for all inputs of the same shapes."""
        return key in self._steady

    def run(self, key, feeds, outputs=None, timeout_ms=None):
        """The outputs of a signature, `{alias: array}`.

        Args:
            key: of the signature.
            feeds: `{alias: array}`.
            outputs: the aliases that are wanted; all if None.
            timeout_ms: after which the run is stopped; None for never; `HERE` for a run by the calling thread itself,
                which saves waking another one up, and cannot be stopped.

        Raises:
            ServingError: with the code and text of the run's error.
        """
        signature = self.signatures[key]
        wanted = tuple(outputs or signature.outputs)
        call = self._callable(key, tuple(feeds), wanted, timeout_ms)
        try:
            found = call(*feeds.values())
            return {alias: _as_array(value) for alias, value in zip(wanted, found, strict=True)}
        except tf.errors.OpError as error:
            # The first line; those after it tell of the graph, and any may repeat what was asked.
            said = (error.message or type(error).__name__).splitlines()[0]
            raise ServingError(_code(error, "UNKNOWN"), echoed(said)) from None
        except (TypeError, ValueError) as error:  # an array that does not fit its placeholder
            raise invalid(echoed(str(error))) from None

    def _callable(self, key, feeds, outputs, timeout_ms):
        """A function from the values of some inputs to some outputs; one for each combination that was asked for.

        Made with Session's own options, not `make_callable`: that one is three times as slow where it takes a timeout,
        and refuses shapes that the signature does not say. Timeouts are rounded up to a power of two, so that there are
        few of these functions.
        """
        limit = 2 ** math.ceil(math.log2(max(timeout_ms, 1))) if timeout_ms else timeout_ms
        known = self._callables.get((key, feeds, outputs, limit))
        if known is None:
            signature = self.signatures[key]
            options = config_pb2.CallableOptions()
            options.feed.extend(signature.inputs[alias][0] for alias in feeds)
            options.fetch.extend(signature.outputs[alias][0] for alias in outputs)
            options.run_options.timeout_in_ms = int(limit or 0)
            options.run_options.inter_op_thread_pool = -1 if limit == HERE else 0
            known = self._session._make_callable_from_options(options)
            if len(self._callables) >= MOST_CALLABLES:  # somebody asks for every combination of outputs
                self._callables.clear()
            self._callables[key, feeds, outputs, limit] = known
        return known

    def hold(self):
        """Keeps the version from being freed until `let_go`; False if it is being freed already."""
        with self._lock:
            self._users += not self._closing
            return not self._closing

    def let_go(self):
        """Ends what `hold` began."""
        with self._lock:
            self._users -= 1
            last = self._closing and not self._users
        if last:
            self._session.close()

    def close(self):
        """Frees the version when the requests that use it are done."""
        with self._lock:
            self._closing, idle = True, not self._users
        if idle:
            self._session.close()


def run_alone(servable, key, feeds, outputs=None, timeout_ms=None):
    """`Servable.run`, as a function."""
    return servable.run(key, feeds, outputs, timeout_ms)


def _code(error, otherwise):
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), otherwise)


def _telling(error):
    """The first line of an error that says what is wrong; a session's begin with that a graph was executed."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = (line for line in lines if line and line != "Graph execution error:")
    return next(told, type(error).__name__)


def _steady(graph_def, signatures):
    """The keys of the signatures all of whose operations are steady, those of the functions they call as well."""
    nodes = {node.name: node for node in graph_def.node}
    bodies = {function.signature.name: function.node_def for function in graph_def.library.function}

    def operations(nodes):
        calls = {node.attr["f"].func.name for node in nodes if node.op in _CALLS}
        return {node.op for node in nodes}.union(*map(of_function, calls))

    @functools.cache
    def of_function(name):
        return operations(bodies[name])

    return {k for k, one in signatures.items() if operations(_reached(nodes, one.outputs.values())) <= _STEADY}


def _reached(nodes, outputs):
    """The nodes that some outputs need."""
    left, found = [tensor for tensor, _ in outputs], {}
    while left:
        name = left.pop().removeprefix("^").partition(":")[0]
        if name in nodes and name not in found:
            found[name] = nodes[name]
            left.extend(nodes[name].input)
    return list(found.values())


def _as_array(value):
    """An output; TensorFlow gives a single text as bytes."""
    return np.array(value, object) if isinstance(value, bytes) else value


def _signature(found):
    def named(infos):
        return {alias: (info.name, tf.dtypes.as_dtype(info.dtype).name) for alias, info in sorted(infos.items())}

    defaults = {alias: np.array(tf.make_ndarray(value)) for alias, value in found.defaults.items()}
    return Signature(found.method_name, named(found.inputs), named(found.outputs), defaults)
