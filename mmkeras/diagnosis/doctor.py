"""What ails a model: each check gives a line of advice where it finds a fault, and nothing where it does not."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmkeras import losses
from mmkeras.training import Contrastive, Supervised
from mmkeras.types import Tensor

COLLAPSED = 0.02  # deviation of an embedding over the rows, as a share of its size, below which it is one point
STUCK = 0.98  # share of the loss at chance above which nothing has been learned
SMALL_SHARE = 0.005  # of the gradient, below which a modality's encoder learns nothing
SAME = 1e-4  # change of the outputs, as a share of their size, below which a modality is not looked at


def chances(model: keras.Model, batch_size: int) -> dict[str, float]:
    """The losses of a model that knows nothing, by the name under which training logs them.

    Contrastive losses: that of embeddings which are all alike, ln of the batch (CLIP), or the margins of all pairs
    (triplets). Labels: ln of their number, but where the encoders work against it: there the loss should stand so.
    """
    found = {}
    if not hasattr(model, "objective"):
        name = next((n for n in ("label", "answer") if n in model.output), None)
        return {"loss": math.log(model.output[name].shape[-1])} if name else {}
    several = len(model.objective.terms) > 1
    for term in model.objective.terms:
        key = term.name if several else "loss"
        if isinstance(term, Contrastive) and term.loss in ("clip", "triplet"):
            alike, own = np.zeros((batch_size, batch_size), "float32"), np.eye(batch_size, dtype=bool)
            loss = losses.CONTRASTIVE_LOSSES[term.loss](alike, own, np.ones(batch_size, bool), 1.0, 0.0, **term.options)
            found[key] = float(loss) * (1 if several else term.weight)
        elif isinstance(term, Supervised) and not term.several and not term.against:
            found[key] = math.log(model.output[term.output].shape[-1]) * (1 if several else term.weight)
    return found


def stuck_losses(logs: Mapping[str, float], expected: Mapping[str, float]) -> Iterator[str]:
    """Losses that stand where a model that knows nothing has them.

    Args:
        logs: `{name: value}` of an epoch.
        expected: see `chances`.
    """
    for name, chance in expected.items():
        if logs.get(name, 0.0) > STUCK * chance:
            yield (
                f"The loss `{name}` is {logs[name]:.3f}, that of a model which knows nothing is {chance:.3f}: nothing "
                "has been learned. Try another --learning-rate, look whether inputs and targets belong together "
                "(zoo data check), or train for longer."
            )


def collapsed_embeddings(outputs: Mapping[str, Tensor]) -> Iterator[str]:
    """Embeddings `(rows, dim)` that are the same for every row."""
    for name, value in outputs.items():
        if name.endswith("embedding") and len(value.shape) == 2 and len(value) > 1:
            value = np.asarray(value, "float64")
            spread = value.std(axis=0).mean() / max(np.sqrt(np.mean(value**2)), 1e-12)
            if spread < COLLAPSED:
                yield (
                    f"`{name}` is nearly the same for every row (deviation {spread:.2%} of its size): it has "
                    "collapsed. Use a loss with negatives or a variance term (clip, vicreg), a larger batch, or a "
                    "smaller --learning-rate."
                )


def gradient_shares(model: keras.Model, x: Mapping[str, Tensor], y: Any, names: Sequence[str]) -> dict[str, float]:
    """Each modality's share of the gradient, `{name: share}`, by its norm over its encoder's weights.

    Nothing of a model that adapts its weights to every task (MAML): its loss is not one of its outputs alone.
    """
    if getattr(model, "adapts", False):
        return {}
    encoders = {n: model.get_layer(f"{n}_encoder") for n in names if f"{n}_encoder" in {e.name for e in model.layers}}
    variables = {n: encoder.trainable_variables for n, encoder in encoders.items() if encoder.trainable_variables}
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=False), training=False)
    slopes = tape.gradient(loss, variables, unconnected_gradients="zero")
    norms = {n: float(tf.linalg.global_norm(slopes[n])) for n in variables}
    return {n: norm / max(sum(norms.values()), 1e-30) for n, norm in norms.items()}


def small_shares(shares: Mapping[str, float]) -> Iterator[str]:
    """Modalities that hardly take part in learning."""
    for name, share in shares.items():
        if len(shares) > 1 and share < SMALL_SHARE:
            yield (
                f"The encoder of `{name}` gets {share:.2%} of the gradient: it hardly learns. Raise "
                "--modality-dropout, so that it is needed, or begin with one that has learned already (--warm-start)."
            )


def dead_modalities(model: keras.Model, x: Mapping[str, Tensor], names: Sequence[str]) -> Iterator[str]:
    """Modalities whose contents change nothing in the outputs."""
    if len(x[names[0]]) < 2:  # there is no other row
        return
    before = keras.tree.flatten(model(x, training=False))
    for name in names:
        turned = {**x, name: tf.roll(x[name], 1, axis=0)}
        if bool(tf.reduce_all(tf.equal(turned[name], x[name]))):
            yield f"`{name}` is the same in every row: leave it out of --modalities, or look at the data."
            continue
        after = keras.tree.flatten(model(turned, training=False))
        sizes = [float(tf.norm(tf.cast(b, tf.float32))) for b in before]
        changes = [float(tf.norm(tf.cast(a - b, tf.float32))) for a, b in zip(after, before, strict=True)]
        if max(change / max(size, 1e-12) for change, size in zip(changes, sizes, strict=True)) < SAME:
            yield (
                f"The model does not look at `{name}`: with another row's in its place the outputs stay the same. "
                "Leave it out, or raise --modality-dropout and train for longer."
            )


def told_rows(model: keras.Model, output: str, targets: Mapping[str, Tensor]) -> np.ndarray:
    """Which rows' classes training was told for an output, booleans `(rows,)`: not those of a target domain."""
    told = np.ones(len(targets[output]), bool)
    for term in model.objective.terms if hasattr(model, "objective") else ():
        if isinstance(term, Supervised) and term.output == output and term.without is not None:
            told &= np.asarray(targets[term.without]) == 0
    return told


