"""What a training survives: kills at any moment, signals, full disks, files that vanish, losses that are no number."""

import csv
import errno
import json
import os
import shutil
import signal
import time

import keras
import numpy as np
import pytest

import zoo
from mmkeras.data import DataError
from mmkeras.runs import RunFolder, remove_beside
from mmkeras.training import Checkpoints, Stopped
from zoo._cli import main
from zoo.bench import faults

# The quickest model to train: eight numbers to one of six labels.
NUMBERS = {"preset": "tiny", "modalities": {"vector": "vector"}, "checkpoint_seconds": 0, "verbose": 0}


def train(out, source="scenes:48", epochs=3, **options):
    return zoo.train("fusion_classifier", source, out=out, epochs=epochs, **{**NUMBERS, **options})


MUCH_CHANCE = {
    "autoencoder": {"modality_dropout": 0.4, "augment_flip": True, "augment_color": 0.2, "augment_tokens": 0.2},
    "conditional_gan": {"sample_every": 5, "discriminator_steps": 2, "augment_tokens": 0.2},
}


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        pytest.param("autoencoder", {faults.START: 1, faults.WRITE: 1}, marks=pytest.mark.long),
        pytest.param("conditional_gan", {faults.STEP: 1}, marks=pytest.mark.slow),
        pytest.param("autoencoder", {faults.START: 2, faults.STEP: 15, faults.WRITE: 3}, marks=pytest.mark.slow),
    ],
)
def test_a_training_that_is_killed_ends_as_one_that_ran_through(tmp_path, name, kills):
    epochs = 6 if sum(kills.values()) < 5 else 30
    found = faults.survive(name, tmp_path / "faults", kills, seed=3, epochs=epochs, **MUCH_CHANCE[name])
    assert found == {"kills": kills, "epochs": epochs, "equal": True}
    whole, killed = (tmp_path / "faults" / part for part in ("whole", "killed"))
    assert (killed / "history.csv").read_text() == (whole / "history.csv").read_text()
    weights = [RunFolder(folder).load_model("model").get_weights() for folder in (whole, killed)]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
    assert not list(killed.rglob(".*"))


def test_another_seed_ends_otherwise(tmp_path):
    one, other = (train(tmp_path / str(seed), seed=seed).model.get_weights() for seed in (0, 1))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def after_step(monkeypatch):
    """A function that has something done once, right before the checkpoint of a step, `(epoch, step)`."""
    save = RunFolder.save_checkpoint

    def at(position, act):
        def saved(folder, model, epoch, step, history, **options):
            if (epoch, step) == position:
                monkeypatch.undo()
                act()
            save(folder, model, epoch, step, history, **options)

        monkeypatch.setattr(RunFolder, "save_checkpoint", saved)

    return at


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("at_once", [1, 6])
def test_a_signal_stops_after_a_checkpoint(tmp_path, monkeypatch, number, code, at_once):
    whole, stop = train(tmp_path / "whole"), at_once  # of six steps: after the last the epoch has yet to be validated
    begin = Checkpoints.on_epoch_begin

    def told(checkpoints, epoch, logs=None):
        begin(checkpoints, epoch, logs)
        if epoch == 1:
            monkeypatch.undo()
            signal.raise_signal(number)

    monkeypatch.setattr(Checkpoints, "on_epoch_begin", told)
    with pytest.raises(Stopped, match=f"stopped by {number.name} after epoch 2, step {stop}; --resume goes") as stopped:
        train(tmp_path / "run", steps_per_execution=at_once)
    assert stopped.value.code == code
    assert RunFolder(tmp_path / "run").checkpoints()[-1].stem == f"epoch-00001-step-{stop:06d}"
    resumed = zoo.train("fusion_classifier", out=tmp_path / "run", resume=True, verbose=0)
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert histories(tmp_path / "run") == pytest.approx(histories(tmp_path / "whole"), rel=1e-4)


def test_a_signal_in_the_last_step_waits_where_the_metrics_are_elsewhere():
    saved = []
    checkpoints = Checkpoints(lambda *position: saved.append(position), lambda *_: None, 1e9, whole=False)
    checkpoints.set_params({"steps": 2})
    checkpoints.last, checkpoints.signal = time.monotonic(), signal.SIGTERM
    checkpoints.on_epoch_begin(0)
    checkpoints.on_train_batch_end(1)
    assert saved == []
    with pytest.raises(Stopped, match="stopped by SIGTERM after epoch 1;"):
        checkpoints.on_epoch_end(0)
    assert saved == [(1, 0)]
    with pytest.raises(Stopped, match="after epoch 1, step 1;"):
        checkpoints.on_train_batch_end(0)


