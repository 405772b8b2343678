"""Protocols: what they measure, how their figures are put together, and that the files shipped say what they say."""

import io
import itertools
import json
import wave

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image

import zoo
from mmkeras import data
from zoo import _cli, _reproduce, protocols
from zoo.protocols import (
    Row,
    _training,
    av_digits,
    caption_scenes,
    corrnet_mnist,
    domain_shift,
    emoji_generation,
    emoji_retrieval,
    few_shot_emoji,
    pid_fusion,
    robustness,
    vqa_scenes,
)


class Protocol:
    """A protocol of two rows."""

    def __init__(self):
        self.ROWS = {"a": Row(published="7", source="Somebody 2020", reach=3.0, aim=9.0), "b": Row(unit="nats")}
        self.MODEL, self.SEEDS, self.QUICK = "autoencoder", 3, {"a": (2.0, 4.0)}
        self.given, self.asked = [2.0, 3.0, 5.0], []

    def measure(self, folder, seed, quick):
        self.asked.append(seed)
        value = self.given[seed]
        if isinstance(value, Exception):
            raise value
        return {"values": {"a": value, "b": 1.5}, "parameters": {"net": 12}, "test_read": "2026-01-01T00:00:00"}


@pytest.fixture
def protocol(monkeypatch):
    made = Protocol()
    monkeypatch.setattr(protocols, "module", lambda name: made)
    return made


def test_a_result_holds_mean_deviation_and_interval(protocol, tmp_path):
    result = _reproduce.reproduce("two", tmp_path / "out", tmp_path / "work")
    assert json.loads((tmp_path / "out/two.json").read_text()) == result
    one = result["rows"]["a"]
    assert one["values"] == [2.0, 3.0, 5.0]
    assert one["mean"] == pytest.approx(10 / 3)
    assert one["deviation"] == pytest.approx(np.std([2, 3, 5], ddof=1))
    expected = scipy.stats.t.interval(0.95, 2, np.mean([2, 3, 5]), scipy.stats.sem([2, 3, 5]))
    np.testing.assert_allclose(one["interval"], expected, rtol=1e-3)
    lines = _reproduce.table([result]).splitlines()  # no share is below 0
    assert lines[2].startswith("| `two` | a, % | 7 (Somebody 2020) | 3 (aim 9) | 3.3 ± 1.5 | 0.0 to 7.1 | 3 |")
    assert lines[3] == "|  | b, nats | — | — | 1.50 ± 0.00 | 1.50 to 1.50 |  |  |"


@pytest.mark.parametrize("number", range(2, 6))
def test_intervals_are_those_of_students_distribution(number):
    assert _reproduce._STUDENT[number - 1] == pytest.approx(scipy.stats.t.ppf(0.975, number - 1), abs=5e-4)


def test_a_figure_that_was_missed_says_so(protocol, tmp_path):
    protocol.given = [2.0, 2.5, 2.9]
    result = _reproduce.reproduce("two", tmp_path / "out", tmp_path / "work")
    assert "| 3: MISSED (aim 9) |" in _reproduce.table([result])


def test_a_protocol_that_was_interrupted_goes_on(protocol, tmp_path):
    protocol.given[1] = RuntimeError("the power went")
    with pytest.raises(RuntimeError):
        _reproduce.reproduce("two", tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "out").exists()
    minutes = json.loads((tmp_path / "work/two/1/minutes.json").read_text())
    protocol.given[1] = 3.0
    result = _reproduce.reproduce("two", tmp_path / "out", tmp_path / "work")
    assert protocol.asked == [0, 1, 1, 2]
    assert result["measured"][1]["cpu_minutes"] >= minutes > 0


def test_quick_is_one_seed_and_keeps_no_file(protocol, tmp_path):
    result = _reproduce.reproduce("two", tmp_path / "out", tmp_path / "work", quick=True)
    assert protocol.asked == [0]
    assert result["rows"]["a"]["interval"] is None
    lines = _reproduce.table([result]).splitlines()  # not what the whole work is to reach
    assert lines[2].startswith("| `two` | a, % | 7 (Somebody 2020) | 2 to 4 with --quick | 2.0 | — | 1 |")
    assert lines[3].startswith("|  | b, nats | — | — | 1.50 |")
    assert not (tmp_path / "out").exists()
    protocol.given = [1.0]
    with pytest.raises(ValueError, match="expected a of 2.0 to 4.0. Found: 1.00."):
        _reproduce.reproduce("two", tmp_path / "out", tmp_path / "other", quick=True)


