"""Texts written word after word: decoders, searches, and the measures of what they write."""

import collections
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from mmkeras import decoders, export, layers, metrics, training

WORDS = 7  # of the toy language: four special ones, of which one is [END] (3), and three words


def toy(seed, sharpness=2.0):
    """Random log-probabilities of a word after the last two: `(first, second, next)`."""
    logits = np.random.default_rng(seed).normal(scale=sharpness, size=(WORDS, WORDS, WORDS))
    return logits.astype("float32")


def toy_decoder(logits):
    def logits_of(words, t, state):
        rows = tf.shape(words)[0]
        padded = tf.concat([tf.fill([rows, 2], 2), words], axis=1)
        before = tf.gather(padded, [t, t + 1], axis=1)
        return tf.gather_nd(tf.constant(logits), before), state

    return logits_of


def log_probability(logits, text):
    """Of a text that ends with [END], as the search counts it: [END] in the last place costs what it is worth."""
    total, before = 0.0, (2, 2)
    for word in text:
        now = logits[before].astype("float64")
        total += now[word] - np.log(np.exp(now).sum())
        before = (before[1], word)
    return total


def all_texts(length):
    for size in range(length):
        for words in itertools.product((4, 5, 6), repeat=size):
            yield (*words, 3)


def unpadded(ids):
    return tuple(int(i) for i in ids if i)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_the_best_of_all_texts(seed, penalty):
    logits, length = toy(seed), 4
    scores = {text: log_probability(logits, text) / ((5 + len(text)) / 6) ** penalty for text in all_texts(length)}
    ranking = sorted(scores, key=scores.get, reverse=True)
    words, found = export.beam_search(toy_decoder(logits), [], 2, length, width=40, length_penalty=penalty)
    for row in range(2):
        assert [unpadded(text) for text in words[row, :5].numpy()] == ranking[:5]
        np.testing.assert_allclose(found[row, :5], [scores[text] for text in ranking[:5]], rtol=1e-5)


def test_a_narrow_beam_finds_what_greedy_search_misses():
    better = 0
    for seed in range(20):
        logits = toy(seed, 1.0)
        greedy = export.beam_search(toy_decoder(logits), [], 1, 5, width=1)
        beam = export.beam_search(toy_decoder(logits), [], 1, 5, width=4)
        text, before = [], (2, 2)
        for place in range(5):
            word = 3 if place == 4 else 3 + int(logits[before][3:].argmax())
            text.append(word)
            before = (before[1], word)
            if word == 3:
                break
        assert unpadded(greedy[0][0, 0].numpy()) == tuple(text)
        better += float(beam[1][0, 0]) > float(greedy[1][0, 0]) + 1e-4
    assert better >= 3


def test_texts_are_drawn_from_the_nucleus_alone_and_as_often_as_they_should():
    logits = np.full((WORDS, WORDS, WORDS), -20.0, "float32")
    logits[2, 2, [4, 5, 6]] = np.log([0.6, 0.3, 0.1])
    logits[2, 4:, 3] = 0.0  # one word, then [END]
    draws = np.random.default_rng(0).uniform(size=(4000, 3)).astype("float32")
    words, scores = export.nucleus_sample(toy_decoder(logits), [], tf.constant(draws), share=0.85)
    first = collections.Counter(words[:, 0].numpy().tolist())
    assert set(first) == {4, 5}  # together they have 0.9: the third is not needed
    assert first[4] / 4000 == pytest.approx(2 / 3, abs=0.03)
    assert (words[:, 1] == 3).numpy().all()
    assert float(scores[0]) == pytest.approx(math.log(0.6 if words[0, 0] == 4 else 0.3), abs=1e-3)
    sharp, _ = export.nucleus_sample(toy_decoder(logits), [], tf.constant(draws), share=0.85, temperature=0.1)
    assert (sharp[:, 0] == 4).numpy().mean() > 0.99


def test_searches_take_an_empty_batch():
    words, scores = export.beam_search(toy_decoder(toy(0)), [], 0, 4, width=3)
    assert (words.shape, scores.shape) == ((0, 3, 4), (0, 3))


