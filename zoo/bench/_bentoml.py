"""A SavedModel behind BentoML: `bentoml serve zoo.bench._bentoml:Model`; the variable ZOO_BENCH says which."""

import base64
import json
import os

import bentoml
import tensorflow as tf

FOLDER, SIGNATURE, NAME, WORKERS, BATCH = json.loads(os.environ["ZOO_BENCH"])
BATCHING = {"batchable": True, "max_batch_size": BATCH, "max_latency_ms": 1000} if BATCH > 1 else {}


@bentoml.service(workers=WORKERS)
class Model:
    """One row a request, TensorFlow Serving's JSON."""

    def __init__(self):
        self.model = tf.saved_model.load(FOLDER)
        self.call = self.model.signatures[SIGNATURE]
        self.dtype = self.call.structured_input_signature[1][NAME].dtype

    @bentoml.api(route="/predict", **BATCHING)
    def predict(self, instances: list) -> list:
        values = [base64.b64decode(v["b64"]) if isinstance(v, dict) else v for v in instances]
        answer = self.call(**{NAME: tf.constant(values, self.dtype)})
        columns = {name: value.numpy().tolist() for name, value in answer.items()}
        return [
            {n: v.decode() if isinstance(v, bytes) else v for n, v in zip(columns, row, strict=True)}
            for row in zip(*columns.values(), strict=True)
        ]
