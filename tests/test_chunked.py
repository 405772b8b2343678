"""Batches that go through the network in chunks: the gradients of the plain step."""

import keras
import numpy as np
import pytest

import zoo

# Networks in which no row knows of the others: batch norms would take the means of a chunk.
OPTIONS = {
    "preset": "tiny", "image_encoder": "vit", "text_encoder": "transformer", "optimizer": "sgd", "learning_rate": 1.0,
    "clip_norm": 0.0,
}  # fmt: skip


def rows(count):
    random = np.random.default_rng(0)
    images, texts = random.random((count, 16, 16, 3)), random.integers(4, 50, (count, 8))
    return {"image": images.astype("float32"), "text": texts.astype("int32")}


def stepped(x, **options):
    """The step of every weight, the loss before it and that of validation after it."""
    keras.utils.set_random_seed(0)
    model = zoo.build("dual_encoder", **OPTIONS, **options)
    before = [weight.numpy() for weight in model.trainable_variables]
    batch = {"batch_size": len(x["image"]), "verbose": 0}
    loss = model.fit(x, shuffle=False, **batch).history["loss"][0]
    steps = [old - new.numpy() for old, new in zip(before, model.trainable_variables, strict=True)]
    return steps, loss, model.evaluate(x, **batch)


@pytest.mark.parametrize("loss", ["clip", "triplet"])
def test_gradients_of_chunks_are_those_of_the_whole(loss):
    x = rows(256)
    whole, parts = stepped(x, loss=loss), stepped(x, loss=loss, chunk=48)  # the last chunk is smaller
    assert max(np.abs(step).max() for step in whole[0]) > 1e-2
    for one, other in zip(whole[0], parts[0], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    assert parts[1:] == pytest.approx(whole[1:], rel=1e-5)


@pytest.mark.long
def test_the_second_pass_draws_what_the_first_drew():
    x = rows(32)
    options = {"dropout": 0.3, "modality_dropout": 0.0}
    whole, once = stepped(x, **options), stepped(x, chunk=32, **options)
    for one, other in zip(whole[0], once[0], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_chunks_are_learned_from_and_kept(tmp_path):
    keras.utils.set_random_seed(0)
    model = zoo.build("dual_encoder", preset="tiny", chunk=8, text_encoder="bag")
    x = rows(20)
    losses = model.fit(x, batch_size=20, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.chunk == 8
    np.testing.assert_array_equal(loaded(x)["image_embedding"], model(x)["image_embedding"])
