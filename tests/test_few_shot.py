"""Few-shot learning: classes of their own, episodes, logits and gradients against NumPy and differences, learning."""

import collections

import keras
import numpy as np
import pytest

import zoo
from mmkeras import data, losses
from mmkeras.data import DataError
from mmkeras.training import Episodic
from mmkeras.training.episodic import METHODS

WAYS, SHOTS, QUERIES = 3, 2, 1


def test_prototypes_and_attention_equal_numpy():
    random = np.random.default_rng(0)
    support, queries = random.normal(size=(2, 5, 4)), random.normal(size=(2, 3, 4))
    of_class = np.array([0, 1, 2, 0, 1])
    labels = np.eye(3)[of_class]
    found = losses.prototypical(*(x.astype("float32") for x in (support, labels, queries))).numpy()
    for t, q, c in np.ndindex(2, 3, 3):
        mean = support[t][of_class == c].mean(axis=0)
        distance = ((queries[t, q] - mean) ** 2).sum() - (queries[t, q] ** 2).sum()  # the same for every class
        assert found[t, q, c] + (queries[t, q] ** 2).sum() == pytest.approx(-distance, abs=1e-4)
    shares = np.exp(losses.matching(*(x.astype("float32") for x in (support, labels, queries)), scale=3.0))
    for t, q in np.ndindex(2, 3):
        cosines = [x @ queries[t, q] / np.linalg.norm(x) / np.linalg.norm(queries[t, q]) for x in support[t]]
        weights = np.exp(3 * np.array(cosines)) / np.exp(3 * np.array(cosines)).sum()
        np.testing.assert_allclose(shares[t, q], [weights[of_class == c].sum() for c in range(3)], atol=1e-5)


# Gradients through gradient descent


@pytest.fixture
def double():
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(policy)


def small(method, **settings):
    keras.utils.set_random_seed(0)
    x = keras.Input((4,), name="vector")
    hidden = keras.layers.Dense(5, activation="tanh")(x)
    outputs = {"embedding": hidden, "label": keras.layers.Dense(WAYS)(hidden)}
    settings.update(method=method, ways=WAYS, shots=SHOTS, queries=QUERIES, inner_rate=0.5, inner_steps=2)
    model = Episodic({"vector": x}, outputs, **settings)
    model.compile(keras.optimizers.SGD(1.0))
    return model


def softmax_loss(logits, labels):
    return np.mean(np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(len(labels)), labels])


def descended(weights, x, labels, steps=2, rate=0.5):
    """Two-layer network after gradient descent, by the chain rule in NumPy."""
    w1, b1, w2, b2 = (w.copy() for w in weights)
    for _ in range(steps):
        hidden = np.tanh(x @ w1 + b1)
        logits = hidden @ w2 + b2
        slope = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        slope[np.arange(len(labels)), labels] -= 1
        slope /= len(labels)
        back = slope @ w2.T * (1 - hidden**2)
        w1, b1 = w1 - rate * x.T @ back, b1 - rate * back.sum(axis=0)
        w2, b2 = w2 - rate * hidden.T @ slope, b2 - rate * slope.sum(axis=0)
    return w1, b1, w2, b2


def outer_loss(weights, episodes):
    total = 0
    for rows in episodes:
        support, queries = rows[:, :SHOTS].reshape(-1, 4), rows[:, SHOTS:].reshape(-1, 4)
        w1, b1, w2, b2 = descended(weights, support, np.repeat(np.arange(WAYS), SHOTS))
        logits = np.tanh(queries @ w1 + b1) @ w2 + b2
        total += softmax_loss(logits, np.repeat(np.arange(WAYS), QUERIES)) / len(episodes)
    return total


