"""What a run's model looked at: one row, its score, and where in it the score came from."""

import numpy as np
import tensorflow as tf

from mmkeras import diagnosis, plots
from mmkeras.layers import TokenEmbedding

_SCORED = ("label", "answer", "tags", "polarity")


def explain(run, values, target=None):
    """Explains a run's answer to one row.

    Args:
        run: the Run.
        values: `{modality: raw value}`, as for `run.predict`, one row's.
        target: the label, answer or tag whose score is explained; the predicted one if None.

    Returns:
        A dict: `score` (a number) and `of` (its name); `cam`, `{picture: weights (rows, columns)}`; `tokens`,
        `{text: [(word, attribution)]}`, summing to the score less that of a text without words; `shapley`, `{modality:
        number}`, summing to the score of all modalities less that of none; `pictures`, `{name: pixels}` of what `cam`
        is of; `figure`.

    Raises:
        ValueError: if the model gives nothing that could be explained, or there is no such target.
    """
    x = run.read(**{name: [value] for name, value in values.items()})
    name, score = _score(run, x, target)
    present = [n for i, n in enumerate(run.config.names) if x["presence"][0, i] > 0]
    found = {"of": name, "score": float(score(run.model(x, training=False))[0]), "cam": {}, "tokens": {}}
    for modality in present:
        layer = f"{modality}_encoder"
        if layer not in {each.name for each in run.model.layers}:
            continue
        if run.config.modalities[modality] == "image":
            shape = run.config.shape(modality)
            found["cam"][modality] = diagnosis.grad_cam(score, run.model, x, layer, shape)[0]
        elif run.config.modalities[modality] == "text":
            embedding = next(e for e in run.model.get_layer(layer).layers if isinstance(e, TokenEmbedding))
            each, _, _ = diagnosis.integrated_gradients(score, run.model, x, embedding)
            words = np.array(run.preprocessor.reader(modality).vocabulary)[x[modality][0]]
            found["tokens"][modality] = [(str(w), float(v)) for w, v in zip(words, each, strict=True) if w]

    def worth(team):
        mask = np.array([[n in team for n in run.config.names]], "float32")
        return float(score(run.model({**x, "presence": x["presence"] * mask}, training=False))[0])

    shared = len(present) > 1 and name != "similarity"  # which there is of two alone
    found["shapley"] = diagnosis.shapley(worth, present) if shared else {}
    if not (found["cam"] or found["tokens"] or found["shapley"]):
        raise ValueError(
            "Expected a picture or a text, or two modalities, whose parts could be told apart. "
            f"Received: {', '.join(present) or 'nothing'}."
        )
    found["pictures"] = {name: x[name][0].numpy() for name in found["cam"]}
    found["figure"] = plots.explanation(found["pictures"], found)
    return found


def explains(run):
    """Whether a run's model gives a score that can be explained."""
    return _scored(run) is not None or len(_embeddings(run)) > 1


def _scored(run):
    """The output whose score is explained; None where the labels are those of an episode, which have no names."""
    outputs = () if hasattr(run.config, "ways") else outputs_of(run)
    return next((name for name in _SCORED if name in outputs), None)


def outputs_of(run):
    """The names of what a run's model gives; none of a conditional_gan, whose parts have outputs, not itself."""
    return set(getattr(run.model, "output", ()))


def _embeddings(run):
    """The outputs that embed a modality each."""
    return [f"{name}_embedding" for name in run.config.names if f"{name}_embedding" in outputs_of(run)]


def _refuse_target(target):
    if target is not None:
        raise ValueError(f"Expected no target: the model gives one number. Received: {target!r}.")


def _score(run, x, target):
    """(what the score is, function from the model's outputs to it)."""
    output = _scored(run)
    if output is None and len(_embeddings(run)) > 1:
        _refuse_target(target)
        given = [n for i, n in enumerate(run.config.names) if x["presence"][0, i] > 0]
        if len(given) != 2:
            raise ValueError(f"Expected two modalities to compare. Received: {', '.join(given) or 'nothing'}.")
        a, b = (f"{name}_embedding" for name in given)
        return "similarity", lambda outputs: tf.reduce_sum(outputs[a] * outputs[b], axis=-1)
    if output is None:
        raise ValueError(
            f"Expected a model that names, answers, rates or compares. {run.path} holds a run of `{run.name}`."
        )
    if output == "polarity" and len(run.model.output[output].shape) == 1:
        _refuse_target(target)
        return output, lambda outputs: outputs[output]
    column = output if output in run.preprocessor.target_names else run.config.target
    labels = list(run.preprocessor.reader(column).vocabulary)
    if target is not None and target not in labels:
        raise ValueError(f"Unknown target {target!r}. The model knows: {', '.join(labels[:20])}.")
    number = labels.index(target) if target is not None else int(np.argmax(run.model(x, training=False)[output][0]))
    return labels[number], lambda outputs: outputs[output][:, number]
