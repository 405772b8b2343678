"""What the time of training steps goes to, by kind of operation, as the libraries' own profilers tell it."""

import collections
import contextlib
import pathlib
import re
import tempfile

KINDS = ("convolutions", "matrix products", "LSTM", "batch norm", "the rest")


def kind_of(name):
    """The kind of an operation, by its name: `layer/of/it:Type` of TensorFlow, `aten::type` of PyTorch."""
    name = name.lower()
    operation = name.rpartition(":")[2]
    if any(part in name for part in ("lstm", "while", "rnn")):
        return "LSTM"
    if "batch_norm" in name:
        return "batch norm"
    if "conv" in operation:
        return "convolutions"
    return "matrix products" if "matmul" in operation or operation in ("mm", "addmm", "bmm", "baddbmm") else KINDS[-1]


def shares(seconds):
    """Seconds by operation as shares by kind."""
    by_kind = collections.Counter()
    for name, spent in seconds.items():
        by_kind[kind_of(name)] += spent
    total = sum(by_kind.values())
    return {kind: by_kind[kind] / total for kind in KINDS}


@contextlib.contextmanager
def of_tensorflow():
    """Profiles the block; gives a dict that holds the shares after it."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    found, seconds = {}, collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            yield found
        space = xplane_pb2.XSpace()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(path.read_bytes())
    for plane in space.planes:
        names = {key: data.name for key, data in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                seconds[names[event.metadata_id]] += event.duration_ps * 1e-12
    operations = {name for name in seconds if re.fullmatch(r"[^: ]+:\w+", name)}  # others hold those: a whole step
    found.update(shares({name: seconds[name] for name in operations}))


@contextlib.contextmanager
def of_pytorch():
    """Profiles the block; gives a dict that holds the shares after it."""
    from torch.profiler import ProfilerActivity, profile

    found = {}
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        yield found
    found.update(shares({event.key: event.self_cpu_time_total for event in profiled.key_averages()}))