def test_gradient_of_maml_equals_finite_differences(double):
    episodes = np.random.default_rng(1).normal(size=(2, WAYS, SHOTS + QUERIES, 4))
    model, first_order = small("maml"), small("maml", first_order=True)
    before = [w.numpy() for w in model.trainable_variables]
    logs = model.train_step(({"vector": keras.ops.convert_to_tensor(episodes.reshape(-1, 4))},))
    assert float(logs["loss"]) == pytest.approx(outer_loss(before, episodes), abs=1e-9)
    moved = [b - w.numpy() for b, w in zip(before, model.trainable_variables, strict=True)]  # of SGD at rate 1
    for k, weight in enumerate(before):
        for place in np.ndindex(weight.shape):
            sides = []
            for step in (1e-5, -1e-5):
                nudged = [w.copy() for w in before]
                nudged[k][place] += step
                sides.append(outer_loss(nudged, episodes))
            assert moved[k][place] == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-7)
    first_order.train_step(({"vector": keras.ops.convert_to_tensor(episodes.reshape(-1, 4))},))
    pairs = zip(model.trainable_variables, first_order.trainable_variables, strict=True)
    assert max(np.abs(a.numpy() - b.numpy()).max() for a, b in pairs) > 1e-3


def test_validation_is_the_mean_over_the_episodes(double):
    episodes = np.random.default_rng(1).normal(size=(2, WAYS, SHOTS + QUERIES, 4))
    model = small("maml")
    logs = model.test_step(({"vector": keras.ops.convert_to_tensor(episodes.reshape(-1, 4))},))
    assert float(logs["loss"]) == pytest.approx(outer_loss([w.numpy() for w in model.trainable_variables], episodes))