def histories(folder):
    with (folder / "history.csv").open() as file:
        return [float(value) for row in csv.DictReader(file) for value in row.values()]


def test_the_command_says_how_it_was_stopped(tmp_path, after_step, capsys):
    after_step((0, 2), lambda: signal.raise_signal(signal.SIGTERM))
    command = ["train", "fusion_classifier", "--preset", "tiny", "--data", "scenes:48", "--modalities", "vector=vector"]
    assert main([*command, "--out", str(tmp_path / "run"), "--checkpoint-seconds", "0"]) == 143
    assert capsys.readouterr().err == "zoo: stopped by SIGTERM after epoch 1, step 2; --resume goes on from there\n"


def test_within_an_epoch_a_checkpoint_comes_when_its_time_has(tmp_path):
    seldom = train(tmp_path / "seldom", checkpoint_seconds=3600, epochs=1)
    assert [path.stem for path in RunFolder(seldom.path).checkpoints()] == [
        "epoch-00000-step-000001", "epoch-00001-step-000000",
    ]  # fmt: skip


def test_a_full_disk_leaves_the_checkpoints_that_are_there(tmp_path, after_step):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    after_step((1, 2), full)
    with pytest.raises(OSError, match=r"disk is full. The checkpoints that are there are whole.*--resume"):
        train(tmp_path / "run")
    assert RunFolder(tmp_path / "run").checkpoints()[-1].stem == "epoch-00001-step-000001"
    assert len(train(tmp_path / "run", None, resume=True).model.get_weights()) > 0


@pytest.mark.parametrize("what", ["write_history", "save_model"])
def test_a_full_disk_is_told_wherever_it_is_met(tmp_path, monkeypatch, what):
    def full(folder, *given):
        if what == "save_model" and given[0] != "model":
            return write(folder, *given)
        raise OSError(errno.ENOSPC, "No space left on device")

    write = getattr(RunFolder, what)
    monkeypatch.setattr(RunFolder, what, full)
    with pytest.raises(OSError, match="The disk is full"):
        train(tmp_path / "run", epochs=1)
    monkeypatch.undo()
    assert train(tmp_path / "run", None, resume=True).model is not None


def test_torn_checkpoints_do_not_crowd_out_those_that_are_whole(tmp_path):
    folder, run = RunFolder(tmp_path / "run"), train(tmp_path / "run", epochs=2)
    whole, *torn = folder.checkpoints()
    for path in torn:
        path.write_bytes(b"torn")
    assert folder.restore_checkpoint(run.model)[:2] == (1, 4)
    folder.save_checkpoint(run.model, 1, 5, [])
    assert folder.checkpoints() == [whole, folder / "checkpoints" / "epoch-00001-step-000005.npz"]
    for path in folder.checkpoints():
        path.write_bytes(b"torn")
    with pytest.raises(ValueError, match="No checkpoint in .* can be read. Train anew with --overwrite"):
        train(tmp_path / "run", None, resume=True)


def test_a_run_is_resumed_with_the_data_that_it_began_with(tmp_path):
    write_pictures(tmp_path / "data")
    options = {"modalities": {"image": "image"}, "epochs": 1}
    train(tmp_path / "run", tmp_path / "data", **options)
    with pytest.raises(ValueError, match=r"resumed with its own data, .*data: leave --data out. Received: scenes:48"):
        train(tmp_path / "run", "scenes:48", resume=True, **options)
    train(tmp_path / "run", f"path:{tmp_path / 'data'}", resume=True, **options)
    lines = (tmp_path / "data" / "train.jsonl").read_text().splitlines()
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="have changed: it began with .*'train': 40.*now there are .*'train': 39.*"):
        train(tmp_path / "run", None, resume=True, **options)


