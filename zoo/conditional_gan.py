"""Conditional GAN: pictures from texts.

Generator and discriminator see the text's embedding. Conditioning augmentation (StackGAN, Zhang 2017) draws the
condition around that embedding, unless `kl_weight` is 0; the discriminator also rejects real pictures with another
row's text (Reed 2016) and weighs the text by a projection (Miyato 2018). A moving average of the generator draws.

Inputs: the text (`condition`), and optionally `noise`. Output: the picture's pixels under `image`. Targets in
training: the pictures.
"""

import dataclasses

from zoo import _inputs
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the conditional GAN."""

    noise_dim: int = hp(64, "size of the noise")
    condition_dim: int = hp(64, "size of the condition made of the text")
    generator_width: int = hp(48, "channels of the generator at half resolution")
    discriminator_width: int = hp(32, "channels of the discriminator's first stage")
    loss: str = hp("hinge", "adversarial loss", ("non_saturating", "hinge", "least_squares", "wasserstein"))
    mismatch_weight: float = hp(0.5, "share of real pictures with a wrong text in what counts as fake", high=1.0)
    feature_weight: float = hp(1.0, "weight of feature matching")
    reconstruction_weight: float = hp(0.0, "weight of the distance to the row's own picture, where few suit a text")
    kl_weight: float = hp(0.05, "weight of conditioning augmentation's KL term; 0: the text's embedding as it is")
    penalty_weight: float = hp(0.0, "weight of the gradient penalty; take 10 with loss wasserstein")
    discriminator_steps: int = hp(1, "updates of the discriminator for each of the generator")
    discriminator_augment: bool = hp(True, "shift and recolour at random what the discriminator sees (DiffAugment)")
    average: float = hp(0.998, "momentum of the generator's moving average", high=1.0)
    sample_every: int = hp(5, "epochs between two grids of samples", low=0)
    beta_1: float = hp(0.5, "decay of the optimiser's first moment", high=0.999)

    def __post_init__(self):
        super().__post_init__()
        if sorted(self.modalities.values()) != ["image", "text"]:
            raise ValueError(f"Expected one image and one text. Received: modalities={self.modalities}.")
        self.unused("modality_dropout", "A conditional GAN needs its text")
        for name in vars(self):
            if name.startswith("augment_") and name != "augment_tokens":
                self.unused(name, "Pictures are drawn as they are; discriminator_augment changes what is seen of them")
        if "noise" in self.modalities:
            raise ValueError("The text cannot be called `noise`: so the generator calls what it draws from.")

    @property
    def noise_size(self):
        """What a picture is drawn from: noise of its own, and that of conditioning augmentation."""
        return self.noise_dim + (self.condition_dim if self.kl_weight else 0)

    @property
    def condition(self):
        """Name of the text."""
        return self.of_kind("text")[0]

    @property
    def target(self):
        """Name of the picture's column."""
        return self.of_kind("image")[0]


_BASE = {
    "image_size": (32, 32), "text_encoder": "bag", "optimizer": "adam", "learning_rate": 3e-4, "schedule": "constant",
    "clip_norm": 0.0, "epochs": 60,
}  # fmt: skip
PRESETS = {
    "base": _BASE,
    # Where a text says what stands where, as captions of scenes do: then the row's own picture is the best teacher.
    "small": {
        **_BASE, "text_encoder": "bilstm", "text_dim": 48, "text_width": 96, "dropout": 0.0, "condition_dim": 96,
        "noise_dim": 16, "generator_width": 24, "discriminator_width": 20, "discriminator_augment": False,
        "reconstruction_weight": 40.0, "feature_weight": 0.0, "kl_weight": 0.0, "learning_rate": 1e-3, "epochs": 45,
    },
    "tiny": {
        **_BASE, "image_size": (16, 16), "generator_width": 8, "discriminator_width": 8, "noise_dim": 8,
        "condition_dim": 8, "text_length": 8, "vocabulary_size": 50, "text_dim": 16, "text_width": 16,
        "batch_size": 8, "epochs": 2, "dropout": 0.0,
    },
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config, [config.condition])


