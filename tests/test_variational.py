"""Variational autoencoders: Gaussians, the bound and the likelihood against closed forms, coherence."""

import itertools
import types

import keras
import numpy as np
import pytest

import zoo
from mmkeras import layers, losses
from zoo import _registry, variational_autoencoder

POSTERIORS = ("product", "mixture", "mixture_of_products")


def gaussians(count, batch=5, width=3, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=(batch, 2 * width)).astype("float32") for _ in range(count)]


def test_product_of_gaussians_equals_the_closed_form():
    """Precisions add up, and means weigh by them; the prior is one of the factors."""
    parts = gaussians(3)
    presence = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]], "float32")
    answer = layers.GaussianProduct()(parts, presence).numpy()
    for row in range(5):
        precision, weighted = np.ones(3), np.zeros(3)
        for part, here in zip(parts, presence[row], strict=True):
            mean, log_variance = np.split(part[row].astype("float64"), 2)
            precision += here * np.exp(-log_variance)
            weighted += here * mean * np.exp(-log_variance)
        np.testing.assert_allclose(answer[row], [*(weighted / precision), *-np.log(precision)], atol=1e-5)
    np.testing.assert_allclose(answer[3], 0, atol=1e-7)


def test_a_product_in_half_precision_does_not_overflow():
    given = np.array([[5.0, -3.0, -20.0, 20.0]], "float16")  # a precision of e^10 times a mean of five is too much
    answer = layers.GaussianProduct(dtype="float16")([given]).numpy()
    assert answer.dtype == "float16"
    expected = layers.GaussianProduct()([given.astype("float32")]).numpy()
    np.testing.assert_allclose(answer, expected, rtol=2e-3, atol=2e-3)


def test_draws_have_the_mean_and_the_deviation_asked_for():
    layer = layers.SampleGaussian(seed=1)
    gaussian = np.tile([[2.0, -1.0, np.log(0.25), np.log(9.0)]], (40000, 1)).astype("float32")
    drawn = layer(gaussian, training=True).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), [2, -1], atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), [0.5, 3], rtol=0.02)
    assert (layer(gaussian, training=True).numpy() != drawn).any()
    np.testing.assert_array_equal(layer(gaussian).numpy(), gaussian[:, :2])


def test_the_ramp_rises_in_training_alone():
    ramp, x = layers.Ramp(4), np.zeros((2, 3))
    assert ramp(x).numpy().tolist() == [1, 1]
    assert [float(ramp(x, training=True)[0]) for _ in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert ramp(x).numpy().tolist() == [1, 1]


def test_tokens_are_summed():
    random = np.random.default_rng(0)
    ids, logits = np.array([[4, 2, 0], [3, 0, 0]]), random.normal(size=(2, 3, 6)).astype("float32")
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = [-np.log(shares[0, 0, 4]) - np.log(shares[0, 1, 2]), -np.log(shares[1, 0, 3])]
    np.testing.assert_allclose(losses.token_nll(ids, logits), expected, rtol=1e-5)


SUBSETS = {
    "product": ["image", "text", "image_text"],
    "mixture": ["image", "text"],
    "mixture_of_products": ["image", "text", "image_text"],
}


@pytest.fixture(scope="module")
def built():
    random = np.random.default_rng(0)
    x = {"image": random.random((6, 16, 16, 3), "float32"), "text": random.integers(4, 50, (6, 8)).astype("int32")}
    options = {"preset": "tiny", "text_encoder": "bag"}
    return {p: zoo.build("variational_autoencoder", posterior=p, **options) for p in POSTERIORS}, x


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_the_objective_is_the_bound(built, posterior):
    """Of every subset: what it draws, as likelihoods in nats, and its divergence; worked out in NumPy."""
    models, x = built
    model, config = models[posterior], _registry.configure("variational_autoencoder", "tiny")
    x = {**x, "presence": np.array([[1, 1], [1, 0], [1, 1], [0, 1], [1, 1], [1, 1]], "float32")}
    outputs = {key: value.numpy().astype("float64") for key, value in model(x, training=False).items()}

    def image_nll(pixels):
        return ((x["image"] - pixels) ** 2).sum(axis=(1, 2, 3)) / 2 / config.image_deviation**2

    def text_nll(logits):
        return config.text_weight * losses.token_nll(x["text"], logits).numpy()

    has = {"image": x["presence"][:, 0] > 0, "text": x["presence"][:, 1] > 0}
    total = 0
    for key in SUBSETS[posterior]:
        members = key.split("_")
        for name, nll in (("image", image_nll), ("text", text_nll)):
            if posterior == "product" and name not in members:
                assert f"{name}_from_{key}" not in outputs
                continue
            rows = has[name] & (name in members or np.all([has[m] for m in members], axis=0))
            total += nll(outputs[f"{name}_from_{key}"])[rows].mean()
        mean, log_variance = np.split(outputs[f"{key}_posterior"], 2, axis=-1)
        divergence = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=-1)
        total += config.divergence_weight * divergence[np.any([has[m] for m in members], axis=0)].mean()
    loss = float(model.compute_loss(x=x, y_pred=model(x, training=False), training=False))
    assert loss == pytest.approx(total / len(SUBSETS[posterior]), rel=1e-4)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_all_comes_from_what_is_present(built, posterior):
    models, x = built
    full = models[posterior](x, training=False)
    alone = models[posterior]({**x, "presence": np.tile([[0.0, 1.0]], (6, 1)).astype("float32")}, training=False)
    np.testing.assert_allclose(alone["embedding"], full["text_embedding"], atol=1e-6)
    if posterior != "product":
        np.testing.assert_allclose(alone["image"], full["image_from_text"], atol=1e-6)
    if posterior == "mixture":
        mean = (full["image_embedding"] + full["text_embedding"]) / 2
        np.testing.assert_allclose(full["embedding"], mean, atol=1e-6)


