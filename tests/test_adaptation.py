"""Domain adaptation: the reversed gradient, labels that stay hidden, and features that become alike."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from mmkeras import data, plots
from mmkeras.layers import GradientReversal, RisingWeight
from mmkeras.losses import mmd
from zoo import domain_adversarial


def test_reversal_is_exactly_minus_lambda_times_the_gradient():
    layer, x = GradientReversal(ramp=10), tf.random.stateless_normal((4, 3), (0, 0))
    weights = tf.random.stateless_normal((4, 3), (1, 0))
    for step in range(13):
        share = min(step / 10, 1.0)
        expected = 2 / (1 + np.exp(-10 * share)) - 1
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            total = tf.reduce_sum(weights * y)
        np.testing.assert_array_equal(y, x)
        np.testing.assert_allclose(tape.gradient(total, x), -expected * weights, rtol=2e-6, atol=1e-12)
    layer(x)
    assert float(layer.steps) == 13  # training alone counts


def test_a_discrepancy_gains_weight_as_the_reversed_gradient_does():
    layer, reversal, x = RisingWeight(ramp=4), GradientReversal(ramp=4), tf.ones((2, 5))
    for _ in range(6):
        reversal(x, training=False)
        assert float(layer(x, training=True)[0]) == pytest.approx(float(reversal.strength), abs=1e-7)
        reversal(x, training=True)
    assert layer(x).numpy().tolist() == [1.0, 1.0]  # what is validated is the same in every epoch


def test_features_that_are_nearly_alike_are_compared_without_rounding():
    features = 0.7 + np.random.default_rng(0).normal(size=(8, 64)) * 1e-4
    features = features.astype("float32")
    distances = ((features[:, None].astype("float64") - features[None]) ** 2).sum(axis=-1)
    kernel = sum(np.exp(-distances / (size * distances.mean())) for size in (0.25, 0.5, 1, 2, 4))
    target = np.array([0, 1] * 4)
    signs = np.where(target, -0.25, 0.25)
    assert float(mmd(features, target)) == pytest.approx(signs @ kernel @ signs, rel=1e-2)
    assert float(mmd(np.full((8, 64), 0.7, "float32"), target)) == pytest.approx(0, abs=1e-6)


def test_reversal_is_saved_with_how_far_it_came(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, GradientReversal(ramp=10, name="reversal")(inputs))
    model(np.ones((2, 3), "float32"), training=True)
    model.save(tmp_path / "model.keras")
    layer = keras.saving.load_model(tmp_path / "model.keras").get_layer("reversal")
    assert (float(layer.steps), layer.ramp) == (1.0, 10)


def prepared(**options):
    source = data.open("scenes:64")
    config = domain_adversarial.Config(**options)
    return source, domain_adversarial.prepare(config, source.splits)


def test_training_does_not_see_the_targets_labels():
    source, splits = prepared(target_domain="hatched")
    for name in ("train", "validation", "test"):
        is_target = np.array(source.split(name).cells("domain")) == "hatched"
        assert (np.array(splits[name].cells("is_target")) == "1").tolist() == is_target.tolist()
        labels, true = (np.array(split.cells("label")) for split in (splits[name], source.split(name)))
        assert (labels[~is_target] == true[~is_target]).all()
        told = np.array(splits[name].cells("told")) == "1"
        if name == "test":
            assert told.all()
        else:
            assert len(set(labels[is_target])) == 1
            assert (told == ~is_target).all()


def test_rows_of_another_split_are_the_target():
    source, splits = prepared(target_split="test")
    train = splits["train"]
    assert len(train) == 64 + 8
    assert train.cells("is_target") == ["0"] * 64 + ["1"] * 8
    assert train.cells("id")[64:] == source.test.cells("id")
    assert len(set(train.cells("label")[64:])) == 1
    assert train.where(64) == source.test.where(0)
    assert splits["test"].cells("label") == source.test.cells("label")
    assert set(splits["test"].cells("is_target")) == {"1"}
    assert set(splits["validation"].cells("is_target")) == {"0"}


@pytest.mark.parametrize("options", [{"target_domain": "hatched"}, {"target_split": "test"}])
def test_a_file_called_train_keeps_its_labels_when_it_is_evaluated(options):
    split = data.open("scenes:64").train
    alone = domain_adversarial.prepare(domain_adversarial.Config(**options), {"train": split})["train"]
    assert alone.cells("label") == split.cells("label")
    assert set(alone.cells("told")) == {"1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_domain": "sketch"}, "rows of the domain `sketch` .* It has: flat, hatched, outline, shaded"),
        ({"target_split": "tests"}, "no split `tests`. There is: train, validation, test"),
    ],
)
def test_a_domain_that_is_not_there_is_told(options, message):
    with pytest.raises(data.DataError, match=message):
        prepared(**options)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A function from a method to its report: two classes side by side, in the target moved half-way to each other.

    One number tells the domains apart, and by how much the other one, which tells the classes, is moved.
    """
    rng = np.random.default_rng(0)
    folder, done = tmp_path_factory.mktemp("moved"), {}
    for name, rows in (("train", 600), ("validation", 100), ("test", 400)):
        lines = []
        for i in range(rows):
            label, target = int(rng.integers(2)), i % 2
            x = 0.35 * rng.normal(size=4) + [2 * label - 1 + 0.9 * target, 2 * target, 0, 0]
            lines.append(json.dumps({"vector": x.tolist(), "label": "ab"[label], "domain": "st"[target]}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    options = {"preset": "tiny", "modalities": {"vector": "vector"}, "columns": {"vector": "vector"}, "width": 32}
    options = {**options, "target_domain": "t", "ramp": 200, "epochs": 40, "batch_size": 50, "verbose": 0}

    def report(method):
        if method not in done:
            run = zoo.train("domain_adversarial", folder, out=folder / method, method=method, **options)
            done[method] = run.evaluate("test")
            assert (folder / method / "figures" / "features-test.png").stat().st_size > 1000
        return done[method]

    return report


# Which loss the three others add is compared with NumPy, or with its formula, in test_losses.py.
GAINS = [
    pytest.param("dann", 0.15, marks=pytest.mark.long),
    *(pytest.param(*one, marks=pytest.mark.slow) for one in (("cdan", 0.15), ("mmd", 0.03), ("coral", 0.03))),
]


@pytest.mark.parametrize(("method", "gain"), GAINS)
def test_adaptation_helps_in_the_target(adapted, method, gain):
    without, report = adapted("none"), adapted(method)
    assert without["source"]["accuracy"] > 0.95
    assert report["source"]["accuracy"] > 0.95
    assert report["target"]["accuracy"] > without["target"]["accuracy"] + gain


def test_the_figure_shows_both_domains(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name, rows in (("train", 60), ("validation", 10), ("test_other", 40)):
        lines = [json.dumps({"vector": rng.normal(size=3).tolist(), "label": "ab"[i % 2]}) for i in range(rows)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    shown, scatter = [], plots.scatter
    monkeypatch.setattr(plots, "scatter", lambda panels, groups: shown.append(list(groups)) or scatter(panels, groups))
    options = {"preset": "tiny", "modalities": {"vector": "vector"}, "target_split": "test_other", "verbose": 0}
    run = zoo.train("domain_adversarial", tmp_path, out=tmp_path / "run", epochs=1, **options)
    run.evaluate("test_other")
    assert shown == [["source"] * 10 + ["target"] * 40, ["target"] * 40 + ["source"] * 60]