@pytest.fixture(params=["lstm", "transformer"])
def decoder(request):
    keras.utils.set_random_seed(0)
    return decoders.caption_decoder((5, 6), 7, 11, request.param, width=8, num_layers=2, num_heads=2)


@pytest.fixture
def memory():
    random = np.random.default_rng(0)
    counts = np.ones((3, 5), "float32")
    counts[1, 3:] = 0
    return {"memory": random.normal(size=(3, 5, 6)).astype("float32"), "counts": counts}


def test_a_word_depends_on_those_before_it_alone(decoder, memory):
    random = np.random.default_rng(1)
    words = random.integers(4, 11, (3, 7)).astype("int32")
    expected = decoder({"words": words, **memory})
    for place in range(7):
        changed = words.copy()
        changed[:, place] = (changed[:, place] - 4 + 1) % 7 + 4
        logits = decoder({"words": changed, **memory})["logits"]
        np.testing.assert_allclose(logits[:, : place + 1], expected["logits"][:, : place + 1], atol=1e-5)
        if place < 6:
            assert np.abs(logits[:, place + 1] - expected["logits"][:, place + 1]).max() > 1e-4
    np.testing.assert_allclose(expected["attention"].numpy().sum(-1), 1, rtol=1e-5)
    assert np.abs(expected["attention"][1, :, 3:]).max() < 1e-6  # what does not count is not looked at


def test_one_word_at_a_time_is_as_all_at_once(decoder, memory):
    words = np.random.default_rng(1).integers(4, 11, (3, 7)).astype("int32")
    expected = decoder({"words": words, **memory})["logits"].numpy()
    logits_of, state = decoders.word_by_word(decoder, **{name: tf.constant(value) for name, value in memory.items()})
    for t in range(7):
        written = np.where(np.arange(7) < t, words, 0)
        logits, state = logits_of(tf.constant(written), t, state)
        np.testing.assert_allclose(logits, expected[:, t], atol=1e-5)


def test_beams_of_a_decoder_have_the_scores_that_it_gives_their_texts(decoder, memory):
    """The states follow their beams: a search that mixed them up would report other scores."""
    width = 3
    repeated = {name: tf.repeat(value, width, axis=0) for name, value in memory.items()}
    logits_of, state = decoders.word_by_word(decoder, **repeated)
    words, scores = export.beam_search(logits_of, state, 3, 7, width)
    flat = words.numpy().reshape(-1, 7)
    logits = tf.nn.log_softmax(decoder({"words": tf.constant(flat), **repeated})["logits"]).numpy()
    own = (np.take_along_axis(logits, flat[..., None], -1)[..., 0] * (flat > 0)).sum(-1)
    np.testing.assert_allclose(scores.numpy().ravel(), own, atol=1e-4)
    assert len({tuple(row) for row in words[0].numpy().tolist()}) == width


