"""Sounds and clips: read in the graph, checked in files, encoded, decoded, and drawn back."""

import io
import json
import wave

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf
from PIL import Image

import zoo
from mmkeras import data, decoders, encoders
from mmkeras.data import Split, clip_fault, encoded, sound_fault
from mmkeras.layers import DecodeAudio, DecodeVideo
from mmkeras.layers.decode_audio import resample
from zoo import _cli

RATE = 8000


def wav(samples, rate=RATE, width=2):
    """Samples `(length,)` or `(length, channels)` in -1..1 as WAV bytes."""
    samples = np.asarray(samples)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes((samples * (2 ** (8 * width - 1) - 1)).astype(f"<i{width}").tobytes())
    return buffer.getvalue()


def sine(hertz, seconds=1.0, rate=RATE, size=0.5):
    return size * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def gif(frames):
    buffer = io.BytesIO()
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], optimize=False, disposal=2)
    return buffer.getvalue()


def grays(*levels, size=(6, 6)):
    return [np.full((*size, 3), level, "uint8") for level in levels]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# Sounds


def test_spectrogram_is_that_of_numpy():
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.5, 0.5, RATE)
    layer = DecodeAudio(RATE, 1.0, 20)
    value = layer(tf.constant([wav(sound)])).numpy()[0]
    window = scipy.signal.get_window("hann", 256)
    padded = np.pad((sound * 32767).astype("<i2") / 32768, (0, 256))
    frames = np.stack([padded[start : start + 256] * window for start in range(0, RATE, 128)])
    power = np.abs(np.fft.rfft(frames)) ** 2 / 128**2
    matrix = tf.signal.linear_to_mel_weight_matrix(20, 129, RATE, 20.0, RATE / 2).numpy()
    np.testing.assert_allclose(value, np.log10(power @ matrix + 1e-7) / 7 + 1, atol=1e-4)
    assert value.shape == layer.compute_output_spec(keras.KerasTensor((None,), "string")).shape[1:]


def test_pitch_is_a_place_and_loudness_a_height():
    layer = DecodeAudio(RATE, 1.0, 40)
    low, high, soft, absent = layer(
        tf.constant([wav(sine(300)), wav(sine(2000)), wav(sine(300, size=0.05)), b""])
    ).numpy()
    assert low.mean(0).argmax() < 12 < 25 < high.mean(0).argmax()
    assert low.max() - soft.max() == pytest.approx(2 / 7, abs=0.01)  # a tenth of the amplitude: two decades of power
    assert 0 <= low.min() <= low.max() <= 1
    assert not absent.any()


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100])
def test_another_rate_is_resampled(rate):
    layer = DecodeAudio(RATE, 1.0, 40)
    own, other = layer(tf.constant([wav(sine(500)), wav(sine(500, rate=rate), rate)])).numpy()
    loud = own > 0.5
    np.testing.assert_allclose(other[2:-2][loud[2:-2]], own[2:-2][loud[2:-2]], atol=0.02)


@pytest.mark.parametrize(("rate", "target"), [(8000, 16000), (16000, 8000), (44100, 8000), (8000, 11025), (8000, 8000)])
def test_resampling_equals_scipys(rate, target):
    samples = np.convolve(np.random.default_rng(0).normal(size=2001), np.hanning(60), "same").astype("float32")
    ours = resample(tf.constant(samples), rate, target).numpy()
    np.testing.assert_allclose(ours, scipy.signal.resample(samples, len(ours)), atol=2e-3 * abs(samples).max())


