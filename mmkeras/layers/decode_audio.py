"""Sounds to log-mel spectrograms and back, inside the graph."""

import keras
import numpy as np
import tensorflow as tf

from mmkeras.layers.each_row import each_row
from mmkeras.layers.spectrogram import frame_size, num_frames
from mmkeras.layers.traced import traced_once

_FLOOR = 1e-7  # of the power: 70 dB below full scale is silence
_MEL_STEPS = 20
_GRIFFIN_LIM_STEPS = 32


@keras.saving.register_keras_serializable(package="mmkeras")
class DecodeAudio(keras.layers.Layer):
    """WAV bytes `(batch,)` (16-bit PCM, any rate) to a log-mel spectrogram `(batch, frames, mels)` in 0..1.

    0 is silence (70 dB below full scale), 1 full scale. Channels are averaged, another rate is resampled, longer
    sounds are cut and shorter ones end in silence. An empty byte string is an absent sound: silence. What is no sound
    is an error, which names its row with `names_all`.

    Args:
        rate: samples a second.
        seconds: length that is looked at.
        num_mels: bands of the mel scale.
        names_all: see DecodeImage.

    Example:

    >>> wav = tf.audio.encode_wav(tf.zeros((8000, 1)), 8000)
    >>> DecodeAudio(8000, 1.0, 40)(wav[None]).shape
    TensorShape([1, 63, 40])
    """

    def __init__(self, rate=8000, seconds=1.0, num_mels=40, names_all=False, **kwargs):
        super().__init__(**kwargs)
        if rate < 1000 or seconds <= 0:
            raise ValueError(f"Expected a rate of 1000 or more and seconds > 0. Received: rate={rate}, {seconds=}")
        self.rate = rate
        self.seconds = seconds
        self.num_mels = num_mels
        self.names_all = names_all
        self.frame = frame_size(rate)

    @property
    def num_samples(self):
        """Samples that are looked at."""
        return max(round(self.rate * self.seconds), 1)

    def call(self, sounds):
        rows = tf.strings.as_string(tf.range(tf.shape(sounds)[0]))
        return self._read(sounds, tf.strings.join([f"The sound `{self.name.removeprefix('read_')}` in row ", rows]))

    @traced_once
    def _read(self, sounds, names):
        spec = tf.TensorSpec((self.num_samples,), tf.float32)
        samples = each_row(self._one, (sounds,), spec, names=names if self.names_all else None)
        power = tf.abs(self._stft(samples)) ** 2 / (self.frame / 2) ** 2
        mels = tf.tensordot(power, self._mel_matrix(), 1)
        decades = -np.log10(_FLOOR)
        return tf.math.log(mels + _FLOOR) / np.log(10) / decades + 1

    def _one(self, given):
        (sound,) = given
        empty = tf.equal(tf.strings.length(sound), 0)
        samples = tf.cond(empty, lambda: tf.zeros((self.num_samples,)), lambda: self._decode(sound))
        return tf.ensure_shape(samples, (self.num_samples,))

    def _decode(self, sound):
        samples, rate = tf.audio.decode_wav(sound)
        samples = tf.reduce_mean(samples, axis=-1)
        samples = samples[: tf.cast(tf.math.ceil(self.seconds * tf.cast(rate, tf.float32)), tf.int32)]
        samples = tf.cond(tf.equal(rate, self.rate), lambda: samples, lambda: resample(samples, rate, self.rate))
        samples = samples[: self.num_samples]
        return tf.pad(samples, [[0, self.num_samples - tf.shape(samples)[0]]])

    def _stft(self, samples):
        return tf.signal.stft(samples, self.frame, self.frame // 2, self.frame, pad_end=True)

    def _mel_matrix(self):
        """`(frequencies, mels)`."""
        return tf.signal.linear_to_mel_weight_matrix(self.num_mels, self.frame // 2 + 1, self.rate, 20.0, self.rate / 2)

    def restore(self, spectrogram):
        """Spectrograms `(batch, frames, mels)` to WAV bytes `(batch,)`; the phase is guessed (Griffin and Lim 1984)."""
        decades = -np.log10(_FLOOR)
        mels = tf.maximum(10.0 ** ((tf.clip_by_value(spectrogram, 0.0, 1.1) - 1) * decades) - _FLOOR, 0.0)
        size = tf.sqrt(self._power(mels)) * (self.frame / 2)
        turn = tf.random.stateless_uniform(size.shape[1:], (0, 0), 0, 2 * np.pi)  # the same for every row
        spectrum = tf.cast(size, tf.complex64) * tf.exp(tf.complex(0.0, 1.0) * tf.cast(turn, tf.complex64))

        def step(spectrum):
            again = self._stft(self._inverse(spectrum))
            return tf.cast(size, tf.complex64) * again / tf.cast(tf.maximum(tf.abs(again), 1e-9), tf.complex64)

        spectrum = _repeat(_GRIFFIN_LIM_STEPS, step, spectrum)
        samples = tf.clip_by_value(self._inverse(spectrum), -1.0, 1.0)
        encode = lambda one: tf.audio.encode_wav(one[:, None], self.rate)  # noqa: E731
        return tf.map_fn(encode, samples, fn_output_signature=tf.TensorSpec((), tf.string))

    def _power(self, mels):
        """Mel energies to non-negative powers `(batch, frames, frequencies)` that give them (Lee and Seung 2001)."""
        matrix = self._mel_matrix()
        wanted = tf.tensordot(mels, matrix, [[-1], [-1]])

        def step(power):
            given = tf.tensordot(tf.tensordot(power, matrix, 1), matrix, [[-1], [-1]])
            return power * wanted / tf.maximum(given, 1e-12)

        return _repeat(_MEL_STEPS, step, tf.ones_like(wanted) * 1e-3)

    def _inverse(self, spectrum):
        step = self.frame // 2
        window = tf.signal.inverse_stft_window_fn(step)
        samples = tf.signal.inverse_stft(spectrum, self.frame, step, self.frame, window)
        return samples[:, : self.num_samples]

    def compute_output_spec(self, sounds):
        return keras.KerasTensor((sounds.shape[0], num_frames(self.rate, self.seconds), self.num_mels), dtype="float32")

    def get_config(self):
        own = {"rate": self.rate, "seconds": self.seconds, "num_mels": self.num_mels, "names_all": self.names_all}
        return {**super().get_config(), **own}


def _repeat(times, step, value):
    """`step` of the value, so many times; a loop in the graph."""
    return tf.while_loop(lambda i, _: i < times, lambda i, value: (i + 1, step(value)), (0, value))[1]


def resample(samples, rate, target):
    """Samples `(length,)` at `rate` to the same sound at `target`, by cutting or padding its spectrum."""
    length = tf.shape(samples)[0]
    ratio = tf.cast(target, tf.float64) / tf.cast(rate, tf.float64)
    wanted = tf.cast(tf.math.round(tf.cast(length, tf.float64) * ratio), tf.int32)

    def by_spectrum():
        spectrum = tf.signal.rfft(samples)[: wanted // 2 + 1]
        spectrum = tf.pad(spectrum, [[0, wanted // 2 + 1 - tf.shape(spectrum)[0]]])
        return tf.signal.irfft(spectrum, [wanted]) * tf.cast(wanted / length, tf.float32)

    return tf.cond(tf.minimum(length, wanted) > 0, by_spectrum, lambda: tf.zeros((wanted,)))
