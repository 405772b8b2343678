"""Adam in one operation: the numbers of Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from mmkeras import data, training
from mmkeras.training import make_optimizer, tensorflow_optimizers
from zoo import _registry

STEPS = 40


def stepped(optimizer, shapes=((7, 5), (5,), (3, 2)), strategy=None):
    """Weights after some steps, the optimiser's own first and second moments, by the graph that `fit` would run."""
    random = np.random.default_rng(0)
    weights = [keras.Variable(random.normal(size=shape), name="bias" * (len(shape) == 1)) for shape in shapes]
    gradients = random.normal(size=(STEPS, sum(np.prod(shape) for shape in shapes))).astype("float32")
    optimizer.build(weights)

    @tf.function
    def step(gradient):
        parts = tf.split(gradient, [int(np.prod(shape)) for shape in shapes])
        parts = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        optimizer.apply(parts, weights)

    for gradient in gradients:
        step(tf.constant(gradient))
    return [value.numpy() for value in (*weights, *optimizer._momentums, *optimizer._velocities)], step


OPTIONS = [
    {},
    {"clip_norm": 0.5},
    {"beta_1": 0.5, "weight_decay": 0.3},
    {"schedule": "cosine", "warmup": 0.2, "steps": STEPS, "weight_decay": 0.3},
]


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "clipped", "decayed", "scheduled"])
def test_steps_are_those_of_keras(name, options):
    mine = make_optimizer(name, 0.01, **options)
    assert type(mine).__module__ == "mmkeras.training.tensorflow_optimizers"
    theirs = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[name].from_config(mine.get_config())
    for one in (mine, theirs):
        one.exclude_from_weight_decay(var_names=["bias"])
    (mine, step), (theirs, other) = stepped(mine), stepped(theirs)
    for one, two in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    operations = [len(f.get_concrete_function(tf.zeros(46)).graph.get_operations()) for f in (step, other)]
    assert operations[0] < operations[1]


def test_amsgrad_and_gradients_of_embeddings_are_those_of_keras():
    one, two = (stepped(kind(0.01, amsgrad=True))[0] for kind in (tensorflow_optimizers.Adam, keras.optimizers.Adam))
    np.testing.assert_array_equal(np.concatenate([a.ravel() for a in one]), np.concatenate([a.ravel() for a in two]))
    tables = []
    for kind in (tensorflow_optimizers.Adam, keras.optimizers.Adam):
        table = keras.Variable(np.ones((6, 2), "float32"))
        optimizer = kind(0.1)
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.gather(table.value, [1, 1, 4]) ** 2)
            gradient = tape.gradient(loss, table.value)
            assert isinstance(gradient, tf.IndexedSlices)
            optimizer.apply([gradient], [table])
        tables.append(table.numpy())
    np.testing.assert_array_equal(*tables)
    assert (tables[0][[0, 2, 3, 5]] == 1).all()


def test_under_a_strategy_the_step_is_that_of_keras():
    devices = tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices[:1]])
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
        model.compile(make_optimizer("adam", 0.1), "mse")
    model.fit(np.ones((4, 3), "float32"), np.zeros((4, 1), "float32"), batch_size=4, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], 0.9, atol=1e-6)


# float16, whose losses are scaled

OWN_STEPS = [
    ("dual_encoder", {"chunk": 3}),
    ("conditional_gan", {"penalty_weight": 1.0}),
    ("multitask", {"balance": "gradnorm"}),
    ("multitask", {"balance": "pcgrad"}),
    ("few_shot", {"method": "maml"}),
    ("few_shot", {"method": "reptile"}),
    ("captioner", {"adversarial_weight": 0.5}),
    ("fusion_classifier", {"balance": "ogm_ge", "num_classes": 6}),
]


@pytest.mark.parametrize(("name", "options"), OWN_STEPS, ids=[f"{n}-{next(iter(o))}" for n, o in OWN_STEPS])
def test_own_steps_with_scaled_losses_are_those_without(name, options):
    preprocessor, split = zoo.preprocessor(name, "tiny", **options), data.scenes(16).train
    data.adapt(preprocessor, split)
    config, module = _registry.configure(name, "tiny", **options), _registry.module(name)
    (batch,) = data.batches(split, preprocessor, config.batch_size, training=False).take(1)
    after = []
    for scale in (lambda optimizer: optimizer, tensorflow_optimizers.LossScale):
        keras.utils.set_random_seed(0)
        model, objective = module.build(config), module.objective(config)
        start = [weight.numpy() for weight in model.trainable_variables]
        optimizer = scale(tensorflow_optimizers.SGD(2.0**-7))
        model.compile(optimizer, **(objective if isinstance(objective, dict) else {}))
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        logs = model.train_step(batch)
        after.append([*logs.values(), *(weight.numpy() for weight in model.trainable_variables)])
    for one, other in zip(*after, strict=True):
        np.testing.assert_array_equal(one, other)  # to the bit: the scale is a power of two
    assert max(np.abs(a - b).max() for a, b in zip(start, after[0][-len(start) :], strict=True)) > 1e-4


@pytest.mark.long
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), [OWN_STEPS[0], OWN_STEPS[6]], ids=["chunks", "adversarial_texts"])
def test_own_steps_compute_in_half_the_precision(name, options, half):
    preprocessor, split = zoo.preprocessor(name, "tiny", **options), data.scenes(16).train
    data.adapt(preprocessor, split)
    with training.precision(half):
        model = zoo.build(name, "tiny", **options)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    (batch,) = data.batches(split, preprocessor, 8, training=False).take(1)
    for step in (model.train_step, model.test_step):
        logs = tf.function(step, autograph=False)(batch)
        assert all(np.isfinite(float(value)) for value in logs.values())
    assert model.get_layer("image_encoder").compute_dtype == half


def test_gradnorm_leaves_a_step_out_that_overflows():
    preprocessor, split = zoo.preprocessor("multitask", "tiny"), data.scenes(16).train
    data.adapt(preprocessor, split)
    model = zoo.build("multitask", "tiny", balance="gradnorm")
    model.optimizer = tensorflow_optimizers.LossScale(model.optimizer, initial_scale=2.0**127)
    model.optimizer.build(model.trainable_variables)
    weights, before = model.get_layer("task_weights").values, [w.numpy() for w in model.trainable_variables]
    for batch in data.batches(split, preprocessor, 8, training=False):
        model.train_step(batch)
    assert weights.numpy().tolist() == [1.0] * weights.shape[0]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.trainable_variables, strict=True))
    assert float(model.optimizer.dynamic_scale) < 2.0**127


def test_a_step_that_overflows_is_left_out():
    weight = keras.Variable([1.0, 2.0])
    optimizer = tensorflow_optimizers.LossScale(make_optimizer("adamw", 0.1, clip_norm=1.0))
    optimizer.build([weight])
    optimizer.apply([tf.constant([np.inf, 0.0])])
    assert weight.numpy().tolist() == [1.0, 2.0]
    assert float(optimizer.scale_loss(1.0)) == 2.0**14
    optimizer.apply([tf.constant([2.0**14, 0.0])])
    assert weight.numpy()[0] < 1.0
    assert optimizer.inner_optimizer.norms.numpy().tolist() == [[0.0], [1.0]]


def test_a_compiled_model_keeps_its_optimizer(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(make_optimizer("adamw", 0.1, weight_decay=0.2, beta_1=0.7), "mse")
    model.fit(np.ones((4, 3), "float32"), np.zeros((4, 1), "float32"), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for one, two in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, two)