def targets(config):
    import keras

    raw = _inputs.raw_input(config, config.target)
    return keras.Model({config.target: raw}, {"image": _inputs.read(config, config.target, raw)}, name="targets")


def augment(config):
    return _inputs.augment(config, [config.condition])


def build(config):
    """Generator and discriminator in one model."""
    from mmkeras import training

    return training.Adversarial(
        _generator(config), _discriminator(config), config.condition, config.loss, config.mismatch_weight,
        config.feature_weight, config.reconstruction_weight, config.kl_weight, config.penalty_weight,
        config.discriminator_steps, config.discriminator_augment, config.average, name="conditional_gan",
    )  # fmt: skip


def _generator(config):
    import keras
    from keras import ops

    from mmkeras import layers, losses

    text = keras.Input(config.shape(config.condition), dtype="int32", name=config.condition)
    noise = keras.Input((config.noise_size,), name="noise")
    pooled = layers.Pool("mean", name="pool")(_inputs.encode(config, config.condition, text))
    mean = keras.layers.Dense(config.condition_dim, name="condition_mean")(pooled)
    condition, kl = mean, ops.zeros_like(mean[:, 0])
    if config.kl_weight:
        log_variance = keras.layers.Dense(config.condition_dim, "tanh", name="condition_log_variance")(pooled)
        condition = mean + ops.exp(0.5 * log_variance) * noise[:, config.noise_dim :]
        kl = losses.gaussian_kl(mean, log_variance)
    latent = keras.layers.Concatenate(name="latent")([noise[:, : config.noise_dim], condition])
    picture = _inputs.decode(config, config.target, latent, config.generator_width)(latent)
    return keras.Model({config.condition: text, "noise": noise}, {"image": picture, "kl": kl}, name="generator")


def _discriminator(config):
    import keras
    from keras import ops

    from mmkeras import layers

    picture = keras.Input(config.shape(config.target), name="image")
    text = keras.Input(config.shape(config.condition), dtype="int32", name=config.condition)
    x, channels = picture, config.discriminator_width
    while min(x.shape[1:3]) > 4:
        # Spectral norm keeps the discriminator from outrunning the generator (Miyato 2018).
        convolution = keras.layers.Conv2D(channels, 4, 2, padding="same")
        # The norm in full precision, whatever the convolution has.
        steady = keras.layers.SpectralNormalization(convolution, dtype=keras.config.floatx())
        x = keras.layers.LeakyReLU(0.2)(steady(x))
        channels *= 2
    features = keras.layers.Dense(config.text_width, name="features")(keras.layers.Flatten()(x))
    features = keras.layers.LeakyReLU(0.2)(features)
    pooled = layers.Pool("mean", name="pool")(_inputs.encode(config, config.condition, text))
    condition = keras.layers.Dense(config.text_width, name="condition")(pooled)
    logits = keras.layers.Dense(1, name="realism")(features)[:, 0] + ops.sum(features * condition, axis=-1)
    inputs = {"image": picture, config.condition: text}
    return keras.Model(inputs, {"logits": logits, "features": features}, name="discriminator")


def objective(config):
    """The losses are the training step's own."""
    return {}


def signatures(config, model, preprocessor):
    """`generate`: texts in, PNG bytes out, the same for the same text; `generate_seeded` takes a seed a row besides."""
    import tensorflow as tf

    from mmkeras.export import Signature, encode_png, raw_specs

    def noise(text, seed):
        """Noise that depends on the text and the seed alone, wherever the row stands in its batch."""
        hashed = tf.strings.to_hash_bucket_fast(text, 2**31 - 1)
        seeds = tf.stack([hashed, tf.cast(seed, tf.int64)], axis=-1)
        return tf.map_fn(
            lambda s: tf.random.stateless_normal((config.noise_size,), s), seeds, fn_output_signature=tf.float32
        )

    def generate_seeded(raw):
        ids = preprocessor.inputs({config.condition: raw[config.condition]})[config.condition]
        drawn = noise(raw[config.condition], raw["seed"])
        return {"image_bytes": encode_png(model({config.condition: ids, "noise": drawn})["image"])}

    def generate(raw):
        return generate_seeded({**raw, "seed": tf.zeros_like(raw[config.condition], dtype=tf.int64)})

    specs = raw_specs(preprocessor)
    seeded = {**specs, "seed": tf.TensorSpec((None,), tf.int64, name="seed")}
    result = {"generate": Signature(generate, specs), "generate_seeded": Signature(generate_seeded, seeded)}
    return {"serving_default": result["generate"], **result}


