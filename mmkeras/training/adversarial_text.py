"""A writer of texts against a reader who tells written from true ones."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from mmkeras.layers import replicas
from mmkeras.layers.tokens import START
from mmkeras.training.multi_input import at_least_float32
from mmkeras.training.objective import Objective, ObjectiveModel

_END = 3  # mmkeras.layers.tokenize_text.SPECIAL


@keras.saving.register_keras_serializable(package="mmkeras")
class AdversarialText(ObjectiveModel):
    """A captioner with an LSTM decoder, and a discriminator that asks whether a text belongs to a row (Shetty 2017).

    The discriminator learns to tell the true text of a row from one the captioner drew, and from another row's. The
    captioner learns by its objective, and to be taken for true: its words are drawn with Gumbel noise, hard forward
    and soft backward (Jang 2017), so that the discriminator's gradient reaches it.

    Args:
        inputs, outputs, name, objective: see ObjectiveModel; the layers `memory` and `decoder` are what is asked for
            words (`mmkeras.decoders.caption_decoder`).
        discriminator: model from the inputs of the memory and `words (batch, length, vocabulary)`, one-hot or soft,
            to `logits (batch,)`.
        target: name of the text.
        weight: of the captioner's adversarial loss, reached after `ramp` steps: before it can write, the
            discriminator's judgement is worth nothing.
        ramp: number of steps.
        temperature: of the drawn words.
        seed: of the noise.
    """

    def __init__(
        self,
        inputs: dict[str, keras.KerasTensor],
        outputs: dict[str, keras.KerasTensor],
        name: str | None = None,
        *,
        objective: Objective | dict[str, Any] | None = None,
        discriminator: keras.Model | dict[str, Any] | None = None,
        target: str = "text",
        weight: float = 1.0,
        ramp: int = 1000,
        temperature: float = 0.5,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, objective=objective, **kwargs)
        if isinstance(discriminator, dict):
            discriminator = keras.saving.deserialize_keras_object(discriminator)
        self.discriminator = discriminator
        self.settings: dict[str, Any] = {
            "target": target, "weight": weight, "ramp": ramp, "temperature": temperature, "seed": seed,
        }  # fmt: skip
        self.noise = keras.random.SeedGenerator(seed)
        self.trackers = [keras.metrics.Mean(name=n) for n in ("adversarial_loss", "discriminator_loss")]

    def compile(self, optimizer="adam", **options):
        """Both networks get an optimiser of this configuration."""
        super().compile(optimizer=optimizer, **options)
        config = {**self.optimizer.get_config(), "name": "discriminator_optimizer"}
        self.discriminator_optimizer = type(self.optimizer).from_config(config)
        self.optimizer.build(self._writers())
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {"optimizer": keras.saving.serialize_keras_object(self.optimizer), "jit_compile": self.jit_compile}

    def compile_from_config(self, config):
        self.compile(keras.saving.deserialize_keras_object(config["optimizer"]), jit_compile=config["jit_compile"])

    def _writers(self):
        """The captioner's own trainable variables."""
        readers = {id(v) for v in self.discriminator.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in readers]

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        x = self.matched(x)
        share = replicas.share(ops.shape(x["presence"])[0])
        with tf.GradientTape() as tape:
            discriminator_loss = self._reading_loss(x, tf.stop_gradient(self.draw(x)), training=True)
            own = self.discriminator_optimizer.scale_loss(share * discriminator_loss)
        readers = self.discriminator.trainable_variables
        gradients = tape.gradient(own, readers)
        self.discriminator_optimizer.apply_gradients(zip(gradients, readers, strict=True))
        writers = self._writers()
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
            adversarial_loss = tf.reduce_mean(tf.nn.softplus(-self._judge(x, self.draw(x))))
            begun = tf.minimum(tf.cast(self.optimizer.iterations, tf.float32) / self.settings["ramp"], 1.0)
            total = self.optimizer.scale_loss(loss + share * begun * self.settings["weight"] * adversarial_loss)
        self.optimizer.apply_gradients(zip(tape.gradient(total, writers), writers, strict=True))
        self._loss_tracker.update_state(loss * replicas.count())
        return self._told(x, adversarial_loss, discriminator_loss)

    def test_step(self, data):
        super().test_step(data)
        x = self.matched(keras.utils.unpack_x_y_sample_weight(data)[0])
        drawn = self.draw(x)
        adversarial_loss = tf.reduce_mean(tf.nn.softplus(-self._judge(x, drawn)))
        return self._told(x, adversarial_loss, self._reading_loss(x, drawn))

    def _told(self, x, *values):
        for tracker, value in zip(self.trackers, values, strict=True):
            tracker.update_state(value, sample_weight=ops.shape(x["presence"])[0])
        return self.get_metrics_result()

    def _reading_loss(self, x, drawn, training=False):
        """Cross-entropy of the discriminator: the true text is true; a drawn one and another row's are not."""
        ids = x[self.settings["target"]]
        texts = replicas.gathered(ids)
        wrong = replicas.own(lambda rows: tf.roll(texts, 1, axis=0), ops.shape(ids)[0])
        differs = ops.cast(ops.any(wrong != ids, axis=-1), drawn.dtype)
        true, wrong = (ops.one_hot(words, drawn.shape[-1]) for words in (ids, wrong))
        of_true, of_drawn, of_wrong = (self._judge(x, words, training) for words in (true, drawn, wrong))
        # A row whose neighbour has the same text is no mismatch: what was drawn counts in its place.
        of_wrong = differs * of_wrong + (1 - differs) * of_drawn
        return tf.reduce_mean(
            tf.nn.softplus(-of_true) + 0.5 * tf.nn.softplus(of_drawn) + 0.5 * tf.nn.softplus(of_wrong)
        )

    def _judge(self, x, words, training=False):
        given = {name: x[name] for name in self.discriminator.input if name not in ("words", "presence")}
        found = self.discriminator({**given, "presence": x["presence"], "words": words}, training=training)
        return at_least_float32(found)["logits"]

    def draw(self, x: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """A text for each row, word after word: one-hot `(batch, length, vocabulary)`, with soft gradients."""
        memory, counts = self.get_layer("memory").output
        given = {name: tensor for name, tensor in self.input.items() if name != self.settings["target"]}
        memory, counts = keras.Model(given, [memory, counts])({name: x[name] for name in given}, training=True)
        decoder = self.get_layer("decoder")
        embed, lstm, deep, out = (decoder.get_layer(n) for n in ("word_embedding", "lstm", "deep_output", "logits"))
        size, length = decoder.output["logits"].shape[-1], decoder.output["logits"].shape[1]
        state, keys = lstm.start(memory, counts)
        padding = ops.one_hot(ops.zeros_like(counts[:, 0], dtype="int32"), size)
        uniform = keras.random.uniform((length, ops.shape(counts)[0], size), 1e-6, 1 - 1e-6, seed=self.noise)

        def step(before, noise):
            h, c, last, alive, _ = before
            (h, c), seen, _ = lstm.step(last, [h, c], memory, keys, counts)
            logits = ops.cast(out(deep(ops.concatenate([last, h, seen], axis=-1))), noise.dtype)
            soft = ops.softmax((logits - ops.log(-ops.log(noise))) / self.settings["temperature"])
            hard = ops.one_hot(ops.argmax(soft, axis=-1), size)
            word = hard + soft - ops.stop_gradient(soft)
            word = alive * word + (1 - alive) * padding
            drawn = ops.cast(ops.matmul(word, embed.embeddings), last.dtype)
            after = [h, c, drawn, alive * (1 - hard[:, _END : _END + 1]), word]
            return after, after

        first = embed(ops.full_like(counts[:, 0], START, dtype="int32"))
        before = [*state, first, ops.ones_like(padding[:, :1]), padding]
        _, after = ops.scan(step, before, uniform)
        return ops.transpose(after[-1], (1, 0, 2))

    def get_config(self):
        discriminator = keras.saving.serialize_keras_object(self.discriminator)
        return {**super().get_config(), "discriminator": discriminator, **self.settings}