def test_reptile_moves_to_where_descent_leads(double):
    episodes = np.random.default_rng(1).normal(size=(2, WAYS, SHOTS + QUERIES, 4))
    model = small("reptile")
    before = [w.numpy() for w in model.trainable_variables]
    model.train_step(({"vector": keras.ops.convert_to_tensor(episodes.reshape(-1, 4))},))
    reached = []
    for rows in episodes:
        support, queries = rows[:, :SHOTS].reshape(-1, 4), rows[:, SHOTS:].reshape(-1, 4)
        labels = np.concatenate([np.repeat(np.arange(WAYS), SHOTS), np.repeat(np.arange(WAYS), QUERIES)])
        reached.append(descended(before, np.concatenate([support, queries]), labels))
    for weight, *ends in zip(model.trainable_variables, *reached, strict=True):
        np.testing.assert_allclose(weight.numpy(), np.mean(ends, axis=0), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_batches_are_whole_episodes(method):
    model, rows = small(method), {"vector": np.zeros((3 * WAYS * (SHOTS + QUERIES) // 2, 4), "float32")}
    episode, given = WAYS * (SHOTS + QUERIES), len(rows["vector"])
    with pytest.raises(ValueError, match=f"number of episodes of {episode} rows. Received: {given} rows"):
        model.fit(rows, batch_size=given, verbose=0)
    with pytest.raises(ValueError, match=f"number of episodes of {episode} rows. Received: {given - episode} rows"):
        model.fit(rows, batch_size=episode, verbose=0)


def test_what_adapts_refuses_dropout():
    with pytest.raises(ValueError, match="method='maml' computes as in training also when it is asked"):
        zoo.build("few_shot", preset="tiny", method="maml", modality_dropout=0.2)


# Episodes


def test_episodes_are_of_different_classes_and_rows():
    classes = ["a"] * 5 + ["b"] * 4 + [""] * 9 + ["c"] * 7 + ["d"] * 2
    drawn = data.episodes(classes, 50, 3, 4, np.random.default_rng(0))
    assert drawn.shape == (50, 3, 4)
    for episode in drawn:
        assert sorted({classes[i] for i in rows}.pop() for rows in episode) == ["a", "b", "c"]
        assert all(len(set(rows)) == 4 and len({classes[i] for i in rows}) == 1 for rows in episode)
    with pytest.raises(DataError, match="Expected 4 classes or more of 4 rows or more .* Found 3 among 4 classes"):
        data.episodes(classes, 1, 4, 4, np.random.default_rng(0))


def test_classes_are_divided_once_and_for_all():
    source = data.open("scenes:400")
    divided = data.divide_classes(source.splits, "object")
    classes = {name: set(split.cells("object")) for name, split in divided.items()}
    assert not classes["train"] & classes["validation"]
    assert not (classes["train"] | classes["validation"]) & classes["test"]
    assert set().union(*classes.values()) == set().union(*(set(s.cells("object")) for s in source.splits.values()))
    ids = collections.Counter(i for split in divided.values() for i in split.cells("id"))
    assert len(ids) == sum(len(split) for split in source.splits.values())  # every row once, none twice
    assert set(ids.values()) == {1}
    again = data.divide_classes(divided, "object")
    assert [again[name] is divided[name] for name in divided] == [True] * 3
    alone = {"test": source.test}
    assert data.divide_classes(alone, "object")["test"] is source.test


def test_an_epoch_has_its_own_episodes_and_always_the_same():
    config = zoo._registry.configure("few_shot", "tiny")
    module, split = zoo._registry.module("few_shot"), data.open("scenes:400").train
    first, again, other = (module.order(config, split, 0, epoch) for epoch in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert len(first) == config.steps * config.batch_size == 4 * 2 * 2 * (1 + 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ways": 40}, "Expected 40 classes or more of 4 rows or more each for an episode. Found"),
     ({"class_column": "kind"}, "has no column `kind`"), ({"ways": 1}, "`ways`. Expected at least 2")],
)  # fmt: skip
def test_too_few_classes_are_said(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.train("few_shot", "scenes:100", out=tmp_path / "run", preset="tiny", verbose=0, **options)
    assert not (tmp_path / "run").exists()


# Learning

LEARNING = {
    "prototypical": {}, "matching": {}, "maml": {"steps": 100, "tasks": 2},
    "reptile": {"steps": 40, "inner_steps": 4, "shots": 3},
}  # fmt: skip
SLOW = ("matching", "maml", "reptile")  # whose logits and steps are compared with NumPy above


@pytest.fixture(scope="module", params=[pytest.param(m, marks=[pytest.mark.slow] * (m in SLOW)) for m in LEARNING])
def trained(request, tmp_path_factory):
    options = {"preset": "tiny", "ways": 3, "steps": 100, "epochs": 3, "verbose": 0, "tasks": 4}
    options.update(LEARNING[request.param])
    out = tmp_path_factory.mktemp("runs") / "run"
    return zoo.train("few_shot", "scenes:1000", out=out, method=request.param, **options)


def test_new_classes_are_told_apart(trained):
    report = trained.evaluate("test", num_episodes=150)
    for title in ("3-way 1-shot", "3-way 5-shot"):
        found, raw = report[title], report[f"{title}, raw inputs"]
        assert found["accuracy"] - found["interval"] > max(raw["accuracy"], found["chance"]) + 0.03, title
    assert (trained.path / "figures" / "episode-test.png").exists()


def test_examples_name_the_classes(trained):
    split = trained.split("test")
    names = sorted(set(split.cells("object")))[:2]
    of_class = [[p for p, name in zip(split.cells("image"), split.cells("object"), strict=True) if name == wanted]
                for wanted in names]  # fmt: skip
    support = {"support_image": of_class[0][:3] + of_class[1][:3], "support_label": np.repeat(names, 3).tolist()}
    answer = trained.predict("classify", image=of_class[0][:3] + of_class[1][:3], **support)
    assert answer["classes"][0].tolist() == names
    assert answer["probabilities"].shape == (6, 2)
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, atol=1e-5)
    if trained.config.method == "prototypical":  # the examples themselves
        assert np.mean(answer["label"] == support["support_label"]) >= 5 / 6
    turned = {**support, "support_label": support["support_label"][::-1]}
    other = trained.predict("classify", image=of_class[0][:3] + of_class[1][:3], **turned)
    np.testing.assert_allclose(other["probabilities"], answer["probabilities"], atol=1e-3)
    assert other["classes"][0].tolist() == names[::-1]
    with pytest.raises(ValueError, match=r"as many values for each of support_image, support_label. Received: {"):
        trained.predict("classify", image=of_class[0][:1], support_image=of_class[0][:2], support_label=["a"])
    if trained.model.adapts:
        with pytest.raises(Exception, match="Expected 3 classes or fewer"):
            trained.predict(
                "classify", image=of_class[0][:1], support_image=of_class[0][:4], support_label=list("abcd")
            )
