"""Texts compared with texts. Each text is split at spaces as it is: tokenise before, if need be."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]], order: int = 4) -> float:
    """Corpus BLEU of 1 to `order` words, 0..100, by sacrebleu, the texts split at spaces as they are.

    Args:
        hypotheses: list of texts.
        references: list of lists of texts, the references of each hypothesis.
        order: words of the longest n-gram.

    Example:

    >>> round(bleu(["a red circle"], [["a red circle"]], order=2), 1)
    100.0
    """
    from sacrebleu.metrics import BLEU  # late: not every evaluation has texts

    empty = next((i for i, others in enumerate(references) if not others), None)
    if empty is not None or not references:
        raise ValueError(f"Expected a reference or more of every text. Received: none of text {empty or 0}.")
    # sacrebleu wants the first references of all, then the second of all.
    most = max(len(r) for r in references)
    by_rank: list[list[Any]] = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    metric = BLEU(tokenize="none", max_ngram_order=order, force=True, effective_order=False)
    return metric.corpus_score(list(hypotheses), by_rank).score


def exact_match(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of hypotheses that equal one of their references, 0..1."""
    return sum(h in r for h, r in zip(hypotheses, references, strict=True)) / max(len(hypotheses), 1)


def rouge_l(hypotheses: Sequence[str], references: Sequence[Sequence[str]], beta: float = 1.2) -> float:
    """Mean ROUGE-L (Lin 2004), 0..1: the longest common subsequence, best precision and recall over the references.

    Args:
        hypotheses, references: see `bleu`.
        beta: weight of recall against precision; 1.2 as in COCO's evaluation.

    Example:

    >>> round(rouge_l(["this is a good test"], [["this is a test", "this is also a test"]]), 4)
    0.9071
    """
    scores = []
    for hypothesis, others in zip(hypotheses, references, strict=True):
        said, true = hypothesis.split(), [other.split() for other in others]
        common = [_longest_common(said, other) for other in true]
        precision = max(c / max(len(said), 1) for c in common)
        recall = max(c / max(len(other), 1) for c, other in zip(common, true, strict=True))
        total = recall + beta**2 * precision
        scores.append((1 + beta**2) * precision * recall / total if total else 0.0)
    return float(np.mean(scores))


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]], order: int = 4, sigma: float = 6.0) -> float:
    """Mean CIDEr-D (Vedantam 2015), 0..10: cosine of n-grams weighted by how rare they are among the references.

    An n-gram's weight is the logarithm of the share of rows whose references have it. A hypothesis gains nothing by
    repeating an n-gram, and loses by another length than the reference's (a Gaussian of width `sigma`).

    Args:
        hypotheses, references: see `bleu`.
        order: n-grams of 1 to so many words, their scores averaged.
        sigma: width of the penalty of the length, in words.
    """
    grams = [[_grams(other, order) for other in others] for others in references]
    rows = collections.Counter(gram for others in grams for gram in set().union(*others))
    weight = {gram: np.log(len(references)) - np.log(count) for gram, count in rows.items()}
    unseen = np.log(len(references))

    def vectors(counts):
        parts = [{} for _ in range(order)]
        for gram, count in counts.items():
            parts[len(gram) - 1][gram] = count * weight.get(gram, unseen)
        return parts, [np.sqrt(sum(value**2 for value in part.values())) for part in parts]

    scores = []
    for hypothesis, others, texts in zip(hypotheses, grams, references, strict=True):
        said, said_norms = vectors(_grams(hypothesis, order))
        likeness = []
        for other, text in zip(others, texts, strict=True):
            parts, norms = vectors(other)
            gap = len(hypothesis.split()) - len(text.split())
            penalty = np.exp(-(gap**2) / (2 * sigma**2))
            for n in range(order):
                shared = sum(
                    min(value, parts[n].get(gram, 0.0)) * parts[n].get(gram, 0.0) for gram, value in said[n].items()
                )
                likeness.append(penalty * shared / (said_norms[n] * norms[n]) if said_norms[n] * norms[n] else 0.0)
        scores.append(10 * np.mean(likeness))
    return float(np.mean(scores))


def _grams(text, order):
    words = text.split()
    return collections.Counter(tuple(words[i : i + n]) for n in range(1, order + 1) for i in range(len(words) - n + 1))


def _longest_common(a, b):
    lengths = [0] * (len(b) + 1)
    for word in a:
        before = lengths
        lengths = [0]
        for j, other in enumerate(b):
            lengths.append(before[j] + 1 if word == other else max(before[j + 1], lengths[j]))
    return lengths[-1]
