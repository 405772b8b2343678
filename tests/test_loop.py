"""What changes how a training runs: steps at once, XLA, half the precision, and when it ends."""

import csv
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from mmkeras import training
from mmkeras.training import loop

OPTIONS = {"preset": "tiny", "text_encoder": "bag", "image_encoder": "flat", "verbose": 0, "deterministic": True}


def train(out, name="fusion_classifier", **options):
    return zoo.train(name, "scenes:64", out=out, **{**OPTIONS, "epochs": 2, **options})


def losses(run, column="loss"):
    with (run.path / "history.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp("plain") / "run")


def test_several_steps_at_once_are_those_steps(plain, tmp_path, monkeypatch):
    ends, fit = [], training.fit

    def recorded(*arguments):
        *rest, callbacks, verbose = arguments
        seen = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: ends.append(step))
        return fit(*rest, [seen, *callbacks], verbose)

    monkeypatch.setattr(training, "fit", recorded, raising=False)
    run = train(tmp_path / "run", steps_per_execution=3)
    assert ends == [2, 5, 7] * 2  # of eight steps an epoch
    assert losses(run) == losses(plain)
    for one, other in zip(run.model.weights, plain.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_is_known_how_long_steps_waited_for_batches():
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(1)(x))
    rows = tf.data.Dataset.from_tensor_slices((np.ones((8, 2, 4), "float32"), np.ones((8, 2, 1), "float32")))
    slow = rows.map(lambda *row: (tf.py_function(lambda: time.sleep(0.05), [], []), row)[1])

    def wait(batches, **options):
        model.compile("sgd", "mse", jit_compile=False, **options)
        return training.fit(model, lambda epoch, step: batches, epochs=2, verbose=0).input_wait

    assert 0.5 < wait(slow) < 1
    assert 0 < wait(rows) < wait(slow)
    assert wait(rows, steps_per_execution=2) is None


def test_a_step_compiled_by_xla_learns_the_same(plain, tmp_path, monkeypatch):
    compiled, function = [], tf.function

    def recorded(*arguments, jit_compile=None, **options):
        compiled.append(jit_compile)
        return function(*arguments, jit_compile=jit_compile, **options)

    monkeypatch.setattr(loop.tf, "function", recorded)
    # Keras would leave XLA out, since other tests have made this process deterministic for good.
    monkeypatch.setattr("keras.src.trainers.trainer.model_supports_jit", lambda model: True)
    run = train(tmp_path / "run", jit="on", deterministic=False)
    assert True in compiled
    np.testing.assert_allclose(losses(run), losses(plain), rtol=1e-4)


@pytest.mark.parametrize("half", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_mixed_precision_learns_and_keeps_a_model_in_float32(half, plain, tmp_path, monkeypatch):
    policies, fit = [], training.fit

    def recorded(model, *arguments):
        policies.append((model.get_layer("fusion").compute_dtype, type(model.optimizer).__name__))
        return fit(model, *arguments)

    monkeypatch.setattr(training, "fit", recorded, raising=False)
    run = train(tmp_path / "run", mixed_precision=half)
    assert policies == [(half, "AdamW" if half == "bfloat16" else "LossScale")]
    assert keras.config.dtype_policy().name == "float32"
    assert losses(run) != losses(plain)
    np.testing.assert_allclose(losses(run), losses(plain), rtol=0.1)
    assert run.model.get_layer("fusion").compute_dtype == "float32"
    loaded = zoo.load(run.path)
    (x, _), *_ = run.batches(run.split("test"))
    np.testing.assert_array_equal(loaded.model(x)["label"], run.model(x)["label"])
    with pytest.raises(ValueError, match=f"in its own precision, {half}. Received: other"):
        zoo.train("fusion_classifier", out=run.path, resume=True, mixed_precision="other")
    longer = zoo.train("fusion_classifier", out=run.path, resume=True, epochs=3, verbose=0)
    assert policies[1:] == policies[:1]
    assert losses(longer)[:2] == losses(run)[:2]


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_every_model_trains_in_float16(name, tmp_path):
    options = {"preset": "tiny", "epochs": 1, "verbose": 0, "mixed_precision": "float16"}
    run = zoo.train(name, "scenes:200", out=tmp_path / "run", **options)
    with (run.path / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert all(np.isfinite(float(value)) for value in row.values())


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "options"), [("dual_encoder", {"queue": 12}), ("captioner", {"scheduled_sampling": 0.5})]
)
def test_a_queue_and_words_of_its_own_learn_in_half_precision(name, options, half):
    random = np.random.default_rng(0)
    x = {"image": random.random((8, 16, 16, 3), "float32"), "text": random.integers(4, 50, (8, 8))}
    with loop.precision(half):
        model = zoo.build(name, preset="tiny", **options)
        assert np.isfinite([model.train_on_batch(x) for _ in range(3)]).all()
        assert np.isfinite(model.evaluate(x, verbose=0)).all()


def test_training_ends_when_nothing_becomes_better(tmp_path):
    run = train(tmp_path / "run", learning_rate=0.0, weight_decay=0.0, epochs=9, patience=2)
    assert len(losses(run, "val_loss")) == 3
    again = zoo.train("fusion_classifier", out=run.path, resume=True, verbose=0)
    assert len(losses(again)) == 3  # it had ended
    patience = training.Patience(2, [3.0, 2.0, 2.5])
    patience.set_model(run.model)
    run.model.stop_training = False
    for loss, ends in ((1.0, False), (1.5, False), (1.0, True)):
        patience.on_epoch_end(0, {"val_loss": loss})
        assert run.model.stop_training is ends


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fusion_classifier", {"jit": "maybe"}, "Expected --jit auto, on or off. Received: 'maybe'"),
        ("fusion_classifier", {"jit": "on"}, "Received: --jit on, and a training that is --deterministic"),
        ("fusion_classifier", {"steps_per_execution": 0}, "--steps-per-execution of at least 1. Received: 0"),
        (
            "fusion_classifier",
            {"mixed_precision": "float8"},
            "precision float16 or bfloat16. Received: 'float8'",
        ),
        ("conditional_gan", {"patience": 2, "image_encoder": "cnn"}, "no one validation loss that --patience"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(name, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", name, **options)
    assert not (tmp_path / "run").exists()
