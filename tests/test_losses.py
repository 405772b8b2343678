"""Losses against loops in NumPy."""

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from mmkeras import losses
from mmkeras.losses.adversarial import generator_loss
from mmkeras.training.by_rows import clip_by_rows

SCALE, BIAS = 7.0, -2.0
NAMES = ["clip", "siglip", "l2", "triplet-sum", "triplet-hardest", "triplet-semi_hard", "triplet-soft"]


def contrastive(name, similarity, positive, valid):
    """The loss of the package; `triplet-soft` is the triplet loss with soft negatives."""
    kind, _, negatives = name.partition("-")
    options = {"negatives": negatives} if negatives else {}
    return losses.CONTRASTIVE_LOSSES[kind](similarity, positive, valid, SCALE, BIAS, **options)


def batch(seed, rows=7):
    """Similarities, pairs that belong together (rows of one group, and some one way only) and rows that take part."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, rows)
    valid = rng.random(rows) < 0.7
    valid[:3] = True, True, False
    positive = (group[:, None] == group) | (rng.random((rows, rows)) < 0.1)
    return rng.uniform(-1, 1, (rows, rows)).astype("float32"), positive, valid


def softplus(x):
    return np.log1p(np.exp(-abs(x))) + max(x, 0)


def test_clip_by_rows_is_clip():
    """Its value and its gradients, where some rows do not take part and the last rows are fewer."""
    _, positive, valid = batch(0)
    random = np.random.default_rng(0)
    given = [
        tf.constant(random.normal(size=(7, 4))),
        tf.constant(random.normal(size=(7, 4))),
        tf.constant(SCALE, "double"),
    ]
    found = []
    for loss in (
        lambda a, b, scale: losses.clip(a @ tf.transpose(b), positive, valid, scale, BIAS),
        lambda a, b, scale: clip_by_rows(a, b, tf.constant(positive), tf.constant(valid), scale, 3),
    ):
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = 2 * loss(*given)
        found.append([value, *tape.gradient(value, given)])
    for ours, expected in zip(*found[::-1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)
        assert np.abs(expected).max() > 0.01


def clip_by_loop(s, positive, valid):
    rows = np.flatnonzero(valid)
    total = 0.0
    for i in rows:
        for row, together in ((s[i], positive[i]), (s[:, i], positive[:, i])):
            log_sum = np.log(sum(np.exp(SCALE * row[j]) for j in rows))
            own = [j for j in rows if together[j]]
            total += -sum(SCALE * row[j] - log_sum for j in own) / len(own)
    return total / (2 * len(rows))


def siglip_by_loop(s, positive, valid):
    rows = np.flatnonzero(valid)
    pairs = [softplus((-1 if positive[i, j] else 1) * (SCALE * s[i, j] + BIAS)) for i in rows for j in rows]
    return sum(pairs) / len(rows)


def l2_by_loop(s, positive, valid):
    return np.mean([2 - 2 * s[i, i] for i in np.flatnonzero(valid)])


def triplet_by_loop(s, positive, valid, negatives, margin=0.2):
    rows = np.flatnonzero(valid)
    total = 0.0
    for i in rows:
        for row, together in ((s[i], positive[i]), (s[:, i], positive[:, i])):
            others = [row[j] for j in rows if not together[j]]
            if negatives == "semi_hard":
                others = [x for x in others if x < s[i, i]]
            if negatives == "sum":
                total += sum(max(0, margin + x - s[i, i]) for x in others)
            elif others:
                hardest = 0.05 * np.log(sum(np.exp(x / 0.05) for x in others)) if negatives == "soft" else max(others)
                total += max(0, margin + hardest - s[i, i])
    return total / len(rows)


def by_loop(name, similarity, positive, valid):
    kind, _, negatives = name.partition("-")
    s = similarity.astype("float64")
    if kind == "triplet":
        return triplet_by_loop(s, positive, valid, negatives)
    return {"clip": clip_by_loop, "siglip": siglip_by_loop, "l2": l2_by_loop}[kind](s, positive, valid)


def with_gradient(function, *arrays):
    """The value of a function and its gradients, as NumPy arrays."""
    tensors = [tf.constant(a) for a in arrays]
    with tf.GradientTape() as tape:
        for tensor in tensors:
            tape.watch(tensor)
        value = function(*tensors)
        total = tf.reduce_sum(value)
    return np.array(value), [g.numpy() for g in tape.gradient(total, tensors)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_contrastive_losses_equal_their_loops(name, seed):
    similarity, positive, valid = batch(seed)
    assert positive.sum() > len(positive)  # some rows have several positives
    assert not valid.all()
    np.testing.assert_allclose(
        contrastive(name, similarity, positive, valid), by_loop(name, similarity, positive, valid), rtol=1e-5
    )


def test_supervised_contrast_by_loop():
    """Every view against all others, of both modalities; the mean over those that belong together (Khosla 2020)."""
    random = np.random.default_rng(0)
    views = random.normal(size=(10, 4))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    similarity, group = views @ views.T, np.tile([0, 1, 0, 2, 3], 2)
    valid = np.tile([True, True, True, True, False], 2)
    positive = group[:, None] == group
    total = []
    for i in np.flatnonzero(valid):
        others = [j for j in np.flatnonzero(valid) if j != i]
        log_sum = np.log(sum(np.exp(SCALE * similarity[i, j]) for j in others))
        own = [j for j in others if positive[i, j]]
        total.append(np.mean([log_sum - SCALE * similarity[i, j] for j in own]))
    found = losses.supcon(similarity.astype("float32"), positive, valid, SCALE, BIAS)
    assert float(found) == pytest.approx(np.mean(total), rel=1e-5)


def test_queued_embeddings_are_negatives_besides():
    similarity, positive, valid = batch(0)
    random = np.random.default_rng(1)
    queued = [random.uniform(-1, 1, (7, 4)).astype("float32") for _ in range(2)]
    found = losses.clip(similarity, positive, valid, SCALE, BIAS, queued)
    rows, total = np.flatnonzero(valid), 0.0
    for i in rows:
        for row, together, more in ((similarity[i], positive[i], queued[0][i]),
                                    (similarity[:, i], positive[:, i], queued[1][i])):  # fmt: skip
            log_sum = np.log(sum(np.exp(SCALE * x) for x in [*row[rows], *more]))
            own = [j for j in rows if together[j]]
            total += np.mean([log_sum - SCALE * row[j] for j in own])
    assert float(found) == pytest.approx(total / (2 * len(rows)), rel=1e-4)
    far = [np.full((7, 4), -1e6, "float32")] * 2  # an empty queue
    without = float(losses.clip(similarity, positive, valid, SCALE, BIAS))
    assert float(losses.clip(similarity, positive, valid, SCALE, BIAS, far)) == pytest.approx(without, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_do_not_take_part_change_nothing(name):
    similarity, positive, valid = batch(5)
    outside = ~(valid[:, None] & valid)
    value, (gradient,) = with_gradient(lambda s: contrastive(name, s, positive, valid), similarity)
    changed = np.where(outside, np.random.default_rng(0).normal(0, 1e3, outside.shape), similarity).astype("float32")
    np.testing.assert_allclose(contrastive(name, changed, positive, valid), value, rtol=1e-6)
    assert (gradient[outside] == 0).all()
    assert np.isfinite(gradient).all()
    assert gradient.any()


@pytest.mark.parametrize("name", NAMES)
def test_no_row_takes_part(name):
    similarity, positive, valid = batch(6)
    value, (gradient,) = with_gradient(lambda s: contrastive(name, s, positive, np.zeros_like(valid)), similarity)
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "l2"])
def test_pairs_that_belong_together_are_never_negatives(name):
    """The descent raises the similarity of positives or leaves it alone, and lowers that of all others."""
    similarity, positive, valid = batch(3, rows=9)
    inside = valid[:, None] & valid
    apart = positive & inside & ~np.eye(len(valid), dtype=bool)
    assert apart.any()
    _, (gradient,) = with_gradient(lambda s: contrastive(name, s, positive, valid), similarity)
    assert (gradient[inside & ~positive] >= 0).all()
    assert (gradient[inside & ~positive] > 0).any()
    if name == "siglip":
        assert (gradient[apart] < 0).all()
    elif name == "clip":  # the shared target is a softmax's: above it a positive sinks, but never for being a negative
        equal = np.where(positive, 0.9, -0.9).astype("float32")
        _, (gradient,) = with_gradient(lambda s: contrastive(name, s, positive, valid), equal)
        assert (gradient[apart] < 0).all()
    else:
        assert (gradient[apart] == 0).all()


def test_semi_hard_without_a_candidate_counts_nothing():
    similarity = np.array([[-0.5, 0.5], [0.4, -0.6]], "float32")  # every negative is harder than the positive
    arguments = similarity, np.eye(2, dtype=bool), np.ones(2, bool)
    assert contrastive("triplet-semi_hard", *arguments) == 0
    np.testing.assert_allclose(contrastive("triplet-hardest", *arguments), (1.2 + 1.1 + 1.3 + 1.2) / 2, rtol=1e-6)


@pytest.mark.parametrize("weights", [None, "some"])
def test_correlation_equals_numpys(weights):
    rng = np.random.default_rng(0)
    a = rng.normal(2, 3, (40, 5)).astype("float32")
    b = (0.5 * a + rng.normal(size=a.shape)).astype("float32")
    weights = None if weights is None else (rng.random(40) < 0.6).astype("float32")
    kept = np.ones(40, bool) if weights is None else weights > 0
    expected = sum(np.corrcoef(a[kept, d], b[kept, d])[0, 1] for d in range(5))
    value, gradients = with_gradient(lambda a, b: losses.correlation(a, b, weights), a, b)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert all((g[~kept] == 0).all() and g[kept].any() for g in gradients)
    constant, (gradient,) = with_gradient(lambda a: losses.correlation(a, np.ones_like(b), weights), a)
    assert constant == pytest.approx(0, abs=1e-4)  # a dimension that does not vary correlates with nothing
    assert np.isfinite(gradient).all()


def test_token_cross_entropy_leaves_padding_out():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 6, 9)).astype("float32")
    ids = rng.integers(1, 9, (4, 6))
    for row, length in enumerate((6, 3, 1, 0)):
        ids[row, length:] = 0
    expected = []
    for row, scores in zip(ids, logits.astype("float64"), strict=True):
        nats = [np.log(np.exp(s).sum()) - s[i] for i, s in zip(row, scores, strict=True) if i]
        expected.append(np.mean(nats) if nats else 0.0)
    value, (gradient,) = with_gradient(lambda x: losses.token_cross_entropy(ids, x), logits)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert (gradient[ids == 0] == 0).all()


def test_reconstruction_losses_equal_their_loops():
    rng = np.random.default_rng(0)
    pixels, guess = rng.random((2, 3, 4, 5, 2)).astype("float32")
    for i in range(3):
        gaps = [((pixels[i, y, x] - guess[i, y, x]) ** 2).sum() for y in range(4) for x in range(5)]
        assert float(losses.pixel_mse(pixels, guess)[i]) == pytest.approx(np.mean(gaps), rel=1e-5)
        nats = [-p * np.log(q) - (1 - p) * np.log(1 - q) for p, q in zip(pixels[i].flat, guess[i].flat, strict=True)]
        assert float(losses.pixel_bce(pixels, guess)[i]) == pytest.approx(np.mean(nats), rel=1e-5)
    a, b = rng.normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_allclose(losses.vector_mse(a, b), [np.mean((x - y) ** 2) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(
        losses.pair_distance(a, b), [np.linalg.norm(x - y) ** 2 for x, y in zip(a, b, strict=True)], rtol=1e-6
    )


def test_pixel_bce_of_a_certain_mistake_is_finite():
    black, white = np.zeros((1, 2, 2, 1), "float32"), np.ones((1, 2, 2, 1), "float32")
    value, (gradient,) = with_gradient(lambda x: losses.pixel_bce(black, x), white)
    assert 13 < value[0] < 17  # log of 1e-6, in float32
    assert np.isfinite(gradient).all()


def test_names_that_are_none_are_refused():
    logits, pairs = np.zeros(2, "float32"), np.eye(2, dtype="float32")
    with pytest.raises(ValueError, match="Expected one of non_saturating, hinge"):
        losses.generator_loss("hing", logits)
    with pytest.raises(ValueError, match="Expected negatives to be one of sum, hardest"):
        losses.triplet(pairs, pairs > 0, logits == 0, 1.0, 0.0, negatives="hard")


@pytest.mark.parametrize("name", losses.ADVERSARIAL_LOSSES)
def test_adversarial_losses(name):
    real, fake = np.array([2.0, -0.5, 0.3], "float32"), np.array([-1.5, 0.4, 3.0], "float32")
    of_real, of_fake, of_generator = {
        "non_saturating": (
            lambda r: -np.log(1 / (1 + np.exp(-r))),
            lambda f: -np.log(1 - 1 / (1 + np.exp(-f))),
            lambda f: -np.log(1 / (1 + np.exp(-f))),
        ),
        "hinge": (lambda r: max(0, 1 - r), lambda f: max(0, 1 + f), lambda f: -f),
        "least_squares": (lambda r: (r - 1) ** 2, lambda f: f**2, lambda f: (f - 1) ** 2),
        "wasserstein": (lambda r: -r, lambda f: f, lambda f: -f),
    }[name]
    values = [*losses.ADVERSARIAL_LOSSES[name](real, fake), generator_loss(name, fake)]
    expected = [np.mean([f(x) for x in xs]) for f, xs in ((of_real, real), (of_fake, fake), (of_generator, fake))]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_gaussian_kl_equals_the_integral():
    mean, log_variance = np.array([[0.0, 0.0], [1.0, -0.5]]), np.array([[0.0, 0.0], [0.7, -1.0]])
    x = np.linspace(-20, 20, 200_001)
    expected = []
    for means, logs in zip(mean, log_variance, strict=True):
        total = 0.0
        for m, v in zip(means, np.exp(logs), strict=True):
            log_q = -((x - m) ** 2) / (2 * v) - np.log(2 * np.pi * v) / 2
            log_p = -(x**2) / 2 - np.log(2 * np.pi) / 2
            total += np.trapezoid(np.exp(log_q) * (log_q - log_p), x)
        expected.append(total)
    np.testing.assert_allclose(losses.gaussian_kl(mean, log_variance), expected, atol=1e-6)
    assert expected[0] == pytest.approx(0, abs=1e-9)


def test_gradient_penalty():
    gradients = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype("float32")
    expected = np.mean([(np.sqrt((g.astype("float64") ** 2).sum()) - 1) ** 2 for g in gradients])
    assert float(losses.gradient_penalty(gradients)) == pytest.approx(expected, rel=1e-5)
    _, (gradient,) = with_gradient(losses.gradient_penalty, np.zeros((2, 3), "float32"))
    assert np.isfinite(gradient).all()  # at zero the root has no slope of its own


def test_gradient_penalty_pulls_a_critic_to_slope_one():
    critic = keras.layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(2.0))
    points = tf.random.stateless_normal((8, 3), (0, 0))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(points)
            score = critic(points)
        penalty = losses.gradient_penalty(inner.gradient(score, points))
    length = 2 * np.sqrt(3)
    assert float(penalty) == pytest.approx((length - 1) ** 2, rel=1e-5)
    # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    np.testing.assert_allclose(
        outer.gradient(penalty, critic.kernel)[:, 0], 2 * (length - 1) * np.full(3, 2 / length), rtol=1e-5
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_tags_are_summed_not_averaged(smoothing):
    random = np.random.default_rng(0)
    tags, logits = random.integers(0, 2, (5, 7)).astype("float32"), random.normal(size=(5, 7)).astype("float32")
    shares, wanted = 1 / (1 + np.exp(-logits)), tags * (1 - smoothing) + smoothing / 2
    expected = -(wanted * np.log(shares) + (1 - wanted) * np.log(1 - shares)).sum(axis=1).mean()
    assert float(losses.TagsCrossentropy(smoothing)(tags, logits)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("focusing", [0.5, 2.0])
def test_focal_losses_equal_numpy(focusing):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(6, 4)).astype("float32") * 2, random.integers(0, 4, 6)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = shares[np.arange(6), labels]
    expected = np.mean(-np.log(own) * (1 - own) ** focusing)
    assert float(losses.LabelCrossentropy(focusing=focusing)(labels, logits)) == pytest.approx(expected, rel=1e-5)
    tags = random.integers(0, 2, (6, 4)).astype("float32")
    own = np.where(tags > 0, 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits)))
    expected = (-np.log(own) * (1 - own) ** focusing).sum(axis=1).mean()
    assert float(losses.TagsCrossentropy(focusing=focusing)(tags, logits)) == pytest.approx(expected, rel=1e-5)
    loss = losses.LabelCrossentropy(0.1, focusing)
    assert keras.losses.deserialize(keras.losses.serialize(loss)).get_config() == loss.get_config()


# Two views brought together without negatives


def views(seed=0, rows=40):
    """Two correlated views `(rows, 3)`, and which rows count."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(rows, 3))
    a, b = (common @ rng.normal(size=(3, 3)) + 0.7 * rng.normal(size=(rows, 3)) + 2 for _ in range(2))
    return a.astype("float32"), b.astype("float32"), (rng.random(rows) < 0.8).astype("float32")


