"""Several tasks at once, tags with thresholds, and polarities: the parts against loops, and what they are for."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from mmkeras import layers, losses, metrics, training
from mmkeras.training.balance import project_conflicts

# Keras says this of every tf.data.Dataset given to `fit` with its own default of shuffle=True.
pytestmark = pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning")


def by_loops(gradients, order):
    total = np.zeros(gradients.shape[1])
    for i, own in enumerate(gradients):
        own = own.copy()
        for j in order[i]:
            if j != i and own @ gradients[j] < 0:
                own -= own @ gradients[j] / (gradients[j] @ gradients[j]) * gradients[j]
        total += own
    return total


@pytest.mark.parametrize("seed", range(5))
def test_conflicts_are_projected_as_by_loops(seed):
    random = np.random.default_rng(seed)
    gradients, draws = random.normal(size=(4, 6)), random.uniform(size=(4, 4))
    got = project_conflicts(gradients.astype("float32"), draws.astype("float32"))
    np.testing.assert_allclose(got, by_loops(gradients, draws.argsort(axis=-1)), atol=1e-4)


def test_gradients_that_agree_are_left_alone():
    gradients = np.abs(np.random.default_rng(0).normal(size=(3, 5))).astype("float32")
    np.testing.assert_allclose(project_conflicts(gradients, np.zeros((3, 3))), gradients.sum(axis=0), rtol=1e-5)


def rows(random):
    return (
        {"image": random.random((8, 16, 16, 3), "float32"), "text": random.integers(4, 50, (8, 8)).astype("int32")},
        {"label": random.integers(0, 6, 8), "tags": (random.random((8, 14)) < 0.3).astype("float32")},
    )


@pytest.mark.long
@pytest.mark.parametrize("balance", training.BALANCES)
def test_every_balance_trains_all_tasks_and_is_kept(balance, tmp_path):
    keras.utils.set_random_seed(0)
    x, y = rows(np.random.default_rng(0))
    model = zoo.build("multitask", preset="tiny", balance=balance, text_encoder="cnn", weight_decay=0.0)
    before = [v.numpy() for v in model.trainable_variables]
    data = tf.data.Dataset.from_tensors((x, y)).repeat(60)
    first = model.fit(data.take(1), verbose=0).history
    last = model.fit(data, verbose=0).history
    for task in ("category", "tagging", "caption", "retrieval"):
        assert last[task][-1] < first[task][-1], task
    assert all((a != b.numpy()).any() for a, b in zip(before, model.trainable_variables, strict=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.balance == balance
    np.testing.assert_array_equal(loaded(x)["label"], model(x)["label"])


def test_fixed_weights_are_those_of_the_heads():
    x, y = rows(np.random.default_rng(0))
    heads = {"category": 2.0, "tags": 0.5}
    model = zoo.build("multitask", preset="tiny", heads=heads)
    assert set(model.output) == {"label", "tags"}
    outputs = model(x, training=False)
    label = keras.losses.sparse_categorical_crossentropy(y["label"], outputs["label"], from_logits=True)
    tags = keras.losses.binary_crossentropy(y["tags"], outputs["tags"], from_logits=True)
    expected = 2 * float(np.mean(label)) + 0.5 * float(np.mean(tags))
    assert float(model.compute_loss(x, y, outputs, training=False)) == pytest.approx(expected, rel=1e-5)


def test_uncertainty_is_kendalls():
    x, y = rows(np.random.default_rng(0))
    model = zoo.build("multitask", preset="tiny", balance="uncertainty", heads={"category": 1.0, "tags": 1.0})
    model.get_layer("task_weights").values.assign([0.7, -1.2])
    outputs = model(x, training=False)
    parts = [float(v) for v in model.objective(model.matched(x), y, outputs)[1].values()]
    expected = sum(np.exp(-s) * loss + s / 2 for s, loss in zip((0.7, -1.2), parts, strict=True))
    assert float(model.compute_loss(x, y, outputs, training=False)) == pytest.approx(expected, rel=1e-5)


def test_the_spread_of_a_task_without_rows_stays():
    x, y = rows(np.random.default_rng(0))
    x["presence"] = np.array([[1, 0]] * 8, "float32")
    model = zoo.build("multitask", preset="tiny", balance="uncertainty", heads={"category": 1.0, "caption": 1.0})
    spreads = model.get_layer("task_weights").values
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    slopes = tape.gradient(loss, spreads.value).numpy()
    assert slopes[1] == 0
    assert slopes[0] != 0


def test_gradnorm_lifts_the_task_whose_gradient_is_small():
    keras.utils.set_random_seed(0)
    x, y = rows(np.random.default_rng(0))
    heads = {"category": 20.0, "tags": 0.05}  # by their scale alone the first would rule
    model = zoo.build("multitask", preset="tiny", balance="gradnorm", heads=heads, learning_rate=1e-4)
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(30), verbose=0)
    category, tags = model.get_layer("task_weights").values.numpy()
    assert tags > 1.3 > 0.7 > category
    assert category + tags == pytest.approx(2, abs=1e-4)


# Tags


def test_thresholds_are_the_best_of_all():
    random = np.random.default_rng(0)
    labels = (random.random((60, 5)) < 0.3).astype(int)
    scores = np.clip(0.4 * labels + random.uniform(0, 0.7, labels.shape), 0, 1).round(2)  # rounded: equal ones occur
    best = metrics.best_thresholds(labels, scores)

    def f1(positive, predicted):
        return 2 * (positive & predicted).sum() / max(positive.sum() + predicted.sum(), 1)

    for c in range(5):
        every = max(f1(labels[:, c] > 0, scores[:, c] >= t) for t in np.linspace(0, 1, 1001))
        assert f1(labels[:, c] > 0, scores[:, c] >= best[c]) == pytest.approx(every)


def test_a_tag_that_validation_lacks_gets_the_common_threshold():
    labels = np.array([[1, 0], [1, 0], [0, 0]])
    scores = np.array([[0.9, 0.2], [0.8, 0.1], [0.3, 0.1]])
    assert metrics.best_thresholds(labels, scores).tolist() == pytest.approx([0.55, 0.55])


def test_a_rare_tag_gets_the_common_threshold():
    labels = np.array([[1, 0], [1, 0], [0, 0], [0, 1]])
    scores = np.array([[0.9, 0.2], [0.8, 0.1], [0.3, 0.1], [0.1, 0.15]])
    own, common = (metrics.best_thresholds(labels, scores, min_count=n).tolist() for n in (1, 2))
    assert own == pytest.approx([0.55, 0.125])
    assert common == pytest.approx([0.55, 0.55])


@pytest.mark.parametrize(("num_labels", "num_queries"), [(3, 10), (7, 3), (8, 4)])
def test_neighbouring_labels_share_a_query(num_labels, num_queries):
    random = np.random.default_rng(0)
    memory, counts = random.normal(size=(2, 5, 8)).astype("float32"), np.ones((2, 5), "float32")
    counts[1, 2:] = 0
    layer = layers.LabelQueries(num_labels, num_queries, num_heads=2)
    logits, attention = layer(memory, counts)
    share = -(-num_labels // num_queries)
    assert logits.shape == (2, num_labels)
    np.testing.assert_allclose(attention.numpy().sum(-1), 1, rtol=1e-5)
    assert np.abs(attention[1, :, 2:]).max() < 1e-6
    for a, b in itertools.combinations(range(num_labels), 2):
        same = np.allclose(attention[0, a], attention[0, b], atol=1e-7)
        assert same == (a // share == b // share)
    # Each logit is its own vector's product with what its query saw.
    before = logits.numpy()
    kernel = layer.kernel.numpy()
    kernel[1 // share, :, 1 % share] = 0
    layer.kernel.assign(kernel)
    changed = np.abs(layer(memory, counts)[0].numpy() - before).max(axis=0) > 1e-6
    assert changed.tolist() == [c == 1 for c in range(num_labels)]


# Polarity


def test_moments_by_loops():
    random = np.random.default_rng(0)
    a, b = random.uniform(-1, 1, (20, 3)), random.uniform(-0.5, 1, (20, 3))
    weights = (random.random(20) < 0.7).astype("float64")
    x, y = a[weights > 0], b[weights > 0]
    expected = np.linalg.norm(x.mean(0) - y.mean(0))
    for k in range(2, 6):
        expected += np.linalg.norm(((x - x.mean(0)) ** k).mean(0) - ((y - y.mean(0)) ** k).mean(0))
    got = losses.moment_discrepancy(a.astype("float32"), b.astype("float32"), weights.astype("float32"))
    assert float(got) == pytest.approx(expected, rel=1e-4)


def test_overlap_is_the_mean_squared_correlation():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(30, 3)), random.normal(size=(30, 2))
    correlations = np.corrcoef(a.T, b.T)[:3, 3:]
    got = losses.overlap(a.astype("float32"), b.astype("float32"))
    assert float(got) == pytest.approx((correlations**2).mean(), rel=1e-3)
    weights = np.array([1.0] * 20 + [0.0] * 10, "float32")
    part = losses.overlap(a.astype("float32"), b.astype("float32"), weights)
    assert float(part) == pytest.approx((np.corrcoef(a[:20].T, b[:20].T)[:3, 3:] ** 2).mean(), rel=1e-3)


def test_polarity_known_values():
    result = metrics.polarity(np.array([-2.0, -1.0, 0.0, 1.0, 3.0]), np.array([-1.0, 0.5, 0.2, 0.5, 2.0]))
    assert result["mae"] == pytest.approx((1 + 1.5 + 0.2 + 0.5 + 1) / 5)
    assert result["acc2"] == 0.75  # the zero does not count
    assert result["f1"] == pytest.approx(0.5 * (2 / 3) + 0.5 * 0.8)
    assert metrics.polarity(np.array([1.0, -1.0]), np.array([0.3, 0.3]))["pearson"] == 0


def test_contributions_add_up_and_an_absent_modality_has_none():
    from zoo import sentiment

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    for task in ("regression", "classification"):
        modalities = {"image": "image", "remark": "text", "audio": "vector"}
        options = {"modalities": modalities, "vector_dim": {"audio": 3}, "task": task, "preset": "tiny"}
        model = zoo.build("sentiment", **options)
        config = zoo._registry.configure("sentiment", **options)
        presence = np.ones((4, 3), "float32")
        presence[2, 1] = 0
        x = {"image": random.random((4, 16, 16, 3), "float32"), "remark": random.integers(4, 50, (4, 8)),
             "audio": random.normal(size=(4, 3)).astype("float32"), "presence": presence}  # fmt: skip
        parts = sentiment.contributions(config, model, {key: tf.constant(value) for key, value in x.items()})
        answer = model(x, training=False)["polarity"]
        answer = tf.reduce_max(tf.nn.softmax(answer), -1) if task == "classification" else answer
        np.testing.assert_allclose(sum(parts.values()), answer, atol=1e-5)
        assert set(parts) == {"base", *modalities}
        assert float(parts["image"][2]) == pytest.approx(0, abs=1e-6)  # names are sorted: audio, image, remark
