"""Attribution: against closed forms, sums that must hold, planted causes."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from mmkeras.diagnosis import grad_cam, integrated_gradients, shapley
from mmkeras.layers import TokenEmbedding
from zoo.bench import pointing

# Grad-CAM


def pooled_model(head):
    """Pictures through a convolution called `encoder` to tokens, through `head` to a number."""
    x = keras.Input((6, 9, 3), name="image")
    layers = [keras.layers.Conv2D(4, 3, 3, activation="relu"), keras.layers.Reshape((6, 4))]
    inner = keras.Sequential(layers, name="encoder")
    return keras.Model({"image": x}, {"score": head(inner(x))})


def score(outputs):
    return outputs["score"][:, 0]


def test_under_an_average_it_is_the_class_activation_map():
    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(1)
    model = pooled_model(lambda tokens: head(keras.layers.GlobalAveragePooling1D()(tokens)))
    x = np.random.default_rng(0).random((2, 6, 9, 3)).astype("float32")
    tokens = model.get_layer("encoder")(x).numpy()
    expected = np.maximum(tokens @ head.kernel.numpy()[:, 0] / 6, 0).reshape(2, 2, 3)
    np.testing.assert_allclose(grad_cam(score, model, {"image": x}, "encoder", (6, 9, 3)), expected, atol=1e-6)
    before = model({"image": x})["score"].numpy()
    np.testing.assert_array_equal(model({"image": x})["score"], before)  # the layer is as it was


@pytest.mark.parametrize("place", range(6))
def test_it_finds_the_only_place_that_counts(place):
    keras.utils.set_random_seed(0)
    model = pooled_model(lambda tokens: keras.ops.sum(tokens[:, place], axis=-1, keepdims=True))
    x = np.random.default_rng(0).random((1, 6, 9, 3)).astype("float32")
    found = grad_cam(score, model, {"image": x}, "encoder", (6, 9, 3))[0].ravel()
    assert found.argmax() == place
    assert np.delete(found, place).max() == 0


def test_a_hit_is_a_peak_that_touches_the_object():
    maps = np.zeros((4, 3, 3))
    maps[0, 0, 2] = maps[1, 2, 0] = maps[2, 1, 1] = 1  # the last one has no peak
    vectors = np.tile([[0.8, 0.2, 0.2]], (4, 1))  # to the right, at the top
    assert pointing.hits(maps, vectors).tolist() == [True, False, False, False]
    vectors[:, 2] = 0.5  # so large that the middle place touches it
    assert pointing.hits(maps, vectors).tolist() == [True, False, True, False]


# Integrated gradients


def text_model(network):
    ids = keras.Input((5,), dtype="int32", name="text")
    x = TokenEmbedding(20, 6, name="embedding")(ids)
    return keras.Model({"text": ids}, {"score": network(x)})


def test_a_linear_model_gives_every_word_its_own_share():
    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(1)
    model = text_model(lambda x: head(keras.ops.sum(x, axis=1)))
    ids = np.array([[4, 9, 4, 3, 0]])
    found, of_row, of_none = integrated_gradients(
        score, model, {"text": tf.constant(ids)}, model.get_layer("embedding")
    )
    table = model.get_layer("embedding").table.numpy()
    np.testing.assert_allclose(found, table[ids[0]] @ head.kernel.numpy()[:, 0], atol=1e-6)
    assert of_row - of_none == pytest.approx(found.sum(), abs=1e-6)


@pytest.mark.parametrize("encoder", ["bilstm", "gru", "cnn", "transformer", "bag"])
def test_attributions_sum_to_the_difference_of_outputs(encoder):
    keras.utils.set_random_seed(1)
    model = zoo.build("fusion_classifier", preset="tiny", text_encoder=encoder, num_classes=4)
    embedding = next(e for e in model.get_layer("text_encoder").layers if isinstance(e, TokenEmbedding))
    embedding.table.assign(10 * embedding.table)  # as far from linear as after training
    random = np.random.default_rng(0)
    x = {"image": tf.constant(random.random((1, 16, 16, 3), "float32")), "presence": tf.ones((1, 2)),
         "text": tf.constant([[7, 12, 30, 8, 3, 0, 0, 0]])}  # fmt: skip
    found, of_row, of_none = integrated_gradients(lambda outputs: outputs["label"][:, 2], model, x, embedding, 256)
    assert abs(of_row - of_none) > 1e-3
    assert found.sum() == pytest.approx(of_row - of_none, rel=0.02, abs=1e-4)
    assert np.abs(found[5:]).max() == 0  # padding


# Shapley values


def test_shapley_values_are_the_mean_over_all_orders():
    random = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    worth = {frozenset(t): random.normal() for n in range(5) for t in itertools.combinations(names, n)}
    found = shapley(lambda team: worth[frozenset(team)], names)
    for name in names:
        gains = [worth[frozenset(order[: order.index(name) + 1])] - worth[frozenset(order[: order.index(name)])]
                 for order in itertools.permutations(names)]  # fmt: skip
        assert found[name] == pytest.approx(sum(gains) / math.factorial(4))
    assert sum(found.values()) == pytest.approx(worth[frozenset(names)] - worth[frozenset()])