def evaluate(run, split, classifier=None, retriever=None):
    """Distances between drawn and real pictures, and whether the drawn ones show what their texts say.

    Args:
        classifier: a run of `fusion_classifier` over pictures alone; its features give FID and KID, its
            probabilities the inception score.
        retriever: a run of `dual_encoder`; R-precision: how often a drawn picture's own text is the nearest among
            100 texts of the split.
    """
    import numpy as np

    from mmkeras import metrics

    real, drawn = draw(run, split)
    report = {"drawn against real": {"mean_pixel": float(drawn.mean()), "mean_pixel_real": float(real.mean()),
                                     "deviation": float(drawn.std(axis=0).mean()),
                                     "deviation_real": float(real.std(axis=0).mean())}}  # fmt: skip
    if classifier:
        judge = classifier.module.judge(classifier)
        (real_features, _), (features, shares) = judge(real), judge(drawn)
        report["over the classifier"] = {
            "fid": metrics.frechet_distance(real_features, features),
            "kid": metrics.kernel_distance(real_features, features),
            "inception_score": metrics.inception_score(shares),
            "inception_score_real": metrics.inception_score(judge(real)[1]),
        }
    if retriever:
        texts = [cell if isinstance(cell, str) else cell[0] for cell in split.cells(run.config.condition)]
        report["over the retriever"] = {
            "r_precision": _r_precision(retriever, drawn, texts),
            "r_precision_real": _r_precision(retriever, real, texts),
            "chance": 1 / min(100, len(np.unique(texts))),
        }
    return report


def draw(run, split):
    """Real pictures of a split, and one drawn from each row's text: two `(rows, height, width, channels)`."""
    import keras
    import numpy as np

    random = keras.random.SeedGenerator(run.seed)
    real, drawn = [], []
    for x, y in run.batches(split):
        condition = x[run.config.condition]
        noise = keras.random.normal((len(condition), run.model.noise_dim), seed=random)
        drawn.append(run.model({run.config.condition: condition, "noise": noise})["image"].numpy())
        real.append(y["image"].numpy())
    return np.concatenate(real), np.concatenate(drawn)


def _r_precision(retriever, pictures, texts, num_texts=100):
    import numpy as np

    image, text = retriever.config.of_kind("image")[0], retriever.config.of_kind("text")[0]
    own = retriever.embed_pixels(image, pictures)
    unique = sorted(set(texts))
    embedded = retriever.embed(text, unique)
    random, hits = np.random.default_rng(0), []
    for picture, name in zip(own, texts, strict=True):
        others = random.permutation([i for i, other in enumerate(unique) if other != name])[: num_texts - 1]
        right = picture @ embedded[unique.index(name)]
        hits.append(bool((embedded[others] @ picture < right).all()))
    return float(np.mean(hits))


def figures(run, split, num_pictures=40):
    """`samples`: one picture drawn from each of some texts, in even rows above the real ones."""
    from mmkeras import plots

    rows = list(range(0, len(split), max(len(split) // num_pictures, 1)))[:num_pictures]
    real, drawn = draw(run, split.take(rows))
    texts = [cell if isinstance(cell, str) else cell[0] for cell in split.take(rows).cells(run.config.condition)]
    pictures, captions = [], []
    for start in range(0, len(rows), 8):
        stop = start + 8
        pictures += [*drawn[start:stop], *real[start:stop]]
        captions += [*texts[start:stop], *["(real)"] * len(real[start:stop])]
    return {"samples": plots.grid(pictures, captions)}