def test_an_unknown_protocol_is_told_with_the_nearest_name(capsys):
    assert _cli.main(["reproduce", "pid_fusoin"]) == 2
    assert "Unknown protocol `pid_fusoin`. Did you mean `pid_fusion`?" in capsys.readouterr().err


def test_describe_tells_what_a_model_has_reached(protocol, tmp_path, monkeypatch):
    result = _reproduce.reproduce("two", tmp_path / "out", tmp_path / "work")
    monkeypatch.setattr(protocols, "shipped", lambda: {"two": result})
    said = zoo.describe("autoencoder")
    assert "Reached by `zoo reproduce two`, mean ± deviation of 3 trainings" in said
    assert "  a, %: 3.3 ± 1.5, published 7 (Somebody 2020)\n  b, nats: 1.50 ± 0.00" in said
    assert "Reached" not in zoo.describe("vqa")


def test_every_protocol_declares_what_it_measures():
    for name in protocols.names():
        module = protocols.module(name)
        assert set(module.QUICK) <= set(module.ROWS)
        assert module.SEEDS >= 1
        assert module.MODEL in zoo.names()
        assert all(bool(row.published) == bool(row.source) for row in module.ROWS.values())


def test_files_that_are_shipped_follow_from_what_was_measured():
    for name, result in protocols.shipped().items():
        again = _reproduce.summary(name, protocols.module(name), result["measured"])
        assert {**again, "made": result["made"]} == result


@pytest.mark.parametrize("task", pid_fusion.TASKS)
def test_the_optimum_is_what_knowing_the_distribution_gives(task):
    """Bayes' rule by going through all bits, on 200,000 draws of what the vectors say of them."""
    random = np.random.default_rng(5)
    rows = 200_000
    bits = random.integers(0, 2, (rows, 5))  # both, alone a and b, part a and b
    seen = {name: bits[:, [0, i, i + 2]] for i, name in enumerate("ab", 1)}
    noisy = {n: 2 * x - 1 + pid_fusion.NOISE * random.normal(size=x.shape) for n, x in seen.items()}

    def label(both, alone_a, alone_b, part_a, part_b):
        xor = part_a ^ part_b
        return {
            "redundancy": both, "unique": alone_a, "and": part_a & part_b, "xor": xor,
            "mixed": both + 2 * alone_a + 4 * alone_b + 8 * xor,
        }[task]  # fmt: skip

    chances = np.zeros((rows, 16))
    for guess in itertools.product((0, 1), repeat=5):
        likelihood = 1.0
        for i, name in enumerate("ab", 1):
            mean = 2 * np.array(guess)[[0, i, i + 2]] - 1
            likelihood = likelihood * np.exp(-((noisy[name] - mean) ** 2).sum(axis=1) / (2 * pid_fusion.NOISE**2))
        chances[:, label(*guess)] += likelihood
    right = np.mean(chances.argmax(axis=1) == label(*bits.T))
    assert 100 * right == pytest.approx(pid_fusion.optimum(task), abs=0.2)  # four standard errors


def test_points_hold_the_bits_that_the_label_is_made_of():
    splits = pid_fusion.points("redundancy", seed=3, share=10)
    (x, y), (test, true) = splits["train"], splits["test"]
    assert {name: v.shape for name, v in x.items()} == {"a": (1400, 16), "b": (1400, 16)}
    for name in "ab":  # least squares finds the direction, in either view, and it is the same in other splits
        weights = np.linalg.lstsq(x[name], 2.0 * y - 1, rcond=None)[0]
        assert np.mean((test[name] @ weights > 0) == true) > 0.95
    again = pid_fusion.points("redundancy", seed=3, share=10)["train"][0]
    np.testing.assert_array_equal(again["a"], x["a"])


