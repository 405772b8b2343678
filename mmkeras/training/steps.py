"""Training steps where the optimisation itself is special: two networks against each other."""

from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

from mmkeras import losses
from mmkeras.layers import replicas
from mmkeras.training.checks import check_fit, named_targets
from mmkeras.training.multi_input import at_least_float32


@keras.saving.register_keras_serializable(package="mmkeras")
class Adversarial(keras.Model):
    """A conditional generator and its discriminator, trained in turn (Goodfellow 2014, Reed 2016).

    Called with conditions it draws pictures with the moving average of the generator.

    Args:
        generator: model from `{condition: ..., "noise": (batch, noise_dim)}` to `{"image": pixels, "kl": (batch,)}`.
        discriminator: model from `{"image": pixels, condition: ...}` to `{"logits": (batch,), "features": (batch, n)}`.
        condition: name of the condition, an input of token ids.
        loss: a name of `mmkeras.losses.ADVERSARIAL_LOSSES`.
        mismatch_weight: share of real pictures with another row's text among what counts as fake (Reed 2016).
        feature_weight: weight of feature matching (Salimans 2016).
        reconstruction_weight: weight of the mean distance, in pixels, to the row's own picture (pix2pix, Isola 2017).
        kl_weight: weight of the conditioning augmentation's KL term (StackGAN, Zhang 2017).
        penalty_weight: weight of the gradient penalty (WGAN-GP, Gulrajani 2017).
        discriminator_steps: updates of the discriminator for each of the generator.
        augment: whether the discriminator sees its pictures, real and drawn, shifted and recoloured at random
            (DiffAugment, Zhao 2020), which small data need.
        average: momentum of the moving average of the generator.
        seed: of the noise.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        condition: str = "text",
        loss: Literal["non_saturating", "hinge", "least_squares", "wasserstein"] = "non_saturating",
        mismatch_weight: float = 0.5,
        feature_weight: float = 0.0,
        reconstruction_weight: float = 0.0,
        kl_weight: float = 0.01,
        penalty_weight: float = 0.0,
        discriminator_steps: int = 1,
        augment: bool = True,
        average: float = 0.999,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generator = generator
        self.discriminator = discriminator
        self.averaged = keras.models.clone_model(generator)
        self.averaged.set_weights(generator.get_weights())
        self.averaged.trainable = False
        self.settings: dict[str, Any] = {
            "condition": condition, "loss": loss, "mismatch_weight": mismatch_weight, "feature_weight": feature_weight,
            "reconstruction_weight": reconstruction_weight, "kl_weight": kl_weight, "penalty_weight": penalty_weight,
            "discriminator_steps": discriminator_steps, "augment": augment, "average": average, "seed": seed,
        }  # fmt: skip
        self.noise_dim = next(t.shape[-1] for t in generator.inputs if t.name == "noise")
        self.draws = keras.random.SeedGenerator(seed)
        self.trackers = [keras.metrics.Mean(name=name) for name in ("generator_loss", "discriminator_loss")]
        self.built = True

    def compile(self, optimizer, **options):
        """Both networks get an optimiser of this configuration."""
        super().compile(optimizer=optimizer, **options)
        config = self.optimizer.get_config()
        self.discriminator_optimizer = type(self.optimizer).from_config({**config, "name": "discriminator_optimizer"})
        self.optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {"optimizer": keras.saving.serialize_keras_object(self.optimizer), "jit_compile": self.jit_compile}

    def compile_from_config(self, config):
        self.compile(keras.saving.deserialize_keras_object(config["optimizer"]), jit_compile=config["jit_compile"])

    def call(self, inputs, training=None):
        condition = inputs[self.settings["condition"]]
        noise = inputs["noise"] if "noise" in inputs else self._noise(condition)
        drawn = self.averaged({self.settings["condition"]: condition, "noise": noise}, training=False)
        return at_least_float32({"image": drawn["image"]})

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, *args: Any, **options: Any
    ) -> keras.callbacks.History:
        """As `keras.Model.fit`; the first batch is looked at before."""
        check_fit(self, x, y, batch_size)
        return super().fit(x, y, batch_size, *args, **options)

    def _noise(self, condition):
        rows = ops.shape(condition)[0]
        return replicas.own(lambda rows: keras.random.normal((rows, self.noise_dim), seed=self.draws), rows)

    @property
    def needs(self) -> dict[str, int]:
        """The target that training looks at, the pictures, and its rank."""
        return {"image": 4}

    @property
    def metrics(self):
        return self.trackers

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        condition, real = x[self.settings["condition"]], named_targets(self, y)["image"]
        share = replicas.share(ops.shape(condition)[0])
        for _ in range(self.settings["discriminator_steps"]):
            discriminator_loss = self._train_discriminator(real, condition, share)
        generator_loss = self._train_generator(real, condition, share)
        self._update_average()
        return self._told(condition, generator_loss, discriminator_loss)

    def _told(self, condition, *values):
        for tracker, value in zip(self.trackers, values, strict=True):
            tracker.update_state(value, sample_weight=ops.shape(condition)[0])
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def test_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        condition = x[self.settings["condition"]]
        drawn = self(x)["image"]
        real = self._judge(named_targets(self, y)["image"], condition)
        fake = self._judge(drawn, condition)
        generator_loss = losses.generator_loss(self.settings["loss"], fake["logits"])
        return self._told(condition, generator_loss, self._versus(real, fake))

    def _judge(self, pictures, condition, training=False):
        if training and self.settings["augment"]:
            pictures = differentiable_augment(pictures, self.draws)
        inputs = {"image": pictures, self.settings["condition"]: condition}
        return at_least_float32(self.discriminator(inputs, training=training))

    def _draw(self, condition):
        inputs = {self.settings["condition"]: condition, "noise": self._noise(condition)}
        return at_least_float32(self.generator(inputs, training=True))

    def _versus(self, real, fake):
        return sum(losses.ADVERSARIAL_LOSSES[self.settings["loss"]](real["logits"], fake["logits"]))

    def _train_discriminator(self, real, condition, share):
        mismatch = self.settings["mismatch_weight"]
        texts = replicas.gathered(condition)
        wrong = replicas.own(lambda rows: tf.roll(texts, 1, axis=0), ops.shape(condition)[0])
        differs = tf.cast(tf.reduce_any(wrong != condition, axis=-1), real.dtype)
        fake = self._draw(condition)["image"]
        with tf.GradientTape() as tape:
            for_real = self._judge(real, condition, training=True)
            for_fake = self._judge(fake, condition, training=True)
            of_real, of_fake = losses.ADVERSARIAL_LOSSES[self.settings["loss"]](for_real["logits"], for_fake["logits"])
            if mismatch:
                for_wrong = self._judge(real, wrong, training=True)
                # A row whose neighbour has the same text is no mismatch: it keeps the logits of the drawn picture.
                logits = differs * for_wrong["logits"] + (1 - differs) * for_fake["logits"]
                of_wrong = losses.ADVERSARIAL_LOSSES[self.settings["loss"]](for_real["logits"], logits)[1]
                of_fake = (1 - mismatch) * of_fake + mismatch * of_wrong
            loss = of_real + of_fake
            if self.settings["penalty_weight"]:
                loss += self.settings["penalty_weight"] * self._penalty(real, fake, condition)
            own = self.discriminator_optimizer.scale_loss(share * loss)
        variables = self.discriminator.trainable_variables
        self.discriminator_optimizer.apply_gradients(zip(tape.gradient(own, variables), variables, strict=True))
        return loss

    def _penalty(self, real, fake, condition):
        part = replicas.own(lambda rows: keras.random.uniform((rows, 1, 1, 1), seed=self.draws), ops.shape(real)[0])
        between = part * real + (1 - part) * fake
        with tf.GradientTape() as tape:
            tape.watch(between)
            logits = self._judge(between, condition)["logits"]
        return losses.gradient_penalty(tape.gradient(logits, between))

    def _train_generator(self, real, condition, share):
        with tf.GradientTape() as tape:
            drawn = self._draw(condition)
            fake = self._judge(drawn["image"], condition, training=True)
            loss = losses.generator_loss(self.settings["loss"], fake["logits"])
            loss += self.settings["kl_weight"] * tf.reduce_mean(drawn["kl"])
            if self.settings["feature_weight"]:
                features = tf.stop_gradient(self._judge(real, condition, training=True)["features"])
                means = [tf.reduce_mean(replicas.gathered(x), axis=0) for x in (features, fake["features"])]
                loss += self.settings["feature_weight"] * tf.reduce_mean(tf.square(means[0] - means[1]))
            if self.settings["reconstruction_weight"]:
                distance = tf.reduce_mean(tf.abs(tf.cast(real, drawn["image"].dtype) - drawn["image"]))
                loss += self.settings["reconstruction_weight"] * distance
            own = self.optimizer.scale_loss(share * loss)
        variables = self.generator.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(own, variables), variables, strict=True))
        return loss

    def _update_average(self):
        done = tf.cast(self.optimizer.iterations, keras.config.floatx())
        # In the first steps the average follows closely, or it would long remember the random start.
        momentum = tf.minimum((1 + done) / (10 + done), self.settings["average"])
        for average, value in zip(self.averaged.weights, self.generator.weights, strict=True):
            average.assign(momentum * average + (1 - momentum) * value)

    def get_config(self):
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        serialized = {name: keras.saving.serialize_keras_object(network) for name, network in networks.items()}
        return {**serialized, **self.settings, "name": self.name}

    @classmethod
    def from_config(cls, config):
        networks = {n: keras.saving.deserialize_keras_object(config.pop(n)) for n in ("generator", "discriminator")}
        return cls(**networks, **config)


def differentiable_augment(pictures, seed):
    """Pixels `(batch, height, width, channels)` shifted by up to an eighth and recoloured; gradients pass through."""
    batch, height, width = ops.shape(pictures)[0], pictures.shape[1], pictures.shape[2]

    def draw(low, high):
        return replicas.own(lambda rows: keras.random.uniform((rows, 1, 1, 1), low, high, seed=seed), batch)

    pictures = pictures + draw(-0.2, 0.2)
    gray = ops.mean(pictures, axis=-1, keepdims=True)
    pictures = gray + (pictures - gray) * draw(0.0, 2.0)
    middle = ops.mean(pictures, axis=(1, 2, 3), keepdims=True)
    pictures = middle + (pictures - middle) * draw(0.5, 1.5)
    for axis, side in ((1, height), (2, width)):
        most = side // 8
        shift = replicas.own(lambda rows: keras.random.randint((rows, 1), -most, most + 1, seed=seed), batch)  # noqa: B023
        source = ops.clip(ops.arange(side, dtype=shift.dtype)[None] + shift, 0, side - 1)  # the edge is repeated
        pictures = tf.gather(pictures, source, axis=axis, batch_dims=1)
    return pictures
