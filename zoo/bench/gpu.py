"""What training steps take on one GPU: with Keras on TensorFlow, JAX or PyTorch, beside the same in plain PyTorch.

    KERAS_BACKEND=jax python zoo/bench/gpu.py

needs Keras, NumPy and that backend, nothing of this project; `zoo bench gpu` is the same. A dual encoder (a residual
network, an LSTM, contrast between their embeddings) takes steps on batches of random pictures and texts. The share of
the peak is that of what a large matrix product reaches on the same device in the same precision. Where PyTorch is
there, the same network is measured written in it, compiled. Without a GPU the table says so, and is one of the CPU.
"""

import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import time

import numpy as np

SIDE, LENGTH, WORDS, DIM, BATCH, STEPS = 128, 32, 8192, 256, 512, 10
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels, blocks; each but the first halves the sides
NAMES = ["float32", "bfloat16", "float16", "lstm_without_cudnn", "pytorch_float32", "pytorch_bfloat16"]


def run(out=None, names=None, seed=0, **sizes):
    """Measures, each row in a process of its own, and returns the table.

    Args:
        out: nothing is kept.
        names: of the rows; all if None.
        seed: of the data.
        **sizes: `side`, `batch`, `steps` and `channels`, for another size than the default.
    """
    titles = ["network", "backend", "images a second", "share of peak", "memory, MB", "loss"]
    lines = []
    for name in names or NAMES:
        if name.startswith("pytorch") and importlib.util.find_spec("torch") is None:
            lines.append(f"| {name} | no PyTorch here | | | | |")
            continue
        given = json.dumps({"name": name, "seed": seed, **sizes})
        done = subprocess.run([sys.executable, __file__, given], capture_output=True, text=True)
        if done.returncode:
            lines.append(f"| {name} | failed: {_cause(done.stderr)[:200]} | | | | |")
            continue
        lines.append("| " + " | ".join(json.loads(done.stdout.splitlines()[-1])) + " |")
    return "\n".join([f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *lines])


def _cause(said):
    """The error's own line in what a process said: JAX adds advice after it."""
    lines = said.strip().splitlines() or ["it ended without a word"]
    return next((line for line in reversed(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)), lines[-1])


