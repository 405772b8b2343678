"""A gallery: what a dual_encoder searches, embedded on the spot or kept in a folder by `zoo index`."""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np

from mmkeras import data as sources
from mmkeras.runs import replaced

APPROXIMATE = ("hnsw", "ivf")
_QUERIES, _AT_ONCE = 500, 16  # that recall is measured by; that are compared with all items in one product
_ROUNDING = 1e-6
_LINKS, _BUILD_EFFORT, _SEARCH_EFFORT = 32, 40, 128
_ITEMS_A_LIST, _SHARE_OF_LISTS = 1000, 0.1


@dataclasses.dataclass
class Gallery:
    """Items and their embeddings.

    Attributes:
        asked: the modality of queries.
        shown: that of the items.
        split: the items' rows.
        ids: their names, a list.
        embeddings: `(items, dim)`, each of length one.
        faiss_index: finds most of the nearest, faster; None for the nearest.
        recall: what share of the nearest ten it finds.
    """

    asked: str
    shown: str
    split: object
    ids: list
    embeddings: np.ndarray
    faiss_index: object = None
    recall: float | None = None

    def search(self, queries, k):
        """Places and scores `(queries, k)` of the nearest items to queries `(queries, dim)`, the best first.

        Where an index of faiss finds fewer than `k`, the last places are -1.
        """
        if self.faiss_index is not None:
            scores, places = self.faiss_index.search(np.ascontiguousarray(queries, "float32"), k)
            return places, scores
        return nearest(queries, self.embeddings, k)


def nearest(queries, embeddings, k):
    """Places and scores `(queries, k)` of the largest products, of equal ones the first."""
    k, places, scores = min(k, len(embeddings)), [], []
    for i in range(0, len(queries), _AT_ONCE):
        for row in queries[i : i + _AT_ONCE] @ embeddings.T:
            candidates = np.flatnonzero(row >= np.partition(row, -k)[-k])
            places.append(candidates[np.argsort(-row[candidates], kind="stable")[:k]])
            scores.append(row[places[-1]])
    return np.array(places), np.array(scores)