def barlow_twins_by_loop(a, b):
    a, b = ((x - x.mean(axis=0)) / x.std(axis=0) for x in (a, b))
    total = 0.0
    for i, j in np.ndindex(3, 3):
        c = np.mean(a[:, i] * b[:, j])
        total += (1 - c) ** 2 if i == j else 5e-3 * c**2
    return total


def vicreg_by_loop(a, b):
    total = 25 * np.mean((a - b) ** 2)
    for x in (a, b):
        matrix = np.cov(x.T)
        total += 25 / 2 * np.mean([max(0, 1 - np.sqrt(matrix[i, i] + 1e-4)) for i in range(3)])
        total += sum(matrix[i, j] ** 2 for i, j in np.ndindex(3, 3) if i != j) / 3
    return total


def cca_by_angles(a, b):
    """The cosines of the angles between the two column spaces."""
    return -np.cos(scipy.linalg.subspace_angles(a - a.mean(axis=0), b - b.mean(axis=0))).sum()


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [("barlow_twins", barlow_twins_by_loop), ("vicreg", vicreg_by_loop), ("cca", cca_by_angles)],
)
def test_losses_without_negatives_equal_numpy(name, by_hand):
    a, b, weights = views()
    loss = losses.ALIGNMENT_LOSSES[name]
    assert float(loss(a, b)) == pytest.approx(by_hand(a, b), rel=2e-4)
    counted = weights > 0
    assert float(loss(a, b, weights)) == pytest.approx(by_hand(a[counted], b[counted]), rel=2e-4)
    nothing = np.where(counted[:, None], a, 1e3).astype("float32")
    assert float(loss(nothing, b, weights)) == pytest.approx(float(loss(a, b, weights)), rel=1e-4)
    # Going down the gradient brings rows that belong together nearer.
    _, (gradient,) = with_gradient(lambda x: loss(x, b, weights), a)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[~counted]).max() < 1e-5 < np.abs(gradient[counted]).max()
    assert float(loss(a - 1e-3 * gradient / np.abs(gradient).max(), b, weights)) < float(loss(a, b, weights))


