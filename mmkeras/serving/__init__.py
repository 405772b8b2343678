"""Serving: TensorFlow Serving's REST and gRPC API over SavedModels, for laptops, tests and CI."""

from mmkeras.serving.client import Client
from mmkeras.serving.config import Batching, models_in, read_batching, read_models, read_monitoring
from mmkeras.serving.errors import ServingError
from mmkeras.serving.models import ModelConfig, Models
from mmkeras.serving.server import Server
from mmkeras.serving.verify import verify

__all__ = [
    "Batching",
    "Client",
    "ModelConfig",
    "Models",
    "Server",
    "ServingError",
    "models_in",
    "read_batching",
    "read_models",
    "read_monitoring",
    "verify",
]
