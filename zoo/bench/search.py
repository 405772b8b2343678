"""Search in many vectors: the signature `search` beside faiss, in queries a second and in what is found.

Unit vectors drawn around ten thousand centres; queries are vectors of the gallery with noise. `exact` is an exported
`SearchIndex`, run as a server runs it, beside faiss's flat index; `hnsw` and `ivf` are the indexes of `zoo index`.
The two that are compared take turns, so that a machine whose speed drifts is as fast for one as for the other.
"""

import functools
import pathlib
import tempfile
import time

import numpy as np

from zoo import _gallery, bench

NAMES = ["exact", "hnsw", "ivf"]
ITEMS, DIM, K = 1_000_000, 128, 10
BATCHES, ROUNDS = (1, 16, 64), 15


def run(out="bench/search", names=None, seed=0, items=ITEMS):
    """Measures, and returns the table.

    Args:
        out: folder of `search.json`.
        names: of the indexes; all if None.
        seed: of the vectors.
        items: how many vectors.
    """
    embeddings, queries = vectors(items, seed)
    measures = {"exact": functools.partial(_exact, pathlib.Path(out)), "hnsw": _approximate, "ivf": _approximate}
    path = pathlib.Path(out, "search.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    found = bench.measured(
        path, names or NAMES, lambda name: measures[name](name, embeddings, queries), seed=seed, items=items
    )
    return table(found, items)


def vectors(items, seed, dim=DIM, queries=256):
    """`(items, dim)` and `(queries, dim)`, all of length one."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((10_000, dim), dtype="float32")
    embeddings = centres[random.integers(0, len(centres), items)]
    embeddings += 0.7 * random.standard_normal((items, dim), dtype="float32")
    asked = embeddings[random.integers(0, items, queries)] + 0.7 * random.standard_normal((queries, dim), "float32")
    return [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (embeddings, asked)]


def _exact(out, name, embeddings, queries):
    import faiss
    import tensorflow as tf

    from mmkeras import export
    from mmkeras.serving.servable import Servable

    index = export.SearchIndex(embeddings, [f"item {i}" for i in range(len(embeddings))])
    specs = {"embedding": tf.TensorSpec((None, embeddings.shape[1]), tf.float32, name="embedding")}
    encode = export.Signature(lambda raw: raw, specs)
    signatures = {"serving_default": export.search_signature(index, encode, K)}
    with tempfile.TemporaryDirectory(dir=out) as folder:
        version = export.export(pathlib.Path(folder, "search"), signatures)
        servable, flat = Servable("search", 1, version), faiss.IndexFlatIP(embeddings.shape[1])
        megabytes = sum(file.stat().st_size for file in version.rglob("*") if file.is_file()) / 2**20
    del index
    flat.add(embeddings)

    def ask(rows):
        answer = servable.run("serving_default", {"embedding": rows})
        return [[int(id.split()[1]) for id in row] for row in answer["ids"]], answer["scores"]

    speeds = side_by_side(lambda rows: ask(rows), lambda rows: flat.search(rows, K), queries)
    (places, scores), (best, expected) = ask(queries[:64]), flat.search(queries[:64], K)[::-1]
    return {
        "speeds": speeds,
        "recall": float(np.mean([len(set(a) & set(b)) / K for a, b in zip(places, best.tolist(), strict=True)])),
        "largest_difference": float(np.abs(scores - expected).max()),
        "megabytes": megabytes,
    }


def _approximate(name, embeddings, queries):
    import faiss

    flat = faiss.IndexFlatIP(embeddings.shape[1])
    flat.add(embeddings)
    began = time.perf_counter()
    index = _gallery.build_faiss(embeddings, name)
    seconds = time.perf_counter() - began
    speeds = side_by_side(lambda rows: index.search(rows, K), lambda rows: flat.search(rows, K), queries)
    return {"speeds": speeds, "recall": _gallery.recall(index, embeddings, queries), "build_seconds": seconds}


def side_by_side(one, other, queries):
    """Queries a second of two searches by batch size, medians of turns: `{batch: [one, other]}`."""
    speeds = {}
    for batch in BATCHES:
        times = []
        for turn in range(ROUNDS + 1):  # the first is not counted: it warms up
            rows, pair = np.roll(queries, -turn * batch, axis=0)[:batch], []
            for search in (one, other):
                began = time.perf_counter()
                search(np.ascontiguousarray(rows))
                pair.append(time.perf_counter() - began)
            times.append(pair)
        speeds[str(batch)] = (batch / np.median(times[1:], axis=0)).tolist()
    return speeds


def table(found, items):
    """A Markdown table of what was measured."""
    lines = [
        f"{items:,} vectors; recall of the nearest {K}, and queries a second beside faiss's flat index:",
        "",
        "| index | recall | " + " | ".join(f"batches of {batch}" for batch in BATCHES) + " | of faiss flat's |",
        "|---" * (3 + len(BATCHES)) + "|",
    ]
    for name, one in found.items():
        speeds = [f"{mine:,.0f} / {flat:,.0f}" for mine, flat in one["speeds"].values()]
        ratios = ", ".join(f"{mine / flat:.2f}" for mine, flat in one["speeds"].values())
        lines.append(f"| {name} | {one['recall']:.4f} | {' | '.join(speeds)} | {ratios} |")
    lines.append("")
    if "exact" in found:
        lines.append(f"exact: scores differ from faiss's by {found['exact']['largest_difference']:.1e} at most.")
    built = [f"{name} {found[name]['build_seconds']:,.0f} s" for name in _gallery.APPROXIMATE if name in found]
    if built:
        lines.append(f"Built in: {', '.join(built)}.")
    return "\n".join(lines)