def measure(name, seed=0, side=SIDE, batch=BATCH, steps=STEPS, channels=STAGES[0][0]):
    """The cells of one row."""
    stages = tuple((channels * size // STAGES[0][0], blocks) for size, blocks in STAGES)
    random = np.random.default_rng(seed)
    pictures = random.random((batch, side, side, 3), "float32")
    ids = random.integers(1, WORDS, (batch, LENGTH), "int32")
    measured = _pytorch if name.startswith("pytorch") else _keras
    backend, times, memory, peak, loss = measured(name, stages, pictures, ids, steps)
    seconds = statistics.median(times)
    done = 3 * batch * flops(side, stages) / seconds  # forward, and twice that backward
    share = f"{done / peak:.0%} of {peak / 1e12:.1f} TFLOP/s"
    megabytes = "—" if memory is None else f"{memory / 2**20:,.0f}"
    return [name, backend, f"{batch / seconds:,.0f}", share, megabytes, f"{loss:.3f}"]


def flops(side, stages):
    """Multiplications and additions of one picture and text forward."""
    total, size, before = 0, side, 3
    for stage, (channels, blocks) in enumerate(stages):
        size = size // 2 if stage else size
        for block in range(blocks):
            inputs = channels if block else before
            total += 2 * size**2 * 9 * channels * (inputs + channels)
            total += 2 * size**2 * inputs * channels * (inputs != channels)
        before = channels
    return total + LENGTH * 2 * 4 * DIM * 2 * DIM + 2 * DIM * (before + DIM)


def _keras(name, stages, pictures, ids, steps):
    import keras
    from keras import layers, ops

    backend = keras.backend.backend()
    if backend == "torch":
        _torch_tf32()
    half = name in ("bfloat16", "float16")
    if half:
        keras.config.set_dtype_policy(f"mixed_{name}")

    def conv(x, channels, strides=1, size=3):
        x = layers.Conv2D(channels, size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    picture, text = keras.Input(pictures.shape[1:], name="picture"), keras.Input((LENGTH,), dtype="int32", name="text")
    x = picture
    for stage, (channels, blocks) in enumerate(stages):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            y = layers.ReLU()(conv(x, channels, strides))
            y = conv(y, channels)
            if strides > 1 or x.shape[-1] != channels:
                x = conv(x, channels, strides, 1)
            x = layers.ReLU()(x + y)
    seen = layers.Dense(DIM)(layers.GlobalAveragePooling2D()(x))
    without = name == "lstm_without_cudnn" or (half and backend == "jax")  # JAX's cuDNN has no LSTM of half precision
    lstm = layers.LSTM(DIM, use_cudnn=False if without else "auto")
    read = layers.Dense(DIM)(lstm(layers.Embedding(WORDS, DIM)(text)))

    class Contrast(layers.Layer):
        def call(self, seen, read):
            a, b = (ops.normalize(ops.cast(x, "float32")) for x in (seen, read))
            logits, own = 14.0 * ops.matmul(a, ops.transpose(b)), ops.arange(ops.shape(a)[0])
            both = (keras.losses.sparse_categorical_crossentropy(own, x, True) for x in (logits, ops.transpose(logits)))
            return ops.reshape(sum(both) / 2, (-1, 1))

    model = keras.Model([picture, text], Contrast(dtype="float32")(seen, read))
    optimizer = keras.optimizers.Adam(1e-4)
    # XLA takes no cuDNN LSTM, so that the row without it goes without XLA as well.
    jit = False if name == "lstm_without_cudnn" and backend == "tensorflow" else "auto"
    model.compile(optimizer, lambda true, found: ops.mean(found), jit_compile=jit)
    x, y = [np.concatenate([value] * steps) for value in (pictures, ids)], np.zeros((steps * len(ids), 1), "float32")
    times, losses = [], []
    for _ in range(4):
        began = time.perf_counter()
        losses += model.fit(x, y, batch_size=len(ids), verbose=0, shuffle=False).history["loss"]
        times.append((time.perf_counter() - began) / steps)
    title = f"Keras {keras.__version__}, {backend}{_device(backend)}"
    return title, times[1:], _memory(backend), _peak_keras(name if half else "float32", title), losses[0]


def _peak_keras(dtype, title):
    """Multiplications and additions a second of a large matrix product."""
    import keras
    from keras import ops

    size = 1024 if title.endswith("CPU") else 8192
    a = ops.cast(keras.random.uniform((size, size)), dtype)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        product = a
        for _ in range(5):
            product = ops.matmul(product, a) / size
        float(ops.cast(product[0, 0], "float32"))  # waits until it is done
        times.append(time.perf_counter() - began)
    return 5 * 2 * size**3 / min(times)


def _device(backend):
    """What is said of the device behind the backend's name."""
    if backend == "tensorflow":
        import tensorflow as tf

        found = [tf.config.experimental.get_device_details(gpu).get("device_name", "a GPU")
                 for gpu in tf.config.list_physical_devices("GPU")]  # fmt: skip
    elif backend == "jax":
        import jax

        found = [device.device_kind for device in jax.devices() if device.platform == "gpu"]
    else:
        import torch

        found = [torch.cuda.get_device_name(0)] if torch.cuda.is_available() else []
    return f" on {found[0]}" if found else " on the CPU"


def _memory(backend):
    """The most bytes of the GPU that were in use, None without one."""
    if _device(backend) == " on the CPU":
        return None
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    if backend == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import torch

    return torch.cuda.max_memory_allocated()


def _pytorch(name, stages, pictures, ids, steps):
    import torch

    device, half = "cuda" if torch.cuda.is_available() else "cpu", name.endswith("bfloat16")
    torch.manual_seed(0)
    _torch_tf32()
    network = _torch_network(stages).to(device, memory_format=torch.channels_last)
    optimizer, loss_of = torch.optim.Adam(network.parameters(), 1e-4, fused=True), torch.compile(network)
    picture = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    text, times, losses = torch.from_numpy(ids).long(), [], []
    for _ in range(4):
        began, total = time.perf_counter(), 0.0
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=half):
                loss = loss_of(picture.to(device), text.to(device))
            loss.backward()
            optimizer.step()
            total = total + loss.detach()
        losses.append(total.item() / steps)
        times.append((time.perf_counter() - began) / steps)
    size = 8192 if device == "cuda" else 1024
    a = torch.rand(size, size, device=device).to(torch.bfloat16 if half else torch.float32)
    taken = []
    for _ in range(6):
        began, product = time.perf_counter(), a
        for _ in range(5):
            product = product @ a / size
        product[0, 0].item()
        taken.append(time.perf_counter() - began)
    title = f"PyTorch {torch.__version__}, compiled{_device('torch')}"
    return title, times[1:], _memory("torch"), 5 * 2 * size**3 / min(taken), losses[0]


def _torch_tf32():
    """Has matrix products in float32 take TF32, as PyTorch's convolutions and the other backends do."""
    import torch

    torch.set_float32_matmul_precision("high")


def _torch_network(stages):
    """The network of `_keras` in PyTorch: from pictures `(batch, 3, side, side)` and ids to the loss."""
    import torch
    from torch import nn
    from torch.nn import functional

    def conv(ins, outs, stride=1, size=3):
        return nn.Sequential(nn.Conv2d(ins, outs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outs))

    class Block(nn.Module):
        def __init__(self, ins, outs, stride):
            super().__init__()
            self.body = nn.Sequential(conv(ins, outs, stride), nn.ReLU(), conv(outs, outs))
            self.shortcut = conv(ins, outs, stride, 1) if stride > 1 or ins != outs else nn.Identity()

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            blocks, before = [], 3
            for stage, (channels, count) in enumerate(stages):
                for block in range(count):
                    blocks.append(Block(before, channels, 2 if stage and not block else 1))
                    before = channels
            self.blocks, self.seen = nn.Sequential(*blocks), nn.Linear(before, DIM)
            self.embedding, self.lstm = nn.Embedding(WORDS, DIM), nn.LSTM(DIM, DIM, batch_first=True)
            self.read = nn.Linear(DIM, DIM)

        def forward(self, picture, text):
            seen = self.seen(self.blocks(picture).mean((2, 3)))
            read = self.read(self.lstm(self.embedding(text))[0][:, -1])
            logits = 14.0 * functional.normalize(seen.float()) @ functional.normalize(read.float()).T
            own = torch.arange(len(logits), device=logits.device)
            return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

    return Network()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
    else:
        print(run())
