"""Several replicas and workers take the steps that one takes; and `zoo launch`, which starts them."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import yaml

import zoo
from mmkeras import data, training
from zoo import _launch
from zoo._cli import main

SCRIPT = pathlib.Path(__file__).parent / "replicas" / "parity.py"
FIRST_STEP = {
    "data": "scenes:20", "epochs": 1, "floatx": "float32", "optimizer": "sgd", "learning_rate": 1.0,
    "schedule": "constant", "clip_norm": 0.0,
}  # fmt: skip


def run(jobs, workers=1):
    command = [sys.executable, str(SCRIPT), json.dumps(jobs)]
    environment = {"PYTHONPATH": str(SCRIPT.parents[2]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if workers > 1:
        assert _launch.launch(command, workers, environment) == 0
        return
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-3000:]


def weights(folder, start=False):
    with np.load(folder / "weights.npz") as file:
        return [file[name] for name in file.files if name.startswith("start") == start]


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def largest(first, second):
    return max(np.abs(a - b).max() for a, b in zip(first, second, strict=True))


def same(one, other):
    """Two trainings moved the weights alike, to 1e-9 and a thousandth of the way, and told the same numbers."""
    apart = largest(weights(one), weights(other))
    assert apart < 1e-9
    assert largest(weights(one), weights(one, start=True)) > 1000 * apart
    assert largest(weights(one, start=True), weights(other, start=True)) == 0
    for row, expected in zip(history(other), history(one), strict=True):
        assert row == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Trainings by one replica, by two, and their first gradients: folders by name."""
    folder = tmp_path_factory.mktemp("replicas")
    return trainings(folder, QUICK)


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    return trainings(tmp_path_factory.mktemp("replicas"), SLOW, several=(2, 4))


QUICK, SLOW = ["dual_encoder"], ["autoencoder", "conditional_gan", "domain_adversarial"]
SPOILED = [
    ("dual_encoder", "gather"),
    ("dual_encoder", "scaling"),
    ("conditional_gan", "share"),
    ("autoencoder", "batch norm"),
]


def trainings(folder, names, several=(2,)):
    jobs = [{"name": name, "out": f"{folder}/{name}-{n}", "devices": n} for name in names for n in (1, *several)]
    jobs += [{"name": name, "out": f"{folder}/{name}-scaled", "devices": 2, "scaled": True} for name in names]
    jobs += [{"name": n, "out": f"{folder}/{n}-first-{d}", "devices": d, **FIRST_STEP} for n in names for d in (1, 2)]
    for name, what in SPOILED:
        if name in names:
            jobs.append({"name": name, "out": f"{folder}/{name}-{what}", "devices": 2, "spoil": what, **FIRST_STEP})
    run([job for job in jobs if job["devices"] < 4])
    four = [job for job in jobs if job["devices"] == 4]
    if four:  # in a process of its own: TensorFlow mixes up the collectives of two strategies
        run(four)
    return folder


def check(folder, name, several=(2,)):
    for count in several:
        same(folder / f"{name}-1", folder / f"{name}-{count}")
    same(folder / f"{name}-1", folder / f"{name}-scaled")
    start = weights(folder / f"{name}-first-1", start=True)
    slopes = [[s - w for s, w in zip(start, weights(folder / f"{name}-first-{n}"), strict=True)] for n in (1, 2)]
    size = max(np.abs(slope).max() for slope in slopes[0])
    assert largest(*slopes) < 1e-5 * max(size, 1.0)
    assert size > 0.01
    for spoiled, what in SPOILED:
        if spoiled == name:
            assert largest(weights(folder / f"{name}-first-1"), weights(folder / f"{name}-{what}")) > 0.01 * size


@pytest.mark.long
def test_two_replicas_take_the_steps_of_one_and_without_what_they_need_others(whole):
    check(whole, "dual_encoder")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_two_and_four_replicas_take_the_steps_of_one(more, name):
    check(more, name, several=(2, 4))


@pytest.mark.long
def test_two_workers_take_the_steps_of_one_process(whole, tmp_path):
    run([{"name": "dual_encoder", "out": str(tmp_path / "workers")}], workers=2)
    same(whole / "dual_encoder-1", tmp_path / "workers")


@pytest.mark.slow
def test_three_workers_take_the_steps_of_one_process(whole, more, tmp_path):
    for workers in (2, 3):
        names = QUICK + SLOW
        run([{"name": name, "out": str(tmp_path / f"{name}-{workers}")} for name in names], workers)
        for name in names:
            same((whole if name in QUICK else more) / f"{name}-1", tmp_path / f"{name}-{workers}")


