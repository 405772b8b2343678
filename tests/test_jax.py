"""Every model's graph under the JAX backend, with TensorFlow's weights; the objectives take a step there."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import zoo

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="needs the extra `jax`: pip install jax"
)

ROOT = pathlib.Path(__file__).parent.parent
# A recurrent network takes JAX long to compile: one model has it.
OPTIONS = {"preset": "tiny", "modality_dropout": 0.0}
TEXT_ENCODERS = {"autoencoder": "bilstm", "dual_encoder": "cnn", "masked_autoencoder": "words"}
STEPS = ["autoencoder", "captioner", "cross_modal", "domain_adversarial", "dual_encoder", "few_shot",
         "fusion_classifier", "masked_autoencoder", "multitask", "sentiment", "transformer"]  # fmt: skip
DRAWING = ["variational_autoencoder"]  # draws in its step, and another generator draws otherwise

# Forward with the weights of the file, then one step of `fit`; the answers go into a file.
_CHILD = (
    f"OPTIONS = {OPTIONS}"
    + """
import sys
import keras, numpy as np
import zoo
assert keras.backend.backend() == "jax"
folder, *names = sys.argv[1:]
for name in names:
    given = np.load(f"{folder}/{name}.npz")
    parts = {}
    for key in given.files:
        kind, _, rest = key.partition("/")
        parts.setdefault(kind, {})[rest] = given[key]
    model = zoo.build(name, text_encoder=parts.pop("text_encoder")[""].item(), **OPTIONS)
    model.set_weights([parts["weight"][key] for key in sorted(parts["weight"])])
    answer = {f"output/{key}": value for key, value in model.predict_on_batch(parts["x"]).items()}
    if name != "conditional_gan":
        before = model.get_weights()
        history = model.fit(parts["x"], parts.get("y"), batch_size=8, shuffle=False, verbose=0).history
        answer["loss"] = history["loss"][0]
        answer["moved"] = sum(bool((a != b).any()) for a, b in zip(before, model.get_weights()))
    np.savez(f"{folder}/{name}-jax.npz", **answer)
"""
)


def batch(name, model):
    """Inputs and targets of eight rows for a tiny model."""
    random = np.random.default_rng(0)
    arrays = {
        "image": random.random((8, 16, 16, 3), "float32"),
        "text": random.integers(4, 50, (8, 8)).astype("int32"),
        "question": random.integers(4, 50, (8, 8)).astype("int32"),
        "remark": random.integers(4, 50, (8, 8)).astype("int32"),
        "presence": random.permuted([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]] * 2, axis=0).astype("float32"),
    }
    if name == "conditional_gan":
        return {"text": arrays["text"], "noise": random.normal(size=(8, model.noise_dim)).astype("float32")}, None
    y = {
        "cross_modal": {"image": arrays["image"]},
        "domain_adversarial": {"label": random.integers(0, 6, 8), "domain": np.arange(8) % 2},
        "fusion_classifier": {"label": random.integers(0, 3, 8)},
        "multitask": {"label": random.integers(0, 6, 8), "tags": random.integers(0, 2, (8, 14))},
        "sentiment": {"polarity": random.normal(size=8)},
        "tagger": {"tags": random.integers(0, 2, (8, 14))},
        "transformer": {"label": random.integers(0, 6, 8)},
        "vqa": {"answer": random.integers(0, 17, 8)},
    }.get(name)
    hidden = {k: np.tile(np.arange(t.shape[1]) % 2, (8, 1)) for k, t in model.input.items() if k.endswith("_hidden")}
    arrays.update({key: value.astype("float32") for key, value in hidden.items()})
    return {key: arrays[key][:, : tensor.shape[1]] for key, tensor in model.input.items()}, y


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """`{model: (TensorFlow's outputs and loss, JAX's answer)}`."""
    folder, expected = tmp_path_factory.mktemp("jax"), {}
    for name in zoo.names():
        text_encoder = TEXT_ENCODERS.get(name, "bag")
        model = zoo.build(name, text_encoder=text_encoder, **OPTIONS)
        x, y = batch(name, model)
        arrays = {f"weight/{i:05d}": w for i, w in enumerate(model.get_weights())}
        arrays.update({f"x/{key}": value for key, value in x.items()})
        arrays.update({f"y/{key}": value for key, value in (y or {}).items()})
        np.savez(folder / f"{name}.npz", text_encoder=text_encoder, **arrays)
        outputs = model(x, training=False)
        expected[name] = {key: value.numpy() for key, value in outputs.items()}, None
        if name in STEPS:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True), training=True)
            expected[name] = expected[name][0], float(loss)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _CHILD, str(folder), *zoo.names()]
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: (*expected[name], np.load(folder / f"{name}-jax.npz")) for name in zoo.names()}


@pytest.mark.parametrize("name", zoo.names())
def test_outputs_are_those_of_tensorflow(name, answers):
    outputs, _, answer = answers[name]
    assert {key for key in answer.files if key.startswith("output/")} == {f"output/{key}" for key in outputs}
    for key, value in outputs.items():
        np.testing.assert_allclose(
            answer[f"output/{key}"], value, rtol=1e-4, atol=1e-4 * np.abs(value).max(), err_msg=key
        )


@pytest.mark.parametrize("name", STEPS)
def test_fit_takes_the_step_on_the_same_loss(name, answers):
    _, loss, answer = answers[name]
    assert float(answer["loss"]) == pytest.approx(loss, rel=1e-3)
    assert int(answer["moved"]) > 5


@pytest.mark.parametrize("name", DRAWING)
def test_fit_takes_a_step_that_draws(name, answers):
    _, _, answer = answers[name]
    assert np.isfinite(answer["loss"])
    assert int(answer["moved"]) > 5
