"""What stands beside the exported models: TensorFlow Serving's configuration, and how to run it in a container."""

import os
import pathlib

from mmkeras.export.samples import BATCH_SIZES
from mmkeras.runs import replaced

_COMPOSE = """\
# docker compose up, then http://localhost:8501/v1/models/NAME:predict and gRPC at 8500.
services:
  serving:
    image: tensorflow/serving:latest
    ports: ["127.0.0.1:8501:8501", "127.0.0.1:8500:8500"]
    volumes: ["./:/models:ro"]
    command:
      - --model_config_file=/models/models.config
      - --model_config_file_poll_wait_seconds=60
      - --enable_batching=true
      - --enable_per_model_batching_parameters=true
      - --batching_parameters_file=/models/batching_parameters.txt
      - --monitoring_config_file=/models/monitoring.config
"""

_KUBERNETES = """\
# Written by `zoo export`; not run here. The models lie in the volume claim `models`, as in this folder.
apiVersion: apps/v1
kind: Deployment
metadata: {name: serving, labels: {app: serving}}
spec:
  replicas: 1
  selector: {matchLabels: {app: serving}}
  template:
    metadata: {labels: {app: serving}}
    spec:
      containers:
        - name: serving
          image: tensorflow/serving:latest
          args:
            - --model_config_file=/models/models.config
            - --enable_batching=true
            - --enable_per_model_batching_parameters=true
            - --batching_parameters_file=/models/batching_parameters.txt
            - --monitoring_config_file=/models/monitoring.config
          ports: [{containerPort: 8501, name: rest}, {containerPort: 8500, name: grpc}]
          readinessProbe: {tcpSocket: {port: 8501}}
          volumeMounts: [{name: models, mountPath: /models, readOnly: true}]
      volumes: [{name: models, persistentVolumeClaim: {claimName: models}}]
---
apiVersion: v1
kind: Service
metadata: {name: serving}
spec:
  selector: {app: serving}
  ports: [{name: rest, port: 8501}, {name: grpc, port: 8500}]
"""


# Read from a version's folder where TensorFlow Serving is told to; a version without it answers each request alone.
BATCHING_FILE = "batching_params.pbtxt"
BATCHING = (
    f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}\nbatch_timeout_micros {{ value: 1000 }}\n"
    "max_enqueued_batches { value: 64 }\n" + "".join(f"allowed_batch_sizes: {size}\n" for size in BATCH_SIZES)
)


def write_server_files(folder: str | os.PathLike[str]) -> None:
    """Writes `models.config`, `batching_parameters.txt`, `monitoring.config` and two manifests beside the models.

    `models.config` lists every model of the folder by the path that it has in the container.

    Args:
        folder: of the models, each a folder of versions.
    """
    folder = pathlib.Path(folder)
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(_versions(path)))
    configs = "".join(
        f'  config {{ name: "{name}" base_path: "/models/{name}" model_platform: "tensorflow" }}\n' for name in names
    )
    files = {
        "models.config": f"model_config_list {{\n{configs}}}\n",
        "batching_parameters.txt": BATCHING + "num_batch_threads { value: 2 }\n",
        "monitoring.config": 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n',
        "docker-compose.yml": _COMPOSE,
        "kubernetes.yml": _KUBERNETES,
    }
    for name, text in files.items():
        with replaced(folder / name) as beside:
            beside.write_text(text)


def _versions(folder):
    return (path for path in folder.iterdir() if path.name.isdigit())