def test_replicas_of_other_sizes_and_with_gradients_that_overflow():
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(SCRIPT.with_name("uneven.py"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["overflow"] == [[[1.0, 2.0], 2.0], [[0.0, 1.0], 2.0]]  # of one replica, on both; then (1 + 1) / 2
    one, two = found["losses"]
    assert two == pytest.approx(one, rel=1e-5)
    assert len(one) == 5


# Who gets which rows


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_every_row_is_read_once(count, drop_remainder):
    order = np.random.default_rng(0).permutation(29)
    read, numbers = {}, []
    for worker in range(count):
        rows, own = data.row_numbers(order, 12, drop_remainder, replicas=(worker, worker + 1, count))
        for step, (part, number) in enumerate(zip(rows, own, strict=True)):
            read.setdefault(step, []).append(np.array(part))
            numbers.append(int(number))
    steps = [np.concatenate(parts) for _, parts in sorted(read.items())]
    expected = [order[:12], order[12:24], *([] if drop_remainder else [order[24:]])]
    assert [step.tolist() for step in steps] == [step.tolist() for step in expected]
    assert sorted(numbers) == list(range(count * len(expected)))
    for parts in read.values():
        assert np.ptp([len(part) for part in parts]) <= 1


def test_no_replica_is_without_rows():
    for replica in range(3):
        (rows,), numbers = data.row_numbers(np.arange(14), 12, replicas=(replica, replica + 1, 3))
        assert rows.tolist() == np.array_split(np.arange(14), 3)[replica].tolist()
        assert numbers.tolist() == [replica]
    with pytest.raises(ValueError, match="Expected at least 3 rows, one for each replica. Received: 2."):
        data.row_numbers(np.arange(2), 12, replicas=(0, 1, 3))


def test_several_replicas_of_a_process_get_theirs_in_turn():
    rows, numbers = data.row_numbers(np.arange(16), 8, replicas=(2, 4, 4), first_step=1)
    assert [part.tolist() for part in rows] == [[12, 13], [14, 15]]
    assert [int(number) for number in numbers] == [6, 7]


def test_a_batch_must_be_shared_out_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "pieces", lambda strategy: (0, 3, 3), raising=False)
    with pytest.raises(ValueError, match=r"--batch-size that 3 replicas can share out evenly. Received: 8. Take 6"):
        zoo.train("fusion_classifier", "scenes:64", out=tmp_path / "run", preset="tiny", verbose=0)


def test_every_replica_needs_a_row_to_validate_on(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "pieces", lambda strategy: (0, 4, 4), raising=False)
    with pytest.raises(ValueError, match="at least 4 rows of the validation split, one for each replica. Received: 3."):
        zoo.train("fusion_classifier", "scenes:24", out=tmp_path / "run", preset="tiny", verbose=0)
    assert not (tmp_path / "run").exists()


def test_a_tf_config_has_workers_alone(monkeypatch):
    said = '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}'
    monkeypatch.setenv("TF_CONFIG", said)
    with pytest.raises(ValueError, match="name workers alone: the first of them is the chief. Received: chief."):
        training.make_strategy("multi_worker")


@pytest.mark.parametrize("said", ["", "{", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'])
def test_an_unreadable_tf_config_is_told(monkeypatch, said):
    monkeypatch.setenv("TF_CONFIG", said)
    with pytest.raises(ValueError, match="Expected TF_CONFIG to name the workers and this one"):
        training.make_strategy("multi_worker")


def test_unknown_strategy():
    with pytest.raises(ValueError, match="Expected a strategy out of auto, one, mirrored, multi_worker. Received: 'x'"):
        training.make_strategy("x")


# zoo launch


def launched(code, workers=2):
    return _launch.launch([sys.executable, "-c", code], workers)


def test_workers_know_their_cluster(capfd):
    code = (
        "import json, os; c = json.loads(os.environ['TF_CONFIG']); w = c['cluster']['worker'];"
        "print(c['task'], len(set(w)))"
    )
    assert launched(code, 3) == 0
    lines = sorted(capfd.readouterr().out.splitlines())
    assert lines == [f"[worker {i}] {{'type': 'worker', 'index': {i}}} 3" for i in range(3)]


def test_when_a_worker_fails_the_others_are_stopped(capfd):
    code = (
        "import json, os, sys, time\n"
        "sys.exit(3) if json.loads(os.environ['TF_CONFIG'])['task']['index'] == 1 else time.sleep(60)"
    )
    began = time.monotonic()
    assert launched(code) == 3
    assert time.monotonic() - began < 20
    assert "worker 1 ended with exit code 3; the others are stopped" in capfd.readouterr().err


def test_signals_are_passed_on(capfd):
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('stopped', flush=True), sys.exit(143)))\n"
        "time.sleep(60)"
    )
    threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    assert launched(code) == 143
    said = capfd.readouterr()
    assert sorted(said.out.splitlines()) == ["[worker 0] stopped", "[worker 1] stopped"]
    assert said.err == ""


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "code"), [("all", 143), ("worker 1", 137)])
def test_workers_that_are_stopped_or_killed_go_on_from_their_checkpoint(tmp_path, victim, code):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "zoo._cli", "launch", "--workers", "2", "--", "train", "dual_encoder"]
    options = ["--data", "scenes:160", "--preset", "tiny", "--epochs", "500", "--checkpoint-seconds", "1"]
    with subprocess.Popen([*command, *options, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:  # fmt: skip
        while len(checkpoints(out)) < 3:
            assert process.poll() is None
            time.sleep(0.2)
        began = time.monotonic()
        if victim == "all":
            process.send_signal(signal.SIGTERM)
        else:
            os.kill(workers_of(process)[1], signal.SIGKILL)
        said = process.communicate(timeout=90)[0]
    assert process.returncode == code, said
    assert time.monotonic() - began < 60
    if victim == "all":
        assert "[worker 0] zoo: stopped by SIGTERM after epoch" in said
        assert "[worker 1] zoo: stopped by SIGTERM after its last checkpoint; --resume goes on from there" in said
    else:
        assert "worker 1 ended with SIGKILL; the others are stopped" in said
        # In a step, or, if it was writing its checkpoint just then, by the launcher's signal.
        assert any(
            f"[worker 0] zoo: {end}" in said for end in ("error: Another worker has ended", "stopped by SIGTERM")
        )
    newest = checkpoints(out)[-1].stem
    epoch = int(newest.split("-")[1])
    resumed = subprocess.run([*command, "--resume", "--epochs", str(epoch + 1), "--out", str(out)],
                             capture_output=True, text=True, timeout=120)  # fmt: skip
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert f"goes on after epoch {epoch}, step {int(newest.split('-')[3])} of the next" in resumed.stdout
    assert (out / "model.keras").exists()


def checkpoints(folder):
    return sorted((folder / "checkpoints").glob("epoch-*.npz"))


def workers_of(process):
    """The process numbers of what a launcher has started, in the order of their start."""
    return list(map(int, pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


def test_a_worker_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(_launch, "GRACE", 0.5)
    code = (
        "import json, os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "sys.exit(2) if json.loads(os.environ['TF_CONFIG'])['task']['index'] == 0 else time.sleep(60)"
    )
    began = time.monotonic()
    assert launched(code) == 2
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "2"], "Expected what the workers are to do: zoo launch --workers 2 -- train"),
        (["--", "train", "autoencoder"], "Expected --workers, a number of processes. Received: None"),
        (["--template", "slrum", "--", "train", "autoencoder"], "Unknown template `slrum`. Did you mean `slurm`?"),
    ],
)
def test_a_launch_that_cannot_be(capsys, arguments, said):
    assert main(["launch", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["kubernetes", "slurm"])
def test_templates_hold_the_command(capsys, tmp_path, name):
    command = ["train", "autoencoder", "--data", "my shoes", "--out", "/runs/shoes"]
    assert main(["launch", "--template", name, "--workers", "3", "--", *command]) == 0
    text = capsys.readouterr().out
    assert "NOT RUN" in text
    assert "zoo train autoencoder --data 'my shoes' --out /runs/shoes" in text
    assert "<" not in text.replace("<<", "")
    if name == "kubernetes":
        service, job = yaml.safe_load_all(text)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["args"][0].splitlines()[-1] == "exec zoo train autoencoder --data 'my shoes' --out /runs/shoes"
        assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
        code = "\n".join([*container["args"][0].splitlines()[:-1], 'echo "$TF_CONFIG"'])
        said = subprocess.run(
            ["sh", "-c", f"JOB_COMPLETION_INDEX=2\n{code}"], capture_output=True, text=True, check=True
        )
        assert json.loads(said.stdout)["task"]["index"] == 2
        assert len(json.loads(said.stdout)["cluster"]["worker"]) == 3
    if name == "slurm":
        (tmp_path / "job.sh").write_text(text)
        subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], check=True)