def accuracies(
    model: keras.Model,
    x: Mapping[str, Tensor],
    labels: np.ndarray,
    output: str,
    names: Sequence[str],
    among: Sequence[str],
) -> dict[str, float]:
    """Share of labels that are right: of all modalities, of each alone, and with each taken from another row.

    Args:
        model: with the inputs `presence` and the modalities.
        x: a batch of inputs.
        labels: class numbers `(batch,)`.
        output: name of the logits.
        names: the modalities that are looked at.
        among: all of them, in the order of `presence`.
    """

    def accuracy(inputs):
        return float(np.mean(np.argmax(model(inputs, training=False)[output], axis=-1) == labels))

    found = {"all": accuracy(x)}
    for name in names:
        alone = np.array(x["presence"]) * [other == name for other in among]
        found[f"{name} alone"] = accuracy({**x, "presence": tf.constant(alone, tf.float32)})
        found[f"{name} shuffled"] = accuracy({**x, name: tf.roll(x[name], 1, axis=0)})
    return {**found, "most frequent": float(np.bincount(labels).max() / len(labels))}


def useless_modalities(found: Mapping[str, float], names: Sequence[str], slack: float = 0.02) -> Iterator[str]:
    """What `accuracies` tell of modalities that harm, or bring nothing.

    Args:
        found: see `accuracies`.
        names: the modalities.
        slack: difference of accuracies that may be chance.
    """
    best = max(names, key=lambda name: found[f"{name} alone"])
    if len(names) > 1 and found[f"{best} alone"] > found["all"] + slack:
        yield (
            f"`{best}` alone is right in {found[f'{best} alone']:.1%}, all modalities together in {found['all']:.1%}: "
            "the others harm. Raise --modality-dropout, or take another --fusion."
        )
    for name in names if len(names) > 1 else ():
        unmoved = found[f"{name} shuffled"] > found["all"] - slack / 4
        if (
            unmoved
            and found[f"{name} alone"] < found["most frequent"] + slack
            and found["all"] > found["most frequent"]
        ):
            yield (
                f"`{name}` brings nothing: with another row's in its place {found[f'{name} shuffled']:.1%} are right, "
                f"with its own {found['all']:.1%}. Leave it out, or begin its encoder with another run's: --warm-start."
            )


def shared_rows(
    train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Iterator[str]:
    """Rows of a test split whose modalities, all of them, lie in the training split too.

    Args:
        train, test: the contents of a row, `{name: bytes, text or numbers}` each, lists of them.
        names: the modalities that are compared.
    """

    def marks(rows):
        return [hashlib.sha256(repr([row[n] for n in names]).encode()).digest() for row in rows]

    known = set(marks(train))
    count = sum(mark in known for mark in marks(test))
    if count:
        yield (
            f"{count} of {len(test)} rows of the test split are in the training split, too: what is measured on them "
            "says nothing about new data. Take them out of one of the two."
        )


class Doctor(keras.callbacks.Callback):
    """Says after an epoch what ails the model, every fault once.

    Args:
        batch: `(inputs, targets or None)`, a batch to look at.
        names: the modalities.
        batch_size: rows a step of the training.
        patience: epochs before a loss at chance counts as stuck.
        say: function that is given the line.
    """

    def __init__(
        self,
        batch: tuple[Mapping[str, Tensor], Any],
        names: Sequence[str],
        batch_size: int,
        patience: int = 3,
        say: Callable[[str], object] = print,
    ) -> None:
        super().__init__()
        self.x, self.y = batch
        self.names = names
        self.batch_size = batch_size
        self.patience = patience
        self.say = say
        self.said: set[tuple[str, str]] = set()

    def on_epoch_end(self, epoch, logs=None):
        found = {"collapsed": collapsed_embeddings(self.model(self.x, training=False))}
        found["share"] = small_shares(gradient_shares(self.model, self.x, self.y, self.names))
        if epoch + 1 >= self.patience:
            found["stuck"] = stuck_losses(logs or {}, chances(self.model, self.batch_size))
        for kind, lines in found.items():
            for line in lines:
                fault = kind, line.split("`")[1]
                if fault not in self.said:
                    self.said.add(fault)
                    self.say(f"epoch {epoch + 1}: {line}")