def test_canonical_correlations_do_not_depend_on_the_axes():
    a, b, _ = views(1)
    turned = b @ np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 1.0], [3.0, 0.0, 1.0]], "float32")
    expected = losses.canonical_correlations(a, b)
    np.testing.assert_allclose(losses.canonical_correlations(a, turned), expected, atol=1e-3)
    random = np.random.default_rng(2).normal(size=a.shape).astype("float32")
    assert losses.canonical_correlations(a, random)[0] < expected[0] - 0.2


# Two groups of rows


def mmd_by_loop(features, is_target):
    distances = [[((a - b) ** 2).sum() for b in features] for a in features]
    width = np.mean(distances)

    def mean_kernel(rows, columns):
        values = [np.exp(-distances[i][j] / (size * width)) for i in rows for j in columns for size in SIZES]
        return len(SIZES) * np.mean(values)

    source, target = np.flatnonzero(is_target == 0), np.flatnonzero(is_target)
    return mean_kernel(source, source) + mean_kernel(target, target) - 2 * mean_kernel(source, target)


SIZES = (0.25, 0.5, 1.0, 2.0, 4.0)


def coral_by_numpy(features, is_target):
    apart = np.cov(features[is_target == 0].T) - np.cov(features[is_target > 0].T)
    return (apart**2).sum() / (4 * features.shape[1] ** 2)


