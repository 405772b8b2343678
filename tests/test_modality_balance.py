"""Modalities that learn at different paces, and a teacher that sees others: rules against loops and closed forms."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

import zoo
from mmkeras import losses, training
from mmkeras.training.modality_balance import blend_shares, modulation
from zoo.fusion_classifier import TOKEN_FUSIONS

MODALITIES = {"a": "vector", "b": "vector"}


def build(**options):
    keras.utils.set_random_seed(0)
    settings = {"modalities": MODALITIES, "vector_dim": {"a": 3, "b": 2}, "fusion": "concat", "weight_decay": 0.0}
    return zoo.build("fusion_classifier", preset="tiny", **{**settings, **options})


def rows(count=12, seed=0):
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    presence = np.ones((count, 2), "float32")
    presence[::4, 1] = 0
    x = {"a": random.normal(size=(count, 3)) + y[:, None], "b": random.normal(size=(count, 2)) - y[:, None]}
    return {**{name: value.astype("float32") for name, value in x.items()}, "presence": presence}, {"label": y}


def test_modulation_by_loops():
    scores, strength = np.array([0.7, 0.2, 0.4]), 0.6
    expected = []
    for i, score in enumerate(scores):
        ratio = score / np.mean([other for j, other in enumerate(scores) if j != i])
        expected.append(1 - math.tanh(strength * ratio) if ratio > 1 else 1.0)
    np.testing.assert_allclose(modulation(scores.astype("float32"), strength), expected, rtol=1e-5)
    assert min(expected) < 0.5
    assert expected.count(1.0) == 2


def test_factors_come_from_the_rows_that_have_the_modality():
    model = build(balance="ogm_ge", balance_strength=0.5)
    x, y = rows()
    outputs = {name: value.numpy() for name, value in model(x).items()}
    scores = []
    for i, name in enumerate("ab"):
        own = softmax(outputs[f"{name}_alone"], axis=-1)[np.arange(12), y["label"]]
        scores.append(own[x["presence"][:, i] > 0].mean())
    ahead = int(np.argmax(scores))
    factors = model.factors(x, y, outputs)
    assert float(factors["ab"[ahead]]) == pytest.approx(
        1 - math.tanh(0.5 * scores[ahead] / scores[1 - ahead]), rel=1e-5
    )
    assert float(factors["ab"[1 - ahead]]) == 1


def step(model, x, y):
    """What a step of plain SGD at rate one takes away, and the gradients of the loss, by variable."""
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    slopes = [tf.convert_to_tensor(slope).numpy() for slope in tape.gradient(loss, variables)]
    factors = {name: float(value) for name, value in model.factors(x, y, model(x, training=True)).items()}
    before = [v.numpy() for v in variables]
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss={"label": losses.LabelCrossentropy()})
    model.train_step((x, y))
    taken = [b - v.numpy() for b, v in zip(before, variables, strict=True)]
    owners = {id(v): n for n in "ab" for v in model.get_layer(f"{n}_encoder").trainable_variables}
    return taken, slopes, factors, [owners.get(id(v)) for v in variables]


def test_a_step_takes_the_encoders_gradients_times_their_factors(monkeypatch):
    monkeypatch.setattr(keras.random, "normal", lambda shape, **options: tf.zeros(shape))
    model = build(balance="ogm_ge", balance_strength=0.5)
    taken, slopes, factors, names = step(model, *rows())
    assert min(factors.values()) < 0.7
    assert set(names) == {"a", "b", None}
    for got, slope, name in zip(taken, slopes, names, strict=True):
        np.testing.assert_allclose(got, slope * factors.get(name, 1.0), atol=1e-6)


def test_the_noise_is_as_large_as_the_gradient():
    model = build(balance="ogm_ge", balance_strength=0.5, vector_width=400)
    taken, slopes, factors, names = step(model, *rows())
    assert {n for n, slope in zip(names, slopes, strict=True) if slope.size > 500} == {"a", "b", None}
    for got, slope, name in zip(taken, slopes, names, strict=True):
        noise = got - slope * factors.get(name, 1.0)
        if name is None:
            assert np.abs(noise).max() < 1e-6
        elif slope.size > 500:
            assert noise.std() == pytest.approx(slope.std(), rel=0.15)
            assert abs(noise.mean()) < 0.15 * slope.std()


def test_noise_leaves_words_that_did_not_occur():
    keras.utils.set_random_seed(0)
    modalities, options = {"a": "vector", "t": "text"}, {"vector_dim": {"a": 3}, "num_classes": 3, "preset": "tiny"}
    model = zoo.build("fusion_classifier", modalities=modalities, balance="ogm_ge", optimizer="sgd", **options)
    table = model.get_layer("t_encoder").get_layer("text_embedding").table
    before = table.numpy()
    x = {"a": np.ones((4, 3), "float32"), "t": np.array([[5, 7, 0, 0, 0, 0, 0, 0]] * 4)}
    model.train_step(({name: tf.constant(value) for name, value in x.items()}, {"label": tf.constant([0, 1, 2, 0])}))
    changed = np.flatnonzero((table.numpy() != before).any(axis=-1))
    assert {5, 7} <= set(changed) <= {0, 5, 7}


def test_heads_that_measure_do_not_train_the_encoders():
    x, y = rows()
    for balance, trained in (("ogm_ge", False), ("gradient_blend", True)):
        model = build(balance=balance)
        with tf.GradientTape() as tape:
            loss = sum(model._alone(x, y, model(x)).values())
        slopes = tape.gradient(loss, model.get_layer("a_encoder").trainable_variables)
        assert [slope is not None for slope in slopes] == [trained] * len(slopes)


def test_the_loss_is_that_of_all_heads_by_their_shares():
    model = build(balance="gradient_blend")
    x, y = rows()
    outputs = model(x)
    each = []
    for name, here in (("label", [1.0] * 12), ("a_alone", x["presence"][:, 0]), ("b_alone", x["presence"][:, 1])):
        of_rows = -log_softmax(outputs[name].numpy(), axis=-1)[np.arange(12), y["label"]]
        each.append(np.average(of_rows, weights=here))
    assert float(model.compute_loss(x, y, outputs)) == pytest.approx(np.mean(each), rel=1e-5)
    model.shares.assign([0.5, 0.2, 0.3])
    assert float(model.compute_loss(x, y, outputs)) == pytest.approx(np.dot([0.5, 0.2, 0.3], each), rel=1e-5)


def test_blend_shares_by_hand():
    before = np.array([[1.1, 1.1, 1.1], [1.1, 1.1, 1.1]])
    after = np.array([[0.2, 0.6, 0.5], [0.7, 0.8, 1.2]])  # the last has become worse, the first overfits most
    first, second = 0.4 / 0.5**2, 0.3 / 0.2**2
    np.testing.assert_allclose(blend_shares(before, after), [first / (first + second), second / (first + second), 0])
    assert blend_shares(before, after + 1) is None


def test_training_weighs_the_heads_by_what_it_logged(tmp_path):
    model = build(balance="gradient_blend", balance_every=2)
    x, y = rows(64)
    history = model.fit(x, y, validation_data=rows(32, seed=1), epochs=5, batch_size=16, verbose=0).history
    heads, before, shares = ("joint", "a_alone", "b_alone"), np.full((2, 3), math.log(3)), np.full(3, 1 / 3)
    for epoch in (1, 3):
        after = np.array([[history[f"{part}{head}_loss"][epoch] for head in heads] for part in ("", "val_")])
        found = blend_shares(before, after)
        shares, before = shares if found is None else found, after
    np.testing.assert_allclose(model.shares, shares, rtol=1e-4)
    assert not np.allclose(shares, 1 / 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.shares, model.shares)
    np.testing.assert_array_equal(loaded.before, model.before)
    np.testing.assert_array_equal(loaded(x)["label"], model(x)["label"])
    with pytest.raises(ValueError, match="gradient_blend' weighs by validation losses"):
        model.fit(x, y, epochs=2, verbose=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": "ogm_ge", "fusion": "mmtm"}, "two modalities or more with encoders of their own"),
        ({"balance": "gradient_blend", "modalities": {"a": "vector"}}, "two modalities or more"),
        ({"balance": "ogm_ge", "labels": "many"}, "one label a row"),
        ({"teacher": "runs/x", "labels": "many"}, "one label a row"),
        ({"class_weight": "balanced", "labels": "many"}, "`class_weight` is of one label a row"),
    ],
)
def test_what_cannot_be_balanced_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


# Runs: two vectors of which each tells the label


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Manifests whose rows have vectors `a` and `b`; `b` tells the label as well, but not as the sum of its numbers."""
    folder = tmp_path_factory.mktemp("two")
    for seed, (name, count) in enumerate((("train", 240), ("validation", 60), ("test", 200))):
        random, lines = np.random.default_rng(seed), []
        for _ in range(count):
            label = int(random.integers(3))
            a, b = np.eye(3)[label] * 2, np.eye(3)[(label + 1) % 3] * 2
            noisy = {"a": a + 0.3 * random.normal(size=3), "b": b + 0.3 * random.normal(size=3)}
            lines.append(json.dumps({**{k: v.tolist() for k, v in noisy.items()}, "label": "xyz"[label]}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


COLUMNS = {"a": "vector", "b": "vector"}


def train(folder, out, names="ab", **options):
    settings = {"preset": "tiny", "columns": COLUMNS, "modalities": dict.fromkeys(names, "vector"), "epochs": 6}
    settings = {**settings, "verbose": 0, "batch_size": 20, "fusion": "concat", "learning_rate": 0.01}
    return zoo.train("fusion_classifier", folder, out=out, **{**settings, **options})


@pytest.mark.long
@pytest.mark.parametrize("balance", training.MODALITY_BALANCES)
def test_a_balanced_run_learns(folder, tmp_path, balance):
    run = train(folder, tmp_path / "run", balance=balance, class_weight="balanced")
    assert run.evaluate("test")["a and b"]["accuracy"] > 0.9


def test_a_resumed_run_knows_its_shares(folder, tmp_path):
    options = {"balance": "gradient_blend", "balance_every": 2, "schedule": "constant"}
    whole = train(folder, tmp_path / "whole", epochs=4, **options)
    train(folder, tmp_path / "parts", epochs=2, **options)
    resumed = zoo.train("fusion_classifier", out=tmp_path / "parts", resume=True, epochs=4, verbose=0)
    assert np.ptp(resumed.model.shares) > 0.01
    for one, other in zip(resumed.model.variables, whole.model.variables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=one.path)


# A teacher


def test_distillation_is_the_divergence_of_softened_shares():
    random = np.random.default_rng(0)
    teacher, student = random.normal(size=(2, 5, 4)).astype("float32") * 3
    p, q = softmax(teacher / 3, axis=-1), softmax(student / 3, axis=-1)
    expected = 9 * (p * np.log(p / q)).sum(axis=-1).mean()
    assert float(losses.Distillation(3.0)(teacher, student)) == pytest.approx(expected, rel=1e-4)
    slope = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = losses.Distillation(3.0)(teacher, slope)
    np.testing.assert_allclose(tape.gradient(loss, slope), 3 * (q - p) / 5, atol=1e-5)


def test_a_student_learns_from_the_teacher_alone_what_it_sees_in_another_modality(folder, tmp_path):
    train(folder, tmp_path / "teacher", "a")
    # The student's own labels are wrong, all of them: what it gets right it has from the teacher.
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for name in ("train", "validation"):
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        lines = [{**line, "label": "yzx"["xyz".index(line["label"])]} for line in lines]
        (wrong / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = {"teacher": str(tmp_path / "teacher"), "teacher_weight": 1.0, "class_weight": "balanced"}
    run = train(wrong, tmp_path / "student", "b", **options)
    assert run.evaluate("test", data=folder)["b"]["accuracy"] > 0.9
    assert set(run.predict(b=[[0.0, 2.0, 0.0]])) == set(zoo.load(tmp_path / "teacher").predict(a=[[2.0, 0.0, 0.0]]))
    first = run.preprocessor.reader("label").vocabulary
    assert sorted(first) == ["x", "y", "z"]


def test_soft_labels_follow_the_rows_and_the_students_labels(folder, tmp_path):
    from zoo._teacher import soft_labels

    teacher = train(folder, tmp_path / "teacher", "a", epochs=2)
    student = train(folder, tmp_path / "student", "b", epochs=1, teacher=str(tmp_path / "teacher"))
    split = student.split("validation")
    asked = teacher.predict(a=split.cells("a"))
    known = teacher.preprocessor.reader("label").vocabulary
    shares = asked["probabilities"][:, [known.index(label) for label in student.labels]]
    np.testing.assert_allclose(softmax(soft_labels(student, split), axis=-1), shares, atol=1e-5)


@pytest.mark.long
def test_a_teacher_that_cannot_teach_is_told(folder, tmp_path):
    train(folder, tmp_path / "teacher", "a", epochs=1)
    few = tmp_path / "few"
    few.mkdir()
    for name in ("train", "validation", "test"):
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        (few / f"{name}.jsonl").write_text(
            "\n".join(json.dumps({"b": line["b"], "label": "u" + line["label"]}) for line in lines)
        )
    teacher, columns = str(tmp_path / "teacher"), {"b": "vector"}
    with pytest.raises(ValueError, match="does not know the label 'ux'. It knows: "):
        train(few, tmp_path / "no", "b", teacher=teacher, columns=columns)
    for file in few.iterdir():
        file.write_text(file.read_text().replace('"u', '"'))
    with pytest.raises(ValueError, match="looks at `a`, which .* lacks"):
        train(few, tmp_path / "no", "b", teacher=teacher, columns=columns)
    zoo.train("autoencoder", "scenes:40", out=tmp_path / "auto", preset="tiny", epochs=1, verbose=0)
    with pytest.raises(ValueError, match="Expected a teacher that names one label a row. .* a run of autoencoder"):
        train(folder, tmp_path / "no", "b", teacher=str(tmp_path / "auto"))
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("fusion", TOKEN_FUSIONS)
def test_a_head_alone_sees_its_modality_alone(fusion):
    model, (x, _) = build(balance="ogm_ge", fusion=fusion), rows()
    moved = {**x, "a": 10 * x["a"] + 5}
    np.testing.assert_array_equal(model(x)["b_alone"], model(moved)["b_alone"])
    assert np.abs(model(x)["label"] - model(moved)["label"]).max() > 1e-3


@pytest.mark.parametrize("balance", ["none", "ogm_ge", "gradient_blend"])
def test_labels_alone_or_in_a_column_are_labels(balance):
    x, y = rows()
    histories = []
    for labels in (y, y["label"], {"label": y["label"][:, None]}):
        model = build(balance=balance)
        histories.append(model.fit(x, labels, validation_data=(x, labels), verbose=0).history)
    assert "val_accuracy" in histories[0]
    assert histories[0] == histories[1] == histories[2]


def test_a_modality_that_no_row_has_is_no_rival():
    model, (x, y) = build(balance="ogm_ge"), rows()
    x["presence"][:, 1] = 0
    assert {name: float(factor) for name, factor in model.factors(x, y, model(x)).items()} == {"a": 1.0, "b": 1.0}
    here = np.array([True, True, False])
    np.testing.assert_allclose(modulation(np.array([0.4, 0.2, 0.0]), 0.6, here)[:2], [1 - math.tanh(1.2), 1])