def test_length_and_channels():
    layer = DecodeAudio(RATE, 1.0, 8)
    sound = sine(500, 2.0)
    whole, long, short, stereo = layer(
        tf.constant(
            [wav(sound[:RATE]), wav(sound), wav(sound[: RATE // 2]), wav(np.stack([sound, 0 * sound], 1)[:RATE])]
        )
    ).numpy()
    np.testing.assert_array_equal(whole, long)
    np.testing.assert_array_equal(short[:30], whole[:30])
    assert not short[33:].any()
    np.testing.assert_allclose(stereo[whole > 0.5], whole[whole > 0.5] - np.log10(4) / 7, atol=0.01)


def test_a_sound_is_restored():
    layer = DecodeAudio(RATE, 1.0, 40)
    sounds = tf.constant(data.open("scenes:16").train.cells("audio")[:6])
    spectrogram = layer(sounds)
    again = layer(tf.function(layer.restore)(spectrogram))
    loud = spectrogram.numpy() > 0.4
    assert np.abs(again - spectrogram)[loud].mean() < 0.02  # of 70 dB
    assert np.abs(again - spectrogram).mean() < 0.08


SOUND_FAULTS = {
    "zero length": (wav([]), "holds no sound: its length is zero"),
    "24 bits": (wav(sine(500))[:34] + b"\x18\x00" + wav(sine(500))[36:], "has 24 bits a sample; expected a WAV file"),
    "no sound": (b"this is no sound at all", "is no WAV file of 16-bit PCM"),
    "cut": (wav(sine(500))[:20], "is no WAV file of 16-bit PCM"),
}


def test_a_sound_that_is_cut_off_is_told_before_training():
    whole = wav(sine(500))
    assert sound_fault(whole) is None
    assert "it is cut off" in sound_fault(whole[:4000])


def test_no_broken_header_of_a_sound_ends_in_another_error():
    whole, random, told = wav(sine(500)), np.random.default_rng(0), 0
    for _ in range(300):
        broken = bytearray(whole)
        broken[random.integers(0, 44)] = random.integers(0, 256)
        told += bool(sound_fault(bytes(broken), decode=False))
    assert told > 30


@pytest.mark.parametrize("case", SOUND_FAULTS)
def test_bad_sound_is_told_with_its_row(case, tmp_path):
    content, reason = SOUND_FAULTS[case]
    (tmp_path / "bad.wav").write_bytes(content)
    (tmp_path / "good.wav").write_bytes(wav(sine(500)))
    cells = ["good.wav", "bad.wav", ""]
    split = Split("train", {"audio": cells, "text": ["a"] * 3}, {}, 3, lambda i: f"s.csv, row {i + 2}", tmp_path)
    with pytest.raises(data.DataError, match=r"^s.csv, row 3: .*bad.wav") as caught:
        data.checked(split, {"audio": "audio", "text": "text"})
    assert reason in str(caught.value)
    assert sound_fault(content)
    assert len(data.checked(split, {"audio": "audio", "text": "text"}, skip_bad=True)) == 2


# Clips


def test_frames_are_taken_at_even_distances():
    clip = gif(grays(0, 51, 102, 153, 204, 255))
    for count, expected in ((6, [0, 51, 102, 153, 204, 255]), (3, [0, 102, 255]), (1, [0]), (2, [0, 255])):
        frames = DecodeVideo(count, (6, 6))(tf.constant([clip])).numpy()[0]
        assert frames.shape == (count, 6, 6, 3)
        np.testing.assert_allclose(frames[:, 0, 0, 0] * 255, expected, atol=1)


def test_a_clip_of_one_frame_stands_still():
    layer = DecodeVideo(4, (5, 7), channels=1)
    still, picture, absent = layer(tf.constant([gif(grays(90)), png(grays(90)[0]), b""])).numpy()
    for frames in (still, picture):
        np.testing.assert_allclose(frames, 90 / 255, atol=1e-3)
    assert not absent.any()
    assert still.shape == (4, 5, 7, 1)


def test_a_folder_of_frames_is_the_clip_in_natural_order(tmp_path):
    for number, level in ((1, 0), (2, 100), (10, 200)):
        Image.fromarray(grays(level)[0]).save(tmp_path / f"frame{number}.png")
    Image.fromarray(grays(50)[0]).save(tmp_path / "single.png")
    (tmp_path / "notes.txt").write_text("no picture")
    layer = DecodeVideo(3, (6, 6))
    sent = layer(tf.constant([encoded(str(tmp_path)), encoded(str(tmp_path / "single.png"))])).numpy()
    cells = [str(tmp_path), str(tmp_path / "single.png"), ""]
    split = Split("train", {"video": cells, "text": ["a"] * 3}, {"video": "video"}, 3, lambda i: f"row {i}")
    (batch,) = data.raw_batches(split, ["video"])
    read = layer(batch["video"]).numpy()
    np.testing.assert_array_equal(read[:2], sent)
    (tmp_path / "single.png").unlink()
    read = layer(tf.constant([encoded(str(tmp_path))])).numpy()
    np.testing.assert_allclose(read[0, :, 0, 0, 0] * 255, [0, 100, 200], atol=1)


def test_bad_clips_are_told(tmp_path):
    assert "is no picture" in clip_fault(b"no clip at all")
    assert "holds no pictures" in clip_fault(str(tmp_path))
    (tmp_path / "1.png").write_text("no picture")
    assert "1.png is no picture" in clip_fault(str(tmp_path))
    assert "there is no file" in clip_fault(str(tmp_path / "none.gif"))
    whole = png(grays(90)[0])
    assert clip_fault(tf.io.serialize_tensor([whole, whole]).numpy()) is None  # a folder of frames, packed
    assert "image file is truncated" in clip_fault(tf.io.serialize_tensor([whole, whole[:50]]).numpy())
    assert "or holds no frame" in clip_fault(tf.io.serialize_tensor([whole, whole]).numpy()[:-3])
    assert clip_fault(gif(grays(1, 2))) is None
    assert "x 3 frames, more than" in clip_fault(gif(grays(1, 2, 3, size=(5000, 5000))), decode=False)


# Networks


@pytest.mark.parametrize("kind", ["audio", "cnn_lstm", "conv3d"])
def test_encoders_see_time_and_pass_gradients(kind):
    rng = np.random.default_rng(0)
    if kind == "audio":
        model, x = encoders.audio_encoder((24, 16), width=4), rng.uniform(size=(3, 24, 16)).astype("float32")
    else:
        model = encoders.video_encoder((6, 16, 16, 3), kind, width=4)
        x = rng.uniform(size=(3, 6, 16, 16, 3)).astype("float32")
    tokens = model(x)
    assert tokens.shape == (3, *model.output_shape[1:])
    assert np.abs(model(x[:, ::-1]) - tokens).max() > 1e-3  # backwards is another clip
    np.testing.assert_allclose(model(x[1:2])[0], tokens[1], atol=1e-5)  # a row at a time
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x, training=True) ** 2)
    assert all(np.abs(g).max() > 0 for g in tape.gradient(loss, model.trainable_variables))


def test_decoders_draw_in_range():
    latent = np.random.default_rng(0).normal(size=(2, 8)).astype("float32")
    for model, shape in (
        (decoders.audio_decoder(8, (63, 40), width=4), (63, 40)),
        (decoders.video_decoder(8, (5, 16, 12, 3), width=4), (5, 16, 12, 3)),
    ):
        value = model(latent).numpy()
        assert value.shape == (2, *shape)
        assert 0 <= value.min() <= value.max() <= 1
    assert np.abs(value[:, 1:] - value[:, :-1]).max() > 0  # frames differ


# Models

ALL = {"image": "image", "text": "text", "vector": "vector", "audio": "audio", "video": "video"}


# The encoders are the same in all four, and the decoders have tests of their own below.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("fusion_classifier", marks=pytest.mark.long),
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("autoencoder", "cross_modal", "dual_encoder")),
    ],
)
def test_five_kinds_at_once(name, tmp_path, capsys):
    networks = {"text_encoder": "bag", "video_encoder": "conv3d"}  # those that are quickly traced
    options = {"modalities": ALL, "epochs": 1, "batch_size": 16, "verbose": 0, **networks}
    run = zoo.train(name, "scenes:32", out=tmp_path / "run", preset="tiny", **options)
    assert run.config.audio_seconds == 1.0
    report = run.evaluate("test")
    assert all(np.isfinite(value) for numbers in report.values() for value in numbers.values())
    split = data.open("scenes:32").test
    raw = {spec: split.cells(spec)[:2] for spec in run.signatures["serving_default"].inputs}
    answer = run.predict(**raw)
    assert all(len(value) == 2 for value in answer.values())
    if name == "autoencoder":
        assert sound_fault(answer["audio_bytes"][0]) is None
        assert answer["video_bytes"].shape == (2, 4)
        assert answer["video_bytes"][0, 0].startswith(b"\x89PNG")
        (tmp_path / "a.wav").write_bytes(raw["audio"][0])
        assert _cli.main(["predict", str(run.path), f"audio={tmp_path / 'a.wav'}", "--out", str(tmp_path / "out")]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["audio_bytes"] == str(tmp_path / "out" / "audio.wav")
        assert sound_fault(said["audio_bytes"]) is None
        assert said["video_bytes"] == [str(tmp_path / "out" / "video" / f"{i}.png") for i in range(4)]
        with Image.open(said["video_bytes"][3]) as frame:
            assert frame.size == (16, 16)


@pytest.mark.parametrize(
    ("given", "target"),
    [
        pytest.param("text", "audio", marks=pytest.mark.long),
        pytest.param("image", "video", marks=pytest.mark.slow),
    ],
)
def test_a_sound_from_a_text_and_a_clip_from_a_picture(given, target, tmp_path):
    options = {"modalities": {given: given, target: target}, "target": target, "epochs": 6, "verbose": 0}
    run = zoo.train("cross_modal", "scenes:240", out=tmp_path / "run", preset="tiny", **options)
    (numbers,) = run.evaluate("test").values()
    assert numbers["mse"] < 0.9 * numbers["mse_of_mean"]


def test_a_sound_tells_the_shape(tmp_path):
    options = {"modalities": {"audio": "audio"}, "epochs": 10, "batch_size": 16, "verbose": 0}
    run = zoo.train("fusion_classifier", "scenes:320", out=tmp_path / "run", preset="tiny", **options)
    report = run.evaluate("test")
    assert report["audio"]["accuracy"] > report["majority label"]["accuracy"] + 0.3


@pytest.mark.slow
@pytest.mark.parametrize("network", ["cnn_lstm", "conv3d"])
def test_a_clip_tells_the_motion_which_a_picture_cannot(network, tmp_path):
    options = {
        "modalities": {"video": "video"}, "columns": {"motion": "label"}, "epochs": 18, "batch_size": 16, "verbose": 0,
        "video_encoder": network,
    }  # fmt: skip
    run = zoo.train("fusion_classifier", "scenes:400", out=tmp_path / "run", preset="tiny", **options)
    moving = run.evaluate("test")["video"]["accuracy"]
    picture = {"columns": {"motion": "label", "video": "image"}, "out": tmp_path / "still"}
    still = zoo.train("fusion_classifier", "scenes:400", preset="tiny", **{**options, **picture}).evaluate("test")
    assert moving > 0.25 + 0.3
    assert moving > still["video"]["accuracy"] + 0.25