@pytest.mark.parametrize(("name", "by_hand"), [("mmd", mmd_by_loop), ("coral", coral_by_numpy)])
def test_discrepancies_equal_numpy(name, by_hand):
    rng = np.random.default_rng(0)
    is_target = (np.arange(20) % 3 == 0).astype("float32")
    features = (rng.normal(size=(20, 4)) * (1 + is_target[:, None]) + is_target[:, None]).astype("float32")
    loss = losses.DOMAIN_LOSSES[name]
    value, (gradient,) = with_gradient(lambda x: loss(x, is_target), features)
    assert value == pytest.approx(by_hand(features, is_target), rel=1e-4)
    assert np.isfinite(gradient).all()
    assert float(loss(features - 0.1 * gradient / np.abs(gradient).max(), is_target)) < value
    same = np.concatenate([features, features])
    assert float(loss(same, np.repeat([0.0, 1.0], 20).astype("float32"))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", losses.DOMAIN_LOSSES)
def test_a_group_alone_is_like_nothing_and_unlike_nothing(name):
    features = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    for group in (np.zeros(6, "float32"), np.ones(6, "float32")):
        assert float(losses.DOMAIN_LOSSES[name](features, group)) == 0


def test_one_row_has_no_covariance():
    features = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    assert float(losses.coral(features, np.eye(6, dtype="float32")[0])) == 0
