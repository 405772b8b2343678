"""A SavedModel behind LitServe: `python -m zoo.bench._litserve FOLDER SIGNATURE INPUT PORT WORKERS BATCH`."""

import base64
import sys

import litserve
import tensorflow as tf


class API(litserve.LitAPI):
    """One row a request, TensorFlow Serving's JSON."""

    def __init__(self, folder, signature, name, **options):
        super().__init__(**options)
        self.folder, self.signature, self.name = folder, signature, name

    def setup(self, device):
        self.model = tf.saved_model.load(self.folder)
        self.call = self.model.signatures[self.signature]
        self.dtype = self.call.structured_input_signature[1][self.name].dtype

    def decode_request(self, request):
        (value,) = request["instances"]
        return base64.b64decode(value["b64"]) if isinstance(value, dict) else value

    def predict(self, values):
        batched = isinstance(values, list)
        answer = self.call(**{self.name: tf.constant(values if batched else [values], self.dtype)})
        columns = {name: value.numpy().tolist() for name, value in answer.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return rows if batched else rows[0]

    def batch(self, inputs):
        return inputs

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        row = {name: value.decode() if isinstance(value, bytes) else value for name, value in output.items()}
        return {"predictions": [row]}


if __name__ == "__main__":
    folder, signature, name, port, workers, batch = sys.argv[1:]
    options = {"max_batch_size": int(batch), "batch_timeout": 0.002} if int(batch) > 1 else {}
    server = litserve.LitServer(
        API(folder, signature, name, **options), accelerator="cpu", devices=1, workers_per_device=int(workers)
    )
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning", access_log=False)
