"""Variational autoencoder of several modalities: a distribution over one latent, from any of them to all of them.

Each modality's encoder gives a Gaussian. How they become a posterior is what the three models differ in:
`product`: the product of those present, trained on all of them and on each alone (MVAE, Wu and Goodman 2018);
`mixture`: one of them, from which every modality is drawn (MMVAE, Shi 2019, by its stratified bound);
`mixture_of_products`: the product of any subset, from which every modality is drawn (MoPoE, Sutter 2021).
The evidence lower bound is their mean over these subsets; the divergence's weight rises from zero (Bowman 2016). The
prior `N(0, 1)` is a factor of every product.

Inputs: the modalities, and `presence`. Outputs: each modality under its own name (pixels in 0..1, logits of the
tokens, numbers), `embedding`, the posterior's mean; for every subset `<a>_<b>_posterior (batch, 2 * embedding_dim)`,
means, then logarithms of variances, and `<name>_from_<a>_<b>`; `<name>_embedding`; `divergence_weight`.
"""

import dataclasses
import itertools
import math

from zoo import _inputs, _reconstruction
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the variational autoencoder."""

    embedding_dim: int = hp(32, "size of the latent")
    posterior: str = hp("mixture_of_products", "how the modalities' Gaussians are joined",
                        ("product", "mixture", "mixture_of_products"))  # fmt: skip
    divergence_weight: float = hp(1.0, "weight of the divergence from the prior (beta-VAE)")
    ramp: int = hp(1000, "training steps in which that weight rises from zero", low=0)
    decoder_width: int = hp(32, "channels of the image decoder at half resolution; other decoders four times as many")
    image_deviation: float = hp(0.2, "standard deviation of a pixel around what is drawn", low=1e-3)
    vector_deviation: float = hp(0.5, "standard deviation of a vector's standardised numbers", low=1e-3)
    audio_deviation: float = hp(0.2, "standard deviation of a spectrogram", low=1e-3)
    video_deviation: float = hp(0.2, "standard deviation of a frame's pixel", low=1e-3)
    text_weight: float = hp(10.0, "weight of the texts' likelihood: there are far more pixels than words")

    def __post_init__(self):
        super().__post_init__()
        others = ["embedding", "divergence_weight", *(f"{name}_embedding" for name in self.names)]
        for subset, drawn in _subsets(self).items():
            key = "_".join(subset)
            others += [f"{key}_posterior", *(f"{name}_from_{key}" for name in drawn)]
        self.refuse(self.names, others)

    def deviation(self, name):
        """Standard deviation of a modality that is no text."""
        return getattr(self, f"{self.modalities[name]}_deviation")


_BASE = {"learning_rate": 2e-3, "batch_size": 32, "clip_norm": 0.0, "epochs": 20}
PRESETS = {
    "base": _BASE,
    "tiny": {
        **_inputs.TINY, "clip_norm": 0.0, "embedding_dim": 16, "decoder_width": 8, "ramp": 100,
        "divergence_weight": 0.1, "image_deviation": 0.1,
    },
    "product": {**_BASE, "posterior": "product"},
    "mixture": {**_BASE, "posterior": "mixture"},
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return None


def augment(config):
    return _inputs.augment(config)


def _subsets(config):
    """The subsets of the modalities that have a posterior, and of each what is drawn from it in training."""
    names = tuple(config.names)
    alone = [(name,) for name in names]
    if config.posterior == "mixture":
        return dict.fromkeys(alone, names)
    if config.posterior == "product":
        return {subset: subset for subset in dict.fromkeys([*alone, names])}
    sizes = range(1, len(names) + 1)
    return {subset: names for size in sizes for subset in itertools.combinations(names, size)}


def build(config):
    """The variational autoencoder."""
    import keras
    from keras import ops

    from mmkeras import layers, training

    inputs, outputs = _inputs.inputs(config), {}
    presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(inputs["presence"])
    gaussians, decoders = {}, {}
    for name in config.names:
        pooled = layers.Pool("flatten", name=f"{name}_pool")(_inputs.encode(config, name, inputs[name]))
        gaussians[name] = keras.layers.Dense(2 * config.embedding_dim, name=f"{name}_gaussian")(pooled)
    for subset, drawn in _subsets(config).items():
        key = "_".join(subset)
        members = [config.names.index(name) for name in subset]
        # One modality's own posterior asks for no presence, so that it can be encoded without the others.
        here = [ops.take(presence, members, axis=1)] if len(subset) > 1 else []
        posterior = layers.GaussianProduct(name=f"{key}_product")([gaussians[name] for name in subset], *here)
        latent = layers.SampleGaussian(name=f"{key}_sample")(posterior)
        outputs[f"{key}_posterior"] = posterior
        if len(subset) == 1:
            outputs[f"{key}_embedding"] = posterior[:, : config.embedding_dim]
        for name in drawn:
            decoders.setdefault(name, _inputs.decode(config, name, latent, config.decoder_width))
            outputs[f"{name}_from_{key}"] = decoders[name](latent)
    of_all = "_".join(config.names)
    if f"{of_all}_posterior" in outputs:
        outputs["embedding"] = outputs[f"{of_all}_posterior"][:, : config.embedding_dim]
        outputs.update({name: outputs[f"{name}_from_{of_all}"] for name in config.names})
    else:
        alone = [outputs[f"{name}_embedding"] for name in config.names]
        outputs["embedding"] = layers.PresentMean(name="embedding")(alone, presence)
        outputs.update({name: decoders[name](outputs["embedding"]) for name in config.names})
    outputs["divergence_weight"] = layers.Ramp(config.ramp, name="ramp")(presence)
    name = "variational_autoencoder"
    return training.ObjectiveModel(inputs, outputs, name=name, objective=objective(config))


def objective(config):
    """Minus the evidence lower bound in nats, without the constants of the Gaussians; the mean over the subsets."""
    from mmkeras.training import Divergence, Objective, Reconstruction

    terms, subsets = [], _subsets(config)
    for subset, drawn in subsets.items():
        key, share = "_".join(subset), 1 / len(subsets)
        for name in drawn:
            loss, weight = _likelihood(config, name)
            given = [] if name in subset else subset
            options = {"given": given, "weight": share * weight}
            terms.append(Reconstruction(f"{name}_from_{key}_loss", name, f"{name}_from_{key}", loss, **options))
        weight = share * config.divergence_weight
        terms.append(Divergence(f"{key}_divergence", f"{key}_posterior", subset, weight=weight))
    return Objective(terms, config.names)


def _likelihood(config, name):
    """(loss, weight) whose product is minus the log-likelihood, up to a constant."""
    kind, shape = config.modalities[name], config.shape(name)
    if kind == "text":
        return "token_nll", config.text_weight
    precision = 0.5 / config.deviation(name) ** 2
    if kind in ("image", "video"):  # pixel_mse is a sum over channels already
        return "pixel_mse", precision * math.prod(shape[:-1])
    return "vector_mse", precision * math.prod(shape)


def signatures(config, model, preprocessor):
    """As an autoencoder's, from the posterior's mean; `generate` draws a row for each seed from the prior."""
    import tensorflow as tf

    from mmkeras.export import Signature

    result = _reconstruction.signatures(config, model, preprocessor)

    def generate(raw):
        seeds = tf.stack([raw["seed"], tf.zeros_like(raw["seed"])], axis=-1)
        shape = (config.embedding_dim,)
        latent = tf.map_fn(lambda s: tf.random.stateless_normal(shape, s), seeds, fn_output_signature=tf.float32)
        return result["decode"].function({"embedding": latent})

    seed = tf.TensorSpec((None,), tf.int64, name="seed")
    return {**result, "generate": Signature(generate, {"seed": seed})}


def evaluate(run, split, classifier=None, samples=20):
    """Every modality from every subset, and the likelihood of the rows in nats, by importance sampling (Burda 2016).

    Args:
        classifier: a run of `fusion_classifier` over some of the modalities. Coherence: how often it gives what was
            drawn from a subset the row's own label; and two modalities drawn from the prior the same label.
        samples: draws a row for the likelihood.
    """
    report = _reconstruction.report(run, split)
    report["all modalities"] = _likelihoods(run, split, samples)
    if classifier:
        report.update(_coherence(run, split, classifier))
    return report


def _likelihoods(run, split, samples):
    """`{"log_likelihood", "elbo"}`: estimate and lower bound, nats a row, texts counted once."""
    import numpy as np

    subsets = _subsets(run.config)
    proposals = [subset for subset in subsets if len(subset) == len(run.config.names)] or list(subsets)
    random, estimates, bounds = np.random.default_rng(0), [], []
    for x, *_ in run.batches(split):
        outputs = run.outputs(x)
        posteriors = np.stack([outputs[f"{'_'.join(s)}_posterior"].numpy() for s in proposals])
        means, log_variances = np.split(posteriors, 2, axis=-1)  # (proposals, batch, dim)
        here = _proposed(run.config, proposals, np.array(x["presence"]))
        rows, weights = np.arange(here.shape[1]), []
        for _ in range(samples):
            drawn = (random.random(here.shape) * here).argmax(axis=0)  # one of those that a row has
            noise = random.standard_normal(means.shape[1:]).astype("float32")
            latent = means[drawn, rows] + np.exp(log_variances[drawn, rows] / 2) * noise
            densities = np.where(here, _log_normal(latent, means, log_variances), -np.inf)
            of_latent = np.logaddexp.reduce(densities, axis=0) - np.log(here.sum(axis=0))
            weights.append(_log_normal(latent, 0.0, 0.0) - of_latent + _log_likelihood(run, x, latent))
        estimates.append(np.logaddexp.reduce(weights, axis=0) - np.log(samples))
        bounds.append(np.mean(weights, axis=0))
    found = {"log_likelihood": estimates, "elbo": bounds}
    return {title: float(np.concatenate(values).mean()) for title, values in found.items()}


def _proposed(config, proposals, presence):
    """Of which subsets a row has a modality, booleans `(proposals, batch)`: all, where it has none."""
    import numpy as np

    members = [[config.names.index(name) for name in subset] for subset in proposals]
    here = np.stack([presence[:, places].any(axis=1) for places in members])
    return here | ~here.any(axis=0)


def _log_normal(x, mean, log_variance):
    """Log-density `(batch,)` of Gaussians at `x (batch, dim)`."""
    import numpy as np

    squares = (x - mean) ** 2 / np.exp(log_variance)
    return -0.5 * np.sum(squares + log_variance + np.log(2 * np.pi), axis=-1)


def _log_likelihood(run, x, latent):
    """Log-likelihood `(batch,)` of the modalities that are present, given a latent `(batch, embedding_dim)`."""
    import numpy as np

    from mmkeras import losses

    config, total = run.config, 0.0
    for i, name in enumerate(config.names):
        drawn = run.model.get_layer(f"{name}_decoder")(latent, training=False)
        if config.modalities[name] == "text":
            value = -losses.token_nll(x[name], drawn)
        else:
            loss, weight = _likelihood(config, name)
            constant = math.prod(config.shape(name)) * math.log(config.deviation(name) * math.sqrt(2 * math.pi))
            value = -weight * getattr(losses, loss)(x[name], drawn) - constant
        total = total + np.array(x["presence"])[:, i] * np.array(value)
    return total


def _coherence(run, split, classifier):
    """How often a classifier finds the row's label in what was drawn from the other modalities, and in both of two."""
    import numpy as np

    config = run.config
    judged = [n for n in config.names if classifier.config.modalities.get(n) == config.modalities[n]]
    column = next(iter(classifier.label_names), None)
    if not judged or column not in split.kinds:
        raise ValueError(
            f"Expected a classifier of some of {', '.join(config.names)} whose labels the data has. Received: "
            f"{classifier.path}, of {', '.join(classifier.config.names)}, labels `{column}`."
        )
    labels, report = np.array(split.cells(column)), {}
    for subset in (s for n in range(1, len(config.names)) for s in itertools.combinations(config.names, n)):
        mask = np.array([name in subset for name in config.names], "float32")
        drawn = [run.outputs({**x, "presence": x["presence"] * mask}) for x, *_ in run.batches(split)]
        for name in (name for name in judged if name not in subset):
            found = _labels(run, classifier, name, [outputs[name] for outputs in drawn])
            report[f"{name} from {' and '.join(subset)}, its label"] = {"accuracy": float(np.mean(found == labels))}
    latents = np.random.default_rng(0).standard_normal((len(labels), config.embedding_dim)).astype("float32")
    parts = np.array_split(latents, -(-len(latents) // config.batch_size))
    found = {}
    for name in judged:
        decoder = run.model.get_layer(f"{name}_decoder")
        found[name] = _labels(run, classifier, name, [decoder(part, training=False) for part in parts])
    for a, b in itertools.combinations(judged, 2):
        chance = sum(np.mean(found[a] == label) * np.mean(found[b] == label) for label in classifier.labels)
        numbers = {"same_label": float(np.mean(found[a] == found[b])), "chance": float(chance)}
        report[f"{a} and {b} from the prior"] = numbers
    return report


def _labels(run, classifier, name, drawn):
    """A classifier's labels of batches of a drawn modality."""
    import numpy as np

    from mmkeras.export import readable

    kinds, readers = {name: run.config.modalities[name]}, {name: run.preprocessor.reader(name)}
    labels = []
    for batch in drawn:
        (values,) = readable(kinds, {name: batch}, readers).values()
        labels.append(classifier.predict(**{name: list(values.numpy())})["label"])
    return np.concatenate(labels)


def figures(run, split, num_rows=8):
    """`reconstructions`, as an autoencoder's; `samples`: rows drawn from the prior."""
    import numpy as np

    from mmkeras import plots

    random, columns = np.random.default_rng(run.seed), {}
    for i in range(3):
        latent = random.standard_normal((num_rows, run.config.embedding_dim)).astype("float32")
        drawn = {n: run.model.get_layer(f"{n}_decoder")(latent, training=False) for n in run.config.names}
        columns[f"drawn {i + 1}"] = run.show(drawn, decoded=True)
    return {**_reconstruction.figures(run, split), "samples": plots.table(columns)}
