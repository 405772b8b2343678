"""Texts compared with texts."""


def bleu(hypotheses, references, order=4):
    """Corpus BLEU of 1 to `order` words, 0..100, by sacrebleu, the texts split at spaces as they are.

    Args:
        hypotheses: list of texts.
        references: list of lists of texts, the references of each hypothesis.

    Example:

    >>> round(bleu(["a red circle"], [["a red circle"]], order=2), 1)
    100.0
    """
    from sacrebleu.metrics import BLEU  # late: not every evaluation has texts

    # sacrebleu wants the first references of all, then the second of all.
    most = max(len(r) for r in references)
    by_rank = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    metric = BLEU(tokenize="none", max_ngram_order=order, force=True, effective_order=False)
    return metric.corpus_score(list(hypotheses), by_rank).score


def exact_match(hypotheses, references):
    """Share of hypotheses that equal one of their references, 0..1."""
    return sum(h in r for h, r in zip(hypotheses, references, strict=True)) / max(len(hypotheses), 1)