def linear_run():
    """A run whose decoder is `W z + c`, so that the likelihood has a closed form; its posterior is half too wide."""
    random = np.random.default_rng(3)
    weights, offset, deviation = random.normal(size=(2, 4)).astype("float32"), random.normal(size=4), 0.5
    x = random.normal(size=(7, 4)).astype("float32")
    decoder = keras.layers.Dense(4)
    decoder.build((None, 2))
    decoder.set_weights([weights, offset])
    precision = np.eye(2) + weights @ weights.T / deviation**2
    exact = np.linalg.inv(precision)
    mean = (x - offset) @ weights.T / deviation**2 @ exact
    posterior = np.concatenate([mean, np.zeros_like(mean) + np.log(np.diag(exact) * 1.5)], axis=-1)
    covariance = weights.T @ weights + deviation**2 * np.eye(4)
    config = _registry.configure("variational_autoencoder", modalities={"v": "vector"}, vector_dim={"v": 4},
                                 embedding_dim=2, vector_deviation=deviation)  # fmt: skip
    run = types.SimpleNamespace(
        config=config,
        batches=lambda split: [({"v": x, "presence": np.ones((7, 1))},)],
        outputs=lambda x: {"v_posterior": keras.ops.convert_to_tensor(posterior, "float32")},
        model=types.SimpleNamespace(get_layer=lambda name: decoder),
    )
    from scipy.stats import multivariate_normal

    return run, multivariate_normal(offset, covariance).logpdf(x).mean()


def test_likelihood_equals_the_closed_form_of_a_linear_model():
    run, expected = linear_run()
    found = variational_autoencoder._likelihoods(run, None, 1500)
    assert found["log_likelihood"] == pytest.approx(expected, abs=0.02)
    assert found["elbo"] < expected - 0.1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    options = {"preset": "tiny", "text_encoder": "bag", "verbose": 0}
    out = tmp_path_factory.mktemp("runs")
    of_both = zoo.train("fusion_classifier", "scenes:64", out=out / "judge", epochs=1, **options)
    run = zoo.train("variational_autoencoder", "scenes:64", out=out / "vae", epochs=1, **options)
    return run, of_both


@pytest.mark.long
def test_everything_is_measured_and_drawn(trained):
    run, judge = trained
    report = run.evaluate("test", classifier=judge)
    pairs = itertools.product(("image", "text"), ("image", "text", "image and text"))
    expected = {f"{name} from {given}" for name, given in pairs}
    expected |= {"all modalities", "image from text, its label", "text from image, its label"}
    assert set(report) == {*expected, "image and text from the prior"}
    assert report["all modalities"]["elbo"] < report["all modalities"]["log_likelihood"]
    assert (run.path / "figures" / "samples-test.png").exists()
    answer = run.predict("generate", seed=[3, 4, 3])
    assert answer["image_bytes"][0] == answer["image_bytes"][2] != answer["image_bytes"][1]
    with pytest.raises(ValueError, match="Expected a classifier of some of image, text"):
        run.evaluate("test", classifier=run)


@pytest.mark.long
def test_coherence_counts_the_labels_that_agree(trained, monkeypatch):
    """A judge that calls every picture a circle and every text a square, and then both a circle."""
    run, _ = trained
    split = run.split("test")
    shown = {"image": "circle", "text": "square"}
    monkeypatch.setattr(variational_autoencoder, "_labels",
                        lambda run, judge, name, drawn: np.full(len(split), shown[name]))  # fmt: skip
    judge = types.SimpleNamespace(config=run.config, label_names={"label": "label"}, labels=["circle", "square"])
    report = variational_autoencoder._coherence(run, split, judge)
    labels = split.cells("label")
    assert report["image from text, its label"]["accuracy"] == pytest.approx(np.mean([x == "circle" for x in labels]))
    assert report["text from image, its label"]["accuracy"] == pytest.approx(np.mean([x == "square" for x in labels]))
    assert report["image and text from the prior"] == {"same_label": 0.0, "chance": 0.0}
    shown["text"] = "circle"
    assert variational_autoencoder._coherence(run, split, judge)["image and text from the prior"]["same_label"] == 1


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_what_stands_where_a_modality_is_absent_changes_no_likelihood(built, posterior):
    models, x = built
    config = _registry.configure("variational_autoencoder", "tiny", posterior=posterior)
    found = []
    for pixels in (x["image"], 1 - x["image"]):
        rows = {**x, "image": pixels, "presence": np.array([[0, 1]] * 6, "float32")}
        run = types.SimpleNamespace(config=config, batches=lambda split, rows=rows: [(rows,)], model=models[posterior],
                                    outputs=models[posterior])  # fmt: skip
        found.append(variational_autoencoder._likelihoods(run, None, 3))
    assert found[0] == found[1]
    assert np.isfinite(list(found[0].values())).all()
