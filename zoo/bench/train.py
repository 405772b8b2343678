"""Training steps beside those of PyTorch: the same network, weights, batches and threads, in turn on one machine.

The weights of a model of the zoo go over into the network of `zoo.bench._torch_models`; what both answer has to agree
to 1e-4 before anything is timed. Each implementation trains in a process of its own, and while one does the others
wait: Keras in the loop of `zoo train`, PyTorch eager and by `torch.compile`, its pictures with channels last. PyTorch:
the extra `bench`.
"""

import contextlib
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys

import numpy as np

import zoo
from mmkeras.runs import RunFolder, write_json
from zoo import bench
from zoo.bench import _profile

NAMES = ["autoencoder", "dual_encoder", "fusion_classifier", "captioner", "conditional_gan"]
IMPLEMENTATIONS = ("keras", "torch", "torch.compile")
BATCHES, ROUNDS, STEPS = 8, 7, 20  # steps of a round


def run(out="bench/train", names=None, seed=0):
    """Measures, and returns the table.

    Args:
        out: folder of the runs and of `train.json`.
        names: of the models; all if None.
        seed: of the trainings.
    """
    if importlib.util.find_spec("torch") is None:
        raise ValueError('There is no PyTorch here: pip install -e ".[bench]".')
    out = pathlib.Path(out)
    return table(
        bench.measured(out / "train.json", names or NAMES, lambda name: measure(name, out / name, seed), seed=seed)
    )


def measure(name, folder, seed=0, **options):
    """Seconds a step of each implementation in every round, peak memory, and how far the answers are apart.

    Args:
        name: of the model.
        folder: of the run and what is handed to the processes.
        seed: of the training.
        **options: of the training.

    Returns:
        `{"batch": rows, "apart": {implementation: number}, "seconds": {implementation: [..]}, "megabytes": {..},
        "profile": {"keras", "torch": {kind of operation: share of the time}}, "operations": of a step, "peak":
        operations a second of a large matrix product}`.

    Raises:
        AssertionError: if an implementation answers otherwise.
    """
    rows = _prepare(name, folder, seed, **options)
    with contextlib.ExitStack() as stack:
        asked = {how: stack.enter_context(_Trainer(how, folder)) for how in IMPLEMENTATIONS}
        apart = {how: _apart(folder, how) for how in IMPLEMENTATIONS[1:]}
        for trainer in asked.values():
            trainer.take()  # traces, compiles, warms up
        seconds, memory = {how: [] for how in IMPLEMENTATIONS}, {}
        for _ in range(ROUNDS):
            for how, trainer in asked.items():
                found = trainer.take()
                seconds[how].append(found["seconds"] / STEPS)
                memory[how] = found["megabytes"]
        profile = {how: asked[how].take("profile")["profile"] for how in IMPLEMENTATIONS[:2]}
    counted = {key: asked["torch"].counted[key] for key in ("operations", "peak")}
    return {"batch": rows, "apart": apart, "seconds": seconds, "megabytes": memory, "profile": profile, **counted}


def _prepare(name, folder, seed, **options):
    """A run of a short training, batches of its rows, and its weights, in files."""
    run = zoo.train(name, "scenes:640", out=folder / "run", seed=seed, epochs=1, overwrite=True, verbose=2, **options)
    model, split = run.model, run.split("train")
    rows = min(run.config.batch_size, len(split))
    batches = {"noise": []} if name == "conditional_gan" else {}
    random = np.random.default_rng(seed)
    for x, *targets in list(run.batches(split, rows))[:BATCHES]:
        if len(x["text"]) < rows:
            continue
        for part in (x, *targets):
            for key, value in part.items():
                batches.setdefault(key, []).append(value.numpy())
        if "noise" in batches:
            batches["noise"].append(random.normal(size=(rows, model.noise_dim)).astype("float32"))
    np.savez(folder / "batches.npz", **{key: np.stack(values) for key, values in batches.items()})
    if name == "conditional_gan":
        _normalize(model.discriminator)
        RunFolder(folder / "run").save_model("model", model)
        weights = {f"{p}:{w.path}": w for p in ("generator", "discriminator") for w in getattr(model, p).weights}
    else:
        weights = {weight.path: weight for weight in model.weights}
    np.savez(folder / "weights.npz", **{path: weight.numpy() for path, weight in weights.items()})
    write_json(folder / "asked.json", {"model": name, "hyperparameters": run.config.to_dict(), "steps": STEPS})
    return rows


def _normalize(discriminator):
    """Brings the spectral norm of the kernels to one, where the two libraries' networks are the same."""
    for layer in discriminator.layers:
        if hasattr(layer, "vector_u"):
            kernel = layer.layer.kernel
            matrix = kernel.numpy().reshape(-1, kernel.shape[-1])
            kernel.assign(kernel / np.linalg.norm(matrix, 2))


class _Trainer:
    """A process of `zoo.bench._trainer`, from its start to its end."""

    def __init__(self, how, folder):
        self.how, self.folder = how, folder

    def __enter__(self):
        command = [sys.executable, "-m", "zoo.bench._trainer", self.how, str(self.folder)]
        self.errors = (self.folder / f"{self.how}.log").open("w")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        self.counted = self._answer()
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def take(self, what=""):
        """Takes the steps of a round: `{"seconds", "megabytes", "profile"}`, the last asked for by `"profile"`."""
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The training of {self.how} has ended early: {self.errors.name} says why.")
        return json.loads(line)


def _apart(folder, how):
    """The largest difference between what Keras and another implementation answer, relative where it is above one."""
    with np.load(folder / "keras.npz") as ours, np.load(folder / f"{how}.npz") as theirs:
        apart = 0.0
        for name in theirs.files:
            difference = np.abs(ours[name] - theirs[name]) / np.maximum(np.abs(ours[name]), 1.0)
            apart = max(float(difference.max()), apart)
            if not difference.max() <= 1e-4:  # nor if it is no number
                raise AssertionError(f"`{name}` of {how} in {folder} is {apart:.2g} from Keras': another network.")
    return apart


def table(found):
    """The Markdown table of what `measure` gave, by the names of the models."""
    titles = [
        "model", "batch", "Keras, steps a second", "PyTorch eager", "torch.compile", "over eager", "over compiled",
        "apart", "memory, MB: Keras, eager, compiled", "GFLOP a step", "share of peak: Keras, eager, compiled",
    ]  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, one in found.items():
        speeds = [f"{1 / statistics.median(one['seconds'][how]):.2f}" for how in IMPLEMENTATIONS]
        ratios = [_ratio(one["seconds"]["keras"], one["seconds"][how]) for how in IMPLEMENTATIONS[1:]]
        memory = ", ".join(f"{one['megabytes'][how]:,.0f}" for how in IMPLEMENTATIONS)
        seconds = one["operations"] / one["peak"]  # that a step would take at the peak
        shares = ", ".join(f"{seconds / statistics.median(one['seconds'][how]):.0%}" for how in IMPLEMENTATIONS)
        cells = [f"`{name}`", str(one["batch"]), *speeds, *ratios, f"{max(one['apart'].values()):.0e}", memory]
        cells += [f"{one['operations'] / 1e9:.2f}", shares]
        lines.append(f"| {' | '.join(cells)} |")
    kinds = _profile.KINDS
    lines += ["", f"| the operations' time: Keras, eager | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for name, one in found.items():
        cells = [", ".join(f"{one['profile'][how][kind]:.0%}" for how in IMPLEMENTATIONS[:2]) for kind in kinds]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(ours, theirs):
    """How many times as fast we are, over the rounds: the median, and from the least to the most."""
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