def test_a_file_that_vanishes_is_named(tmp_path, monkeypatch):
    rows = write_pictures(tmp_path / "data")
    monkeypatch.setattr("mmkeras.data.pipeline.CACHE_BYTES", 0)
    options = {"preset": "tiny", "modalities": {"image": "image"}, "epochs": 3, "verbose": 0, "checkpoint_seconds": 0}
    gone = tmp_path / "data" / rows[-1]["image"]
    save = RunFolder.save_checkpoint

    def saved(folder, model, epoch, step, history, **options):
        gone.unlink(missing_ok=True)
        save(folder, model, epoch, step, history, **options)

    monkeypatch.setattr(RunFolder, "save_checkpoint", saved)
    with pytest.raises(DataError, match=rf"train.jsonl, row 40: .*{gone.name}"):
        zoo.train("fusion_classifier", tmp_path / "data", out=tmp_path / "run", **options)
    assert RunFolder(tmp_path / "run").checkpoints()


def write_pictures(folder):
    """A folder of splits with forty pictures each, and the rows."""
    from PIL import Image

    folder.mkdir()
    rows = [{"image": f"{i}.png", "label": "ab"[i % 2]} for i in range(40)]
    for i, row in enumerate(rows):
        Image.new("RGB", (8, 8), (i, 99, 200 * (i % 2))).save(folder / row["image"])
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for split in ("validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows[:8])))
    return rows


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    message = (
        r"no longer a number in epoch \d, step \d: .*The largest gradient in the last step has the norm (nan|inf|\d).*"
        r" that of `.+`\. The last checkpoint has the weights from before\. Try a smaller --learning-rate"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path / "run", learning_rate=1e30, clip_norm=0.0, optimizer="sgd", schedule="constant")
    for path in RunFolder(tmp_path / "run").checkpoints():
        with np.load(path) as state:
            assert all(np.isfinite(state[name]).all() for name in state.files if state[name].dtype.kind == "f")


def test_the_largest_gradient_is_that_of_the_steps_before(tmp_path, monkeypatch):
    from mmkeras.training import loop

    norms = {"a": [1.0, 5.0], "b": [2.0, float("nan")]}
    monkeypatch.setattr(loop, "gradient_norms", lambda model, before=0: {k: v[1 - before] for k, v in norms.items()})
    said = loop._not_finite(None, 1, 3, 1, {"loss": float("nan")})
    assert "in the last step has the norm nan, that of `b`." in said
    assert "in the step before has the norm 2, that of `b`." in said


def test_what_was_killed_before_it_began_is_no_obstacle(tmp_path):
    train(tmp_path / "run", epochs=1)
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(tmp_path / "run" / "preprocess.keras", begun)
    (begun / ".99999999-config.json").write_text("{")
    assert train(begun, epochs=1).path == begun
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is no run"):
        train(tmp_path / "other")


def test_only_what_dead_processes_left_is_removed(tmp_path):
    left, live = tmp_path / "checkpoints" / ".99999999-epoch.npz", tmp_path / f".{os.getppid()}-model.keras"
    left.parent.mkdir()
    own = tmp_path / f".{os.getpid()}-model.keras"  # of one that had this number before, as in a container
    for path in (left, live, own, tmp_path / ".hidden"):
        path.write_text("x")
    remove_beside(tmp_path)
    assert not left.exists()
    assert not own.exists()
    assert live.exists()
    assert (tmp_path / ".hidden").exists()


def small_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("tear", ["half", "empty", "garbage", "tail"])
def test_a_torn_checkpoint_is_skipped_with_a_line(tmp_path, capsys, tear):
    folder, model = RunFolder(tmp_path), small_model()
    for epoch in (1, 2, 3, 4):
        model.set_weights([np.full_like(w, epoch) for w in model.get_weights()])
        folder.save_checkpoint(model, epoch, 0, [{"epoch": e} for e in range(1, epoch + 1)])
    assert [path.name for path in folder.checkpoints()] == [f"epoch-0000{n}-step-000000.npz" for n in (2, 3, 4)]
    newest = folder.checkpoints()[-1]
    whole = newest.read_bytes()
    torn = {"half": whole[: len(whole) // 2], "empty": b"", "garbage": b"x" * 99, "tail": whole[:-10]}[tear]
    newest.write_bytes(torn)
    other = small_model()
    assert folder.restore_checkpoint(other) == (3, 0, [{"epoch": e} for e in (1, 2, 3)])
    assert (other.get_weights()[0] == 3).all()
    said = capsys.readouterr().out
    assert said.startswith("skipped a checkpoint that cannot be read")
    assert "epoch-00004-step-000000.npz" in said


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    RunFolder(tmp_path).save_checkpoint(small_model(), 1, 0, [])
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"belongs to another model"):
        RunFolder(tmp_path).restore_checkpoint(other)