def test_transfer_from_one_view_to_the_other():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)
    centres = 5 * random.normal(size=(4, 8))
    left, right = (centres[labels] + random.normal(size=(200, 8)) for _ in range(2))
    assert corrnet_mnist.transfer(left, right, labels) > 95
    assert corrnet_mnist.transfer(left, random.permutation(right), labels) < 45  # chance 25
    expected = sum(np.corrcoef(a, b)[0, 1] for a, b in zip(left.T, right.T, strict=True))
    assert corrnet_mnist.correlation(left, right) == pytest.approx(expected)


@pytest.mark.long
def test_fusions_against_the_optimum_in_quick(tmp_path, capsys):
    assert _cli.main(["reproduce", "pid_fusion", "--quick", "--work", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| `pid_fusion` | fusions within 1 point of the optimum on every task, fusions |" in printed
    assert "| xor, the best fusion, % | 75 (best of ten, Liang 2023, other data) | 88 to 97 with --quick | 9" in printed
    assert "| the optimum | 95.6 |" in printed


@pytest.fixture
def emoji(tmp_path, monkeypatch):
    """A folder in the form of the drawings of emoji: twenty subcategories of twelve plain squares, each in a colour."""
    random, folder = np.random.default_rng(0), tmp_path / "drawings"
    folder.mkdir()
    lines = {"train": [], "validation": [], "test_style": []}
    for i in range(240):
        color = np.array([i % 5 * 60, i % 20 // 5 * 80, 100])
        pixels = color + random.normal(scale=10, size=(16, 16, 3))
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(folder / f"{i}.png")
        row = {"image": f"{i}.png", "text": f"drawing {i}", "subcategory": f"kind-{i % 20}", "style": "plain"}
        row["category"] = f"group-{i % 2}"
        lines[list(lines)[i % 3]].append(json.dumps(row))
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    monkeypatch.setenv("EMOJI_DATA_DIR", str(folder))
    return folder


def test_kinds_of_emoji_belong_to_one_split_and_no_drawing_is_lost(emoji):
    seen = set()
    for seed in range(2):
        splits = few_shot_emoji.divided(few_shot_emoji.emoji(), seed).splits
        kinds = {name: set(split.cells("subcategory")) for name, split in splits.items()}
        assert {name: len(found) for name, found in kinds.items()} == {"train": 14, "validation": 2, "test": 4}
        assert len(set.union(*kinds.values())) == 20
        assert sorted(t for s in splits.values() for t in s.cells("text")) == sorted(f"drawing {i}" for i in range(240))
        seen.add(frozenset(kinds["test"]))
    assert len(seen) == 2  # another seed, other kinds


@pytest.mark.long
def test_few_shot_emoji_asks_the_pixels_the_same(emoji, tmp_path, monkeypatch):
    train, lines = zoo.train, []

    def small(name, *args, **options):
        ways = {"ways": 2} if name == "few_shot" else {}
        return train(name, *args, **{**options, "preset": "tiny", "image_size": (16, 16), "epochs": 1, **ways})

    monkeypatch.setattr(zoo, "train", small)
    monkeypatch.setattr(few_shot_emoji, "TITLES", ("2-way 1-shot", "2-way 5-shot"))
    one = few_shot_emoji.measure(tmp_path / "work", 0, quick=True)
    for title in few_shot_emoji.TITLES:
        found, raw = (one["values"][row] for row in (title, f"{title}, nearest pixels"))
        assert one["values"][f"{title}, above nearest pixels"] == pytest.approx(found - raw)
        assert raw > 90  # plain colours
        lines.append(f"{found:.1f} ± {100 * one['report'][title]['interval']:.1f}")
    assert few_shot_emoji.details([one]).splitlines()[-1] == f"| 0 | {' | '.join(lines)} |"


def test_missing_drawings_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EMOJI_DATA_DIR", str(tmp_path))
    assert _cli.main(["reproduce", "few_shot_emoji", "--work", str(tmp_path / "work")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"zoo: error: Expected drawings of emoji in {tmp_path}, or where EMOJI_DATA_DIR says.")
    assert "googlefonts/noto-emoji (Apache 2.0)" in said
    assert "\n" not in said


class Drawn:
    """A run of drawings and their names; what it reached says which pair, split and rank it is of."""

    model = type("Model", (), {"count_params": lambda self: 5})()

    def split(self, name):
        return name

    def evaluate(self, split):
        columns = ["image", *emoji_retrieval.LANGUAGES.values()]
        seen = 0.5 if split == "test_style" else 0.0
        return {
            f"{a} -> {b}": {
                f"recall@{k}": seen + columns.index(a) / 10 + columns.index(b) / 100 + k / 1000 for k in (1, 10)
            }
            for a, b in itertools.permutations(columns, 2)
        }


def test_names_are_asked_for_in_every_language_and_of_the_pixels(emoji, tmp_path, monkeypatch):
    monkeypatch.setattr(emoji_retrieval, "trained", lambda name, data, out, **options: Drawn())
    drawings = {
        "train": ([[0.0], [0.1], [0.9]], ["sun", "sun", "moon"]),
        "test_style": ([[0.2], [0.4], [0.6]], ["sun", "moon", "star"]),
    }
    monkeypatch.setattr(emoji_retrieval, "_pixels", lambda run, split: tuple(map(np.array, drawings[split])))
    one = emoji_retrieval.measure(tmp_path / "work", 0, quick=False)
    values = {row: round(value, 3) for row, value in one["values"].items()}
    assert set(values) == set(emoji_retrieval.ROWS)
    assert values["unseen style, R@1, picture to name, English"] == 51.1  # image -> text, first rank
    assert values["unseen style, R@10, name to picture, English"] == 61.0
    assert values["unseen emoji, R@10, picture to name, Chinese"] == 5.0
    assert values["unseen emoji, R@10, English name to German name"] == 13.0
    # "sun" is nearest to .2; to .4 as well, "moon" second; nobody drew a star.
    assert values["unseen style, R@1, nearest pixels"] == pytest.approx(100 / 3, abs=1e-3)
    assert values["unseen style, R@10, nearest pixels"] == pytest.approx(200 / 3, abs=1e-3)


@pytest.mark.long
def test_a_drawing_is_its_own_nearest(emoji, tmp_path):
    for path in emoji.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [json.dumps({**row, **{f"text_{x}": row["text"] for x in ("de", "fr", "zh")}}) for row in rows]
        path.write_text("\n".join(lines))
    tiny = {"preset": "tiny", "image_size": (16, 16), "image_width": 4, "text_dim": 8, "text_width": 8, "epochs": 1}
    run = _training.trained("dual_encoder", str(emoji), tmp_path / "run", **{**emoji_retrieval.OPTIONS, **tiny})
    assert emoji_retrieval.nearest_pixels(run, "train", "train") == {1: 1.0, 10: 1.0}
    assert emoji_retrieval.nearest_pixels(run, "train", "test_style") == {1: 0.0, 10: 0.0}  # no name is shared
    assert {"image -> text_zh", "text_fr -> image", "text -> text_de"} <= set(run.evaluate("test_style"))


@pytest.fixture
def styled(tmp_path):
    """Drawings of twenty emoji in three styles, of which the last five miss one, and in a fourth that misses one."""
    lines = {"train": [], "validation": [], "test_style": []}
    for i in range(20):
        for number, style in enumerate(("flat", "round", "thin", "solid")):
            Image.new("RGB", (8, 8), (12 * i, 60 * number, 0)).save(tmp_path / f"{style}-{i}.png")
            row = json.dumps({"image": f"{style}-{i}.png", "text": f"drawing {i}", "style": style})
            if (style == "solid" and i > 0) or (number < 3 and not (i > 14 and number == i % 3)):
                lines["test_style" if style == "solid" else "train"].append(row)
    lines["validation"] = lines["train"][:3]
    for name, rows in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    return data.open(str(tmp_path))


def test_cells_that_are_asked_for_are_not_trained_on_and_are_copied_in_order(styled):
    named, (others, unseen) = emoji_generation.divided(styled, 0)
    train, test = named.train, named.splits["test"]
    assert len(test) == 5  # a tenth of 55
    assert len(train) + len(test) == len(styled.train)
    assert not set(train.cells("text")) & set(test.cells("text"))
    assert set(test.cells("name")) <= set(train.cells("name"))  # in the other styles
    assert len(set(test.cells("name"))) == 5
    assert not set(test.cells("name")) & {"drawing 0", *(f"drawing {i}" for i in range(15, 20))}
    for i, name in enumerate(test.cells("name")):
        assert test.cells("text")[i] == f"{test.cells('style')[i]} {name}"
        assert others.cells("text")[i] == unseen.cells("text")[i] == name
        assert others.cells("style")[i] != test.cells("style")[i]
        assert unseen.cells("style")[i] == "solid"
    assert emoji_generation.divided(styled, 1)[0].splits["test"].cells("text") != test.cells("text")


def test_every_drawing_stands_below_the_one_it_was_to_be():
    itself, drawn = np.linspace(0, 0.4, 20)[:, None, None, None] * np.ones((2, 20, 2, 2, 3))
    figure = emoji_generation._grid(itself, drawn + 0.5, [f"drawing {i}" for i in range(20)])
    images = [image.get_array()[0, 0, 0] for image in figure.axes[0].images]
    np.testing.assert_allclose(
        images, np.concatenate([itself[:10], drawn[:10] + 0.5, itself[10:], drawn[10:] + 0.5])[:, 0, 0, 0]
    )
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said[:10] + said[20:30] == [f"drawing {i}" for i in range(20)]


def test_a_drawing_is_recognised_by_the_nearest_name():
    texts = np.eye(3)
    found = dict(zip(emoji_generation.SHOWN, (texts[[0, 1]], texts[[0, 2]], texts[[1, 1]], texts[[1, 2]]), strict=True))
    values = emoji_generation._compared(found, texts, ["sun", "moon", "star"], ["sun", "star"], "32 pixels")
    assert set(values) == {row for row in emoji_generation.ROWS if row.startswith("32")}
    assert values["32 pixels, R@1, drawn by the generator"] == 50
    assert values["32 pixels, R@1, the drawing itself"] == 100
    assert values["32 pixels, R@1, drawn above a copy in another style"] == 50
    assert values["32 pixels, R@1, drawn above a copy in the unseen style"] == 0
    assert values["32 pixels, Fréchet distance, drawn by the generator"] > 0


@pytest.mark.long
def test_the_generator_is_judged_by_the_dual_encoder_of_the_seed(styled, tmp_path, monkeypatch):
    languages = {f"text_{language}": "words" for language in ("de", "fr", "zh")}
    for name in ("train", "validation", "test_style"):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        rows = [json.dumps({**row, **languages, "subcategory": str(len(row["text"]))}) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    monkeypatch.setenv("EMOJI_DATA_DIR", str(tmp_path))
    small = {"image_width": 4, "image_size": (16, 16), "text_dim": 8, "text_width": 8}
    monkeypatch.setattr(emoji_retrieval, "OPTIONS", {**emoji_retrieval.OPTIONS, **small})
    small = {"text_dim": 8, "text_width": 8, "batch_size": 8}
    monkeypatch.setattr(emoji_generation, "OPTIONS", {**emoji_generation.OPTIONS, **small})
    small = {"generator_width": 4, "discriminator_width": 4, "epochs": 1}
    monkeypatch.setattr(emoji_generation, "SIZES", dict.fromkeys(emoji_generation.SIZES, small))
    monkeypatch.setattr(emoji_retrieval, "EPOCHS", 1)
    one = emoji_generation.measure(tmp_path / "work/emoji_generation/0", 0, quick=False)
    assert set(one["values"]) == set(emoji_generation.ROWS)
    assert (tmp_path / "work/emoji_retrieval/0/run/model.keras").exists()
    assert all((tmp_path / f"work/emoji_generation/0/drawn-{side}.png").exists() for side in (32, 64))


@pytest.fixture
def tiny(monkeypatch):
    """Protocols on scenes train for an epoch what is tiny, on few rows."""
    options = {"preset": "tiny", "epochs": 1, "batch_size": 32, "warm_start": None, "freeze": []}
    trained = _training.trained

    def small(name, data, out, **given):
        return trained(name, "scenes:240", out, **{**given, **options})

    for module in (caption_scenes, robustness, vqa_scenes):
        monkeypatch.setattr(module, "trained", small)


@pytest.mark.long
@pytest.mark.parametrize("protocol", [caption_scenes, robustness, vqa_scenes], ids=lambda p: p.__name__[14:])
def test_protocols_on_scenes_measure_every_row(tiny, tmp_path, protocol):
    one = protocol.measure(tmp_path, 0, quick=False)
    assert set(one["values"]) == set(protocol.ROWS)
    assert all(0 <= value <= 100 for value in one["values"].values())
    (parameters,) = one["parameters"].values()
    assert parameters == zoo.load(tmp_path / "run").model.count_params()


@pytest.mark.long
def test_a_training_that_was_interrupted_is_gone_on_with(tmp_path):
    options = {"preset": "tiny", "epochs": 1, "batch_size": 32}
    _training.trained("tagger", "scenes:80", tmp_path / "run", **options)
    before = (tmp_path / "run/history.csv").read_text()
    run = _training.trained("tagger", "scenes:80", tmp_path / "run", **options)
    assert (tmp_path / "run/history.csv").read_text() == before
    assert run.config.epochs == 1


def test_damages_are_as_strong_as_they_say():
    gray = Image.new("RGB", (200, 200), (128, 128, 128))
    gray.paste((255, 255, 255), (100, 0, 200, 200))
    file = io.BytesIO()
    gray.save(file, "PNG")
    given = file.getvalue()

    def pixels(damage, row=0):
        return np.asarray(Image.open(io.BytesIO(robustness.damaged(given, damage, row))), "float64") / 255

    whole = pixels("as it is")
    np.testing.assert_array_equal(whole, np.asarray(gray) / 255)
    noise = pixels("noise 0.1")
    np.testing.assert_array_equal(noise, pixels("noise 0.1"))
    assert (noise != pixels("noise 0.1", row=1)).any()
    assert (noise - whole)[:, :100].std() == pytest.approx(0.1, rel=0.02)
    for radius in (1, 2, 4):  # a blurred edge is the integral of the bell curve (Pillow's is three box filters)
        edge = pixels(f"blur {radius}")[100, :, 0]
        places = np.arange(200) - 99.5
        expected = whole[0, 0, 0] + (1 - whole[0, 0, 0]) * scipy.stats.norm.cdf(places / radius)
        np.testing.assert_allclose(edge, expected, atol=0.02)


def test_shuffled_texts_keep_their_words():
    texts = ["a large red circle top left on white", "a small blue ring bottom left on gray"]
    found = robustness.shuffled(texts)
    assert [sorted(text.split()) for text in found] == [sorted(text.split()) for text in texts]
    assert found != texts
    assert found == robustness.shuffled(texts)


def test_of_a_picture_one_corner_is_left():
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(1, 255, (28, 28), dtype="uint8")
    Image.fromarray(pixels).save(file, "PNG")
    for lower, right in av_digits.CORNERS:
        left = np.asarray(Image.open(io.BytesIO(av_digits.quarter(file.getvalue(), (lower, right)))))[..., 0]
        corner = slice(14 * lower, 14 * lower + 14), slice(14 * right, 14 * right + 14)
        np.testing.assert_array_equal(left[corner], pixels[corner])
        assert np.count_nonzero(left) == 14 * 14


def test_noise_is_as_loud_as_what_it_lies_over_and_sounds_like_it():
    rate, random = 8000, np.random.default_rng(0)
    times = np.arange(rate) / rate
    clean = [gain * np.sin(2 * np.pi * pitch * times) for gain, pitch in ((0.1, 440), (0.4, 1000))]
    sounds = [av_digits._wav(x, rate) for x in clean]
    for x, sound in zip(clean, av_digits.noisy(sounds, random), strict=True):
        noise = av_digits._samples(sound)[0] - x
        assert np.mean(noise**2) == pytest.approx(np.mean(x**2), rel=0.02)
        loudest = np.argsort(np.abs(np.fft.rfft(noise)))[-2:]  # of the sounds' mean spectrum: their two pitches
        assert set(loudest) == {440, 1000}
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (rate, rate, 1)


class Answers:
    """A run that answers as it was told: from both modalities, and from each alone."""

    def __init__(self, both, image, audio, true):
        self.answers = {(1, 1): both, (1, 0): image, (0, 1): audio}
        self.true = true
        self.config = type("Config", (), {"names": ["image", "audio"]})

    def batches(self, split):
        rows = np.arange(len(self.true))
        yield {"rows": rows, "presence": np.ones((len(rows), 2))}, {"label": tf.constant(self.true)}

    def outputs(self, x):
        presence = tuple(x["presence"][0].astype(int))
        return {"label": tf.constant(np.log(self.answers[presence]))}


def test_pairs_of_different_digits_are_found_by_what_each_modality_says():
    true = np.repeat(np.arange(4), 5)
    sure = np.eye(4)[true] * 0.9 + 0.025
    unsure = np.full_like(sure, 0.25)
    assert av_digits._found(Answers(sure, sure, sure, true), None) == 100
    assert av_digits._found(Answers(sure, sure, unsure, true), None) == pytest.approx(50)
    run = Answers(sure, np.roll(sure, 1, axis=1), unsure, true)
    assert av_digits._accuracy(run, None) == 100
    assert av_digits._accuracy(run, None, "image") == 0


def test_the_best_fusion_is_chosen_on_the_validation_rows(tmp_path, monkeypatch):
    found = {
        "image": {"validation": 50, "test": 52.0}, "audio": {"validation": 60, "test": 61.0},
        "concat": {"validation": 70, "test": 71.0, "image alone": 51.0, "audio alone": 61.5, "mismatches": 80.0},
        "low_rank": {"validation": 69, "test": 75.0, "image alone": 40.0, "audio alone": 40.0, "mismatches": 60.0},
    }  # fmt: skip
    monkeypatch.setattr(av_digits, "_pack_pairs", lambda *given: None)
    monkeypatch.setattr(av_digits.bench, "measured", lambda path, names, measure: {
        name: {**found[name], "parameters": 7, "test_read": f"2026-01-0{day}"} for day, name in enumerate(names, 1)
    })  # fmt: skip
    one = av_digits.measure(tmp_path, 0, quick=True)
    assert one["best"] == "concat"
    assert one["test_read"] == "2026-01-04"
    assert list(one["values"].values()) == [52.0, 61.0, 71.0, 71.0, 10.0, -1.0, 0.5, 80.0]
    assert list(one["values"]) == list(av_digits.ROWS)
    assert av_digits.details([one]).splitlines()[-2] == "| `concat` | 71.0 | 51.0 | 61.5 | 80.0 |"


def test_adaptation_is_compared_with_none(emoji, tmp_path, monkeypatch):
    asked = []

    class Run:
        model = type("Model", (), {"count_params": lambda self: 5})()

        def __init__(self, method):
            self.method = method

        def evaluate(self, split):
            asked.append((self.method, split))
            return {"target": {"accuracy": {"none": 0.5, "dann": 0.6}.get(self.method, 0.55), "majority": 0.2}}

    monkeypatch.setattr(domain_shift, "trained", lambda name, data, out, method, **options: Run(method))
    one = domain_shift.measure(tmp_path / "work", 0, quick=False)
    assert [method for method, _ in asked] == ["none", "dann", "cdan", "mmd"]
    assert {split for _, split in asked} == {"test_style"}
    assert set(one["values"]) == set(domain_shift.ROWS)
    assert one["values"]["DANN above source only"] == pytest.approx(10)
    assert one["values"]["trainings in which DANN is above source only"] == 100
    assert domain_shift.measure(tmp_path / "work", 0, quick=False)["values"] == one["values"]
    assert len(asked) == 4  # what was trained is not trained again
