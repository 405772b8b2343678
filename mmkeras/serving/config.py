"""The configuration files of TensorFlow Serving, in their own text format: models, batching, monitoring."""

import dataclasses
import os
import pathlib

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from mmkeras.serving.errors import invalid
from mmkeras.serving.models import ModelConfig


def read_models(path: str | os.PathLike[str]) -> list[ModelConfig]:
    """The ModelConfigs of a file such as `models.config`.

    Raises:
        ValueError: if it is none.
    """
    config = _parsed(path, model_server_config_pb2.ModelServerConfig())
    if config.WhichOneof("config") != "model_config_list":
        raise ValueError(f"Expected {path} to hold a model_config_list. Received: {config.WhichOneof('config')}.")
    return models_of(config)


def models_of(config):
    """The ModelConfigs of a `ModelServerConfig` message.

    Raises:
        ServingError: if it lists no models.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported"
        )
    found = []
    for one in config.model_config_list.config:
        kind = one.model_version_policy.WhichOneof("policy_choice")
        policy = ("latest", 1)
        if kind == "latest":
            policy = ("latest", one.model_version_policy.latest.num_versions or 1)
        elif kind == "all":
            policy = ("all",)
        elif kind == "specific":
            policy = ("specific", tuple(one.model_version_policy.specific.versions))
        platform = one.model_platform or "tensorflow"
        found.append(ModelConfig(one.name, one.base_path, policy, dict(one.version_labels), platform))
    return found


def models_in(folder: str | os.PathLike[str]) -> list[ModelConfig]:
    """The ModelConfigs of a folder of models, each a folder of versions; the latest version of each.

    Raises:
        ValueError: if there is no such folder, or no model in it.
    """
    folder = pathlib.Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(f"Expected a folder of models to serve. There is no folder {folder}.")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and _has_versions(path))
    if not names and _has_versions(folder):
        return [ModelConfig(folder.name, str(folder))]
    if not names:
        raise ValueError(
            f"There is no model in {folder}: expected folders MODEL/VERSION/saved_model.pb, as export writes."
        )
    return [ModelConfig(name, str(folder / name)) for name in names]


def _has_versions(folder):
    return any(path.name.isdigit() for path in folder.iterdir())


@dataclasses.dataclass(frozen=True)
class Batching:
    """How requests are gathered, the fields of TensorFlow Serving's `batching_parameters.txt`.

    Args:
        max_batch_size: most rows of a request.
        batch_timeout_micros: longest wait for more rows.
        max_enqueued_batches: of batches that wait; more are refused.
        num_batch_threads: runs at once.
        allowed_batch_sizes: to one of which a batch is filled up; any if empty.
        max_execution_batch_size: most rows a run, a larger request is split; None for `max_batch_size`.
    """

    max_batch_size: int = 64
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 64
    num_batch_threads: int = 2
    allowed_batch_sizes: tuple[int, ...] = ()
    max_execution_batch_size: int | None = None

    def __post_init__(self):
        sizes = list(self.allowed_batch_sizes)
        name = "max_execution_batch_size" if self.max_execution_batch_size else "max_batch_size"
        if self.most_at_once > self.max_batch_size:
            raise ValueError(
                f"Expected max_execution_batch_size to be at most max_batch_size={self.max_batch_size}. "
                f"Received: {self.max_execution_batch_size}."
            )
        if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != self.most_at_once):
            raise ValueError(
                f"Expected allowed_batch_sizes to increase, and to end at {name}={self.most_at_once}. "
                f"Received: {sizes}."
            )

    @property
    def most_at_once(self) -> int:
        """Most rows a run."""
        return self.max_execution_batch_size or self.max_batch_size


def read_batching(path: str | os.PathLike[str]) -> Batching:
    """The Batching of a file such as `batching_parameters.txt`; what it leaves out is as TensorFlow Serving has it.

    Raises:
        ValueError: if it is none.
    """
    found = _parsed(path, _message("BatchingParameters"))
    values = {f.name: getattr(found, f.name).value for f, _ in found.ListFields() if f.name != "allowed_batch_sizes"}
    if not values.get("enable_large_batch_splitting"):
        values.pop("max_execution_batch_size", None)
    known = {field.name for field in dataclasses.fields(Batching)}
    values = {name: value for name, value in values.items() if name in known}
    values = {"max_batch_size": 1000, "max_enqueued_batches": 10, "num_batch_threads": os.cpu_count() or 1, **values}
    return Batching(**values, allowed_batch_sizes=tuple(found.allowed_batch_sizes))


def read_monitoring(path: str | os.PathLike[str]) -> str | None:
    """The path of the Prometheus metrics of a file such as `monitoring.config`; None where they are off.

    Raises:
        ValueError: if it is none.
    """
    found = _parsed(path, _message("MonitoringConfig")).prometheus_config
    return (found.path or "/monitoring/prometheus/metrics") if found.enable else None


def _parsed(path, message):
    try:
        return text_format.Parse(pathlib.Path(path).read_text(), message)
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}.") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from None


def _message(name):
    """An empty message of a type that `tensorflow-serving-api` lacks."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"tensorflow.serving.{name}"))()


def _described():
    """session_bundle_config.proto and monitoring_config.proto, the parts that are read here."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="zoo_serving.proto", package="tensorflow.serving", syntax="proto3")

    def message(name, *fields):
        described = file.message_type.add(name=name)
        for number, (field, kind, repeated) in enumerate(fields, 1):
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            is_name = isinstance(kind, str)
            described.field.add(
                name=field, number=number, label=label, type=kinds.TYPE_MESSAGE if is_name else kind,
                type_name=f".tensorflow.serving.{kind}" if is_name else None,
            )  # fmt: skip

    message("Int64Value", ("value", kinds.TYPE_INT64, False))
    message("StringValue", ("value", kinds.TYPE_STRING, False))
    message("BoolValue", ("value", kinds.TYPE_BOOL, False))
    message(
        "BatchingParameters",
        *((name, "Int64Value", False) for name in (
            "max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")),
        ("thread_pool_name", "StringValue", False), ("allowed_batch_sizes", kinds.TYPE_INT64, True),
        ("pad_variable_length_inputs", "BoolValue", False), ("enable_large_batch_splitting", "BoolValue", False),
        ("max_execution_batch_size", "Int64Value", False),
    )  # fmt: skip
    message("PrometheusConfig", ("enable", kinds.TYPE_BOOL, False), ("path", kinds.TYPE_STRING, False))
    message("MonitoringConfig", ("prometheus_config", "PrometheusConfig", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _described()