def build_faiss(embeddings, kind):
    """A faiss index of inner products: `"hnsw"` (Malkov 2016) or `"ivf"` (Jégou 2011).

    Raises:
        ValueError: if there is no faiss here.
    """
    try:
        import faiss
    except ImportError:
        raise ValueError('An approximate index needs faiss: pip install "mmkeras[approximate]".') from None
    embeddings = np.ascontiguousarray(embeddings, "float32")
    items, dim = embeddings.shape
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = _BUILD_EFFORT, _SEARCH_EFFORT
    elif kind == "ivf":
        lists = max(items // _ITEMS_A_LIST, 1)
        index = faiss.index_factory(dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(round(_SHARE_OF_LISTS * lists), 1)
        index.train(embeddings)
    else:
        raise ValueError(f"Expected an approximate index to be {' or '.join(APPROXIMATE)}. Received: {kind!r}.")
    index.add(embeddings)
    return index


def recall(faiss_index, embeddings, queries, k=10):
    """Share of what an index finds that is as near as the `k` nearest are; of equal ones any will do."""
    _, scores = nearest(queries, embeddings, k)
    found, _ = faiss_index.search(np.ascontiguousarray(queries, "float32"), scores.shape[1])
    return float((found >= scores[:, -1:] - _ROUNDING).mean())


def open_gallery(run, index, id_column=None, columns=None):
    """The Gallery that `zoo index` kept in a folder, or that of a manifest or source, which is embedded now.

    Args:
        run: a Run.
        index: see `Run.search`; None for the test split of the run's own data.
        id_column, columns: see `Run.search`.

    Raises:
        ValueError: if the run's model embeds nothing, or the folder was written by another or from other rows.
    """
    if index is not None and (pathlib.Path(index) / "gallery.json").is_file():
        return _read(run, pathlib.Path(index))
    asked, shown, split, ids = _rows(run, index, id_column, columns)
    with sources.naming_rows(split, run.preprocessor):
        return Gallery(asked, shown, split, ids, run.embed(shown, split))


def write_gallery(run, path, index, id_column=None, columns=None, approximate=None):
    """Keeps a gallery in a folder, for `open_gallery`; returns it.

    Args:
        run, index, id_column, columns: see `open_gallery`.
        path: of the folder.
        approximate: the kind of a faiss index that is kept besides, see `build_faiss`.

    Raises:
        ValueError: if something else lies at `path`.
    """
    path = pathlib.Path(path)
    if path.exists() and not (path / "gallery.json").is_file():
        raise ValueError(f"Expected a folder to write a gallery to. {path} is something else.")
    gallery = open_gallery(run, index, id_column, columns)
    if approximate:
        gallery.faiss_index = build_faiss(gallery.embeddings, approximate)
        gallery.recall = recall(gallery.faiss_index, gallery.embeddings, _queries(run, gallery))
    where = str(pathlib.Path(index).absolute()) if pathlib.Path(index).exists() else index
    about = {"model": _fingerprint(run), "rows": [where, id_column, columns], "recall": gallery.recall}
    with replaced(path) as beside:
        beside.mkdir()
        np.save(beside / "embeddings.npy", gallery.embeddings)
        if approximate:
            import faiss

            faiss.write_index(gallery.faiss_index, str(beside / "faiss.index"))
        said = json.dumps({**about, "ids": gallery.ids}, ensure_ascii=False)
        (beside / "gallery.json").write_text(said, encoding="utf-8")
    return gallery


def _read(run, folder):
    about = json.loads((folder / "gallery.json").read_text(encoding="utf-8"))
    if about["model"] != _fingerprint(run):
        raise ValueError(f"{folder} was embedded by another model than that of {run.path}: run zoo index again.")
    asked, shown, split, ids = _rows(run, *about["rows"])
    if ids != about["ids"]:
        raise ValueError(f"{about['rows'][0]} has other rows than when {folder} was written: run zoo index again.")
    gallery = Gallery(asked, shown, split, ids, np.load(folder / "embeddings.npy"), recall=about["recall"])
    if (folder / "faiss.index").is_file():
        try:
            import faiss
        except ImportError:
            raise ValueError(f'{folder} holds an index of faiss: pip install "mmkeras[approximate]".') from None
        gallery.faiss_index = faiss.read_index(str(folder / "faiss.index"))
    return gallery


def searches(run):
    """Whether the run's model was trained to find a modality by another."""
    embeds = all(f"encode_{name}" in run.signatures for name in run.config.names)
    return embeds and hasattr(run.config, "temperature")


def _rows(run, index, id_column, columns):
    """(modality of queries, modality of the gallery, its split, its ids)."""
    config = run.config
    if not searches(run):
        raise ValueError(
            f"Only a dual_encoder, or a transformer for retrieval, searches. {run.path} holds a run of `{run.name}`."
        )
    texts = config.of_kind("text")
    others = [name for name in config.names if name not in texts]
    asked, shown = texts[0] if texts else config.names[-1], others[0] if others else config.names[0]
    split = run.split("test", index, columns)
    split = split.take([i for i, cell in enumerate(split.cells(shown)) if len(cell)])
    column = id_column or ("id" if "id" in split.kinds else shown)
    if column not in split.kinds:
        raise ValueError(f"{index} has no column `{column}` for --id-column. It has: {', '.join(split.kinds)}.")
    folder = split.folders[column]
    return asked, shown, split, [_identity(cell, folder, i) for i, cell in enumerate(split.cells(column))]


def _identity(cell, folder, i):
    if isinstance(cell, bytes):
        return str(i)
    return str(cell).removeprefix(f"{folder}/" if folder else "")


def _queries(run, gallery):
    """Embeddings of what the gallery is asked by, where its rows have it; of the items themselves elsewhere."""
    cells = gallery.split.cells(gallery.asked) if gallery.asked in gallery.split.kinds else []
    rows = [i for i, cell in enumerate(cells) if len(cell)]
    step = max(len(rows) // _QUERIES, 1)
    if rows:
        return run.embed(gallery.asked, gallery.split.take(rows[::step][:_QUERIES]))
    return gallery.embeddings[:: max(len(gallery.embeddings) // _QUERIES, 1)][:_QUERIES]


def _fingerprint(run):
    return hashlib.sha256(pathlib.Path(run.stored, "model.keras").read_bytes()).hexdigest()
