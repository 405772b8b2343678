"""How well the modalities of a run find each other, by the signatures `encode_<name>`: a report and a figure."""

import collections
import itertools


def report(run, split):
    """Retrieval between each two modalities: `{"image -> text": {"recall@1": …, "queries": …, "gallery": …}}`.

    Galleries: the unique texts of the split; all its pictures. With texts, a picture's own text is right, and so is
    every picture of a text. Between two texts, as of two languages, those are right that stand in one row. Without
    texts, the row itself is right.
    """
    import numpy as np

    from mmkeras import metrics

    found, galleries = {}, {name: _embed(run, split, name) for name in run.config.names}
    for a, b in itertools.permutations(run.config.names, 2):
        (queries, query_keys), (items, item_keys) = galleries[a], galleries[b]
        keys = {}
        if run.config.modalities[a] != "text" and run.config.modalities[b] == "text":
            query_keys = _texts_by_row(split, b, query_keys)
        elif run.config.modalities[a] == "text" and run.config.modalities[b] != "text":
            item_keys = _texts_by_row(split, a, item_keys)
        elif run.config.modalities[a] == run.config.modalities[b] == "text":
            query_keys, item_keys = (_rows_by_text(split, *side) for side in ((a, query_keys), (b, item_keys)))
        numbers = [[keys.setdefault(k, len(keys)) for k in row] for row in (*query_keys, *item_keys)]
        of_query, of_item = numbers[: len(query_keys)], numbers[len(query_keys) :]
        membership = _membership(of_item, len(keys))
        usable = np.array([bool(row) and membership[:, row].any() for row in of_query])
        queries, of_query = queries[usable], _membership(of_query, len(keys))[usable]
        result = metrics.retrieval(queries, items, lambda i, q=of_query, m=membership: q[i] @ m.T > 0)
        found[f"{a} -> {b}"] = {**result, "queries": len(queries), "gallery": len(items)}
    return found


def _membership(numbers, size):
    import numpy as np

    matrix = np.zeros((len(numbers), size), dtype="float32")
    for i, row in enumerate(numbers):
        matrix[i, row] = 1
    return matrix


def _embed(run, split, name):
    """Embeddings of a modality's gallery, and the key of each: the text itself, or the row's number."""
    if run.config.modalities[name] == "text":
        texts = sorted({t for cell in split.cells(name) for t in (cell if isinstance(cell, list) else [cell])} - {""})
        return run.embed(name, texts), [[text] for text in texts]
    rows = [i for i, cell in enumerate(split.cells(name)) if len(cell)]
    return run.embed(name, split.take(rows)), [[row] for row in rows]


def _texts_by_row(split, name, keys):
    """Keys that are row numbers, as the texts of these rows."""
    cells = split.cells(name)
    return [[t for t in (cells[i] if isinstance(cells[i], list) else [cells[i]]) if t] for (i,) in keys]


def _rows_by_text(split, name, keys):
    """Keys that are texts, as the numbers of the rows that they stand in."""
    rows = collections.defaultdict(list)
    for row, cell in enumerate(split.cells(name)):
        for text in cell if isinstance(cell, list) else [cell]:
            rows[text].append(row)
    return [rows[text] for (text,) in keys]


def figures(run, split, num_rows=6, top=5):
    """`retrieval`: the nearest pictures of some texts."""
    images, texts = run.config.of_kind("image"), run.config.of_kind("text")
    if not (images and texts):
        return {}
    from mmkeras import plots

    step = max(len(split) // num_rows, 1)
    queries = [
        text for cell in split.cells(texts[0])[::step] for text in (cell if isinstance(cell, list) else [cell])[:1]
    ]
    queries = [text for text in queries if text][:num_rows]
    gallery = split.take([i for i, cell in enumerate(split.cells(images[0])) if len(cell)][:5000])
    scores = run.embed(texts[0], queries) @ run.embed(images[0], gallery).T
    best = (-scores).argsort(axis=1)[:, :top]
    top = best.shape[1]
    pictures = run.pictures(images[0], gallery, best.ravel())
    columns = {"text": [[query] for query in queries]}
    for rank in range(top):
        columns[f"{rank + 1}"] = [[pictures[i * top + rank]] for i in range(len(queries))]
    return {"retrieval": plots.table(columns)}