def test_attention_lstm_equals_numpys():
    random = np.random.default_rng(0)
    inputs, memory = random.normal(size=(2, 3, 4)).astype("float32"), random.normal(size=(2, 5, 6)).astype("float32")
    counts = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]], "float32")
    layer = layers.AttentionLSTM(3)
    states, seen, weights = (x.numpy() for x in layer(inputs, memory, counts))
    w = {v.path.split("/", 1)[1]: v.numpy() for v in layer.weights}

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    mean = (memory * counts[..., None]).sum(1) / counts.sum(1, keepdims=True)
    h, c = np.split(np.tanh(mean @ w["first/kernel"] + w["first/bias"]), 2, axis=-1)
    for t in range(3):
        hidden = memory @ w["attention/of_token/kernel"] + w["attention/of_token/bias"]
        hidden = np.tanh(hidden + (h @ w["attention/of_query/kernel"])[:, None])
        score = np.exp((hidden @ w["attention/score/kernel"])[..., 0]) * counts
        a = score / score.sum(-1, keepdims=True)
        z = sigmoid(h @ w["gate/kernel"] + w["gate/bias"]) * (a[..., None] * memory).sum(1)
        x = np.concatenate([inputs[:, t], z], axis=-1)
        i, f, g, o = np.split(x @ w["cell/kernel"] + h @ w["cell/recurrent_kernel"] + w["cell/bias"], 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        for got, expected in ((states, h), (seen, z), (weights, a)):
            np.testing.assert_allclose(got[:, t], expected, atol=1e-5)


def test_memory_holds_all_tokens_and_says_which_count():
    words = layers.TokenEmbedding(9, 4)(np.array([[5, 6, 0], [7, 0, 0]]))
    places = np.ones((2, 2, 5), "float32")
    layer = layers.JoinTokens(6)
    memory, counts = layer([places, words], np.array([[1.0, 1.0], [0.0, 1.0]]))
    assert memory.shape == (2, 5, 6)
    assert counts.numpy().tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    assert np.abs(memory.numpy()[counts.numpy() == 0]).max() == 0
    assert np.abs(memory[0, 0] - memory[0, 1]).max() > 1e-3  # equal tokens, other places


def test_scheduled_sampling_replaces_more_and_more_words_in_training_alone():
    layer = layers.ScheduledSampling(0.5, ramp=10, seed=0)
    ids = np.tile([[5, 6, 7, 0]], (500, 1)).astype("int32")
    logits = np.full((500, 4, 9), -50.0, "float32")
    logits[..., 8] = 0.0
    assert (layer(ids, logits, training=False).numpy() == ids).all()
    shares = []
    for _ in range(12):
        out = layer(ids, logits, training=True).numpy()
        assert (out[:, 3] == 0).all()
        assert set(np.unique(out)) <= {0, 5, 6, 7, 8}
        shares.append((out[:, :3] == 8).mean())
    assert shares[0] == pytest.approx(0.05, abs=0.03)
    assert shares[-1] == pytest.approx(0.5, abs=0.05)


# A writer against a reader


def test_drawn_words_pass_gradients_on_and_end_with_end():
    keras.utils.set_random_seed(0)
    model = zoo.build("captioner", preset="tiny", adversarial_weight=0.5)
    random = np.random.default_rng(0)
    words = random.integers(4, 50, (4, 8)).astype("int32")
    x = {"image": random.random((4, 16, 16, 3), "float32"), "text": words, "presence": np.ones((4, 2), "float32")}
    x = {name: tf.constant(value) for name, value in x.items()}
    out = model.get_layer("decoder").get_layer("logits")
    with tf.GradientTape() as tape:
        drawn = model.draw(x)
        loss = tf.reduce_sum(model._judge(x, drawn))
    assert np.abs(tape.gradient(loss, out.kernel)).max() > 0
    np.testing.assert_allclose(drawn.numpy().sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(drawn.numpy().max(-1), 1, atol=1e-5)
    ids = drawn.numpy().argmax(-1)
    for row in ids:
        ends = np.flatnonzero(row == 3)
        assert not len(ends) or (row[ends[0] + 1 :] == 0).all()
    out.bias.assign(np.where(np.arange(50) == 3, 50.0, 0.0))
    assert (model.draw(x).numpy().argmax(-1) == [3, 0, 0, 0, 0, 0, 0, 0]).all()


def test_a_neighbour_with_the_same_text_is_no_mismatch():
    keras.utils.set_random_seed(0)
    model = zoo.build("captioner", preset="tiny", adversarial_weight=0.5)
    random = np.random.default_rng(0)
    words = np.repeat(random.integers(4, 50, (1, 8)), 3, axis=0).astype("int32")
    x = {"image": random.random((3, 16, 16, 3), "float32"), "text": words, "presence": np.ones((3, 2), "float32")}
    x = {name: tf.constant(value) for name, value in x.items()}
    drawn = model.draw(x)
    of_true, of_drawn = (model._judge(x, words) for words in (tf.one_hot(x["text"], 50), drawn))
    expected = np.log1p(np.exp(-of_true)) + np.log1p(np.exp(of_drawn))
    assert float(model._reading_loss(x, drawn)) == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.long
def test_reader_and_writer_learn_and_are_kept(tmp_path):
    keras.utils.set_random_seed(0)
    model = zoo.build("captioner", preset="tiny", adversarial_weight=0.5, ramp=5)
    random = np.random.default_rng(0)
    x = {"image": random.random((8, 16, 16, 3), "float32"), "text": random.integers(4, 50, (8, 8)).astype("int32")}
    readers, writers = model.discriminator.get_weights(), [v.numpy() for v in model._writers()]
    history = model.fit(x, epochs=40, batch_size=8, verbose=0).history
    assert history["discriminator_loss"][-1] < history["discriminator_loss"][0]
    assert history["loss"][-1] < history["loss"][0]
    assert all((a != b).any() for a, b in zip(readers, model.discriminator.get_weights(), strict=True))
    assert all((a != b.numpy()).any() for a, b in zip(writers, model._writers(), strict=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, training.AdversarialText)
    np.testing.assert_array_equal(loaded(x)["text"], model(x)["text"])
    for a, b in zip(loaded.discriminator.get_weights(), model.discriminator.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_discriminator_wants_the_lstm():
    with pytest.raises(ValueError, match="Expected decoder='lstm'"):
        zoo.build("captioner", preset="tiny", adversarial_weight=0.5, decoder="transformer")


# Measures


def test_known_values_of_a_test():
    said, true = ["this is a good test"], [["this is a test", "this is also a test"]]
    assert metrics.bleu(said, true, 1) == pytest.approx(80)
    assert metrics.bleu(said, true, 2) == pytest.approx(63.2455, abs=1e-4)
    assert metrics.bleu(said, true, 3) == pytest.approx(51.08729, abs=1e-5)
    assert metrics.rouge_l(said, true) == pytest.approx(0.9070631, abs=1e-7)


def test_rouge_l_by_all_subsequences():
    random = np.random.default_rng(0)

    def common(a, b):
        for size in range(min(len(a), len(b)), 0, -1):
            if {tuple(c) for c in itertools.combinations(a, size)} & {
                tuple(c) for c in itertools.combinations(b, size)
            }:
                return size
        return 0

    for _ in range(30):
        said, *true = (random.choice(list("abc"), random.integers(1, 7)).tolist() for _ in range(3))
        p = max(common(said, t) / len(said) for t in true)
        r = max(common(said, t) / len(t) for t in true)
        expected = 2.44 * p * r / (r + 1.44 * p) if p else 0.0
        got = metrics.rouge_l([" ".join(said)], [[" ".join(t) for t in true]])
        assert got == pytest.approx(expected)
    assert metrics.rouge_l([""], [["a"]]) == 0


def test_cider_of_cases_worked_by_hand():
    # Two rows; every word but "a" is in one row's references alone: weight log 2; "a" in both: weight 0.
    true = [["a red fox"], ["a blue sky"]]
    # Equal texts: cosine 1 for words, pairs and triples; there are no runs of four: 0. 10 * 3 / 4.
    assert metrics.cider(["a red fox", "a blue sky"], true) == pytest.approx(7.5)
    assert metrics.cider(["a blue sky", "a red fox"], true) == 0
    # "red": the words' cosine is 1 / sqrt(2), two words shorter: exp(-4 / 72); no longer runs.
    expected = 10 / 4 * math.exp(-4 / 72) / math.sqrt(2)
    assert metrics.cider(["red", "a blue sky"], true) == pytest.approx((expected + 7.5) / 2)
    # Repeating a word brings nothing: shared weights are clipped at the reference's, the norm grows.
    repeated = 10 / 4 * math.exp(-1 / 72) * (1 / (2 * math.sqrt(2)))
    assert metrics.cider(["red red", "a blue sky"], true) == pytest.approx((repeated + 7.5) / 2)


def test_cider_takes_the_mean_over_references():
    true = [["a red fox", "an old red fox"], ["a blue sky", "the sky"]]
    both = metrics.cider(["a red fox", "the sky"], true)
    assert 0 < both < metrics.cider(["a red fox", "the sky"], [["a red fox"], ["the sky"]]) * 1.5
    assert both > metrics.cider(["the sky", "a red fox"], true)
