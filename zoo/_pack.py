"""A source packed into few large files: TFRecord shards, and a manifest whose cells are slices of them."""

import hashlib
import json
import pathlib

import tensorflow as tf

from mmkeras import data
from mmkeras.data.manifest import KINDS_FILE, plain_cell
from mmkeras.runs import remove_beside, replaced, write_json

SUMS_FILE = "SHA256SUMS"


def pack(source, folder, rows_per_shard=1000, tell=print):
    """Writes a source as a folder that `mmkeras.data.open` reads, and returns the number of its rows.

    A split is `<split>.jsonl`, a row an example, and shards `<split>-00000-of-00004.tfrecord` of `tf.train.Example`s
    with every column; the pictures, sounds and clips of the manifest are slices of the shards, so that any row is read
    without those before it. `SHA256SUMS` is what `sha256sum --check` reads. Packing that was interrupted goes on with
    the first shard that is not whole, or holds other rows.

    Args:
        source: a Source.
        folder: to write to.
        rows_per_shard: number of examples in a shard.
        tell: function of a line, for every shard.

    Raises:
        DataError: naming a row whose file cannot be read.
    """
    folder, sums, kinds = pathlib.Path(folder), {}, {}
    folder.mkdir(parents=True, exist_ok=True)
    remove_beside(folder)
    for name, split in source.splits.items():
        count = -(-len(split) // rows_per_shard)
        with replaced(folder / f"{name}.jsonl") as manifest, manifest.open("w", encoding="utf-8") as lines:
            for i in range(count):
                shard = folder / f"{name}-{i:05d}-of-{count:05d}.tfrecord"
                rows = range(i * rows_per_shard, min((i + 1) * rows_per_shard, len(split)))
                kept, sums[shard.name] = _shard(split, rows, shard, tell)
                lines.write(kept)
        kinds.update(split.kinds)
    write_json(folder / KINDS_FILE, {column: kind for column, kind in kinds.items() if kind != "other"})
    with replaced(folder / SUMS_FILE) as beside:
        beside.write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    for left in folder.glob(".*.rows"):
        left.unlink()
    return sum(map(len, source.splits.values()))


def _shard(split, rows, shard, tell):
    """Writes a shard unless it is there; its lines of the manifest, and its SHA-256."""
    kept = shard.with_name(f".{shard.name}.rows")  # digests of the rows and of the shard, then the lines
    cells = [_cells(split, i) for i in rows]
    digest = hashlib.sha256(repr(cells).encode()).hexdigest()
    if kept.exists() and shard.exists():
        of_rows, of_shard, lines = kept.read_text(encoding="utf-8").split("\n", 2)
        if of_rows == digest and of_shard == checksum(shard):
            return lines, of_shard
    places = []
    with replaced(shard) as beside, tf.io.TFRecordWriter(str(beside)) as writer:
        begin = 0
        for row in cells:
            record = _example(split, row).SerializeToString()
            writer.write(record)
            places.append((begin + 12, record))  # a record follows its length and that one's checksum
            begin += len(record) + 16
    with replaced(kept) as beside:
        lines = [_line(split, row, shard.name, *place, begin) for row, place in zip(cells, places, strict=True)]
        of_shard, lines = checksum(shard), "\n".join([*lines, ""])
        beside.write_text(f"{digest}\n{of_shard}\n{lines}", encoding="utf-8")
    tell(f"{shard}: {len(rows)} rows, {begin:,} bytes")
    return lines, of_shard


def _cells(split, i):
    """`{column: cell}` of a row, files read."""
    row = {}
    for column, kind in split.kinds.items():
        cell = split.cells(column)[i]
        try:
            row[column] = cell if kind == "other" else plain_cell(kind, cell, split.folders[column])
            if kind in data.ENCODED:
                row[column] = data.encoded(row[column])
        except ValueError as error:
            raise data.DataError(f"{split.where(i)}: {error}") from None
    return row


def _example(split, row):
    example = tf.train.Example()
    for column, cell in row.items():
        feature = example.features.feature[column]
        if split.kinds[column] == "vector":
            feature.float_list.value.extend(cell)
        elif isinstance(cell, list) and split.kinds[column] in ("text", "tags"):
            feature.bytes_list.value.extend(text.encode() for text in cell)
        else:
            plain = cell if isinstance(cell, (str, bytes)) else json.dumps(cell, ensure_ascii=False)
            feature.bytes_list.value.append(plain if isinstance(plain, bytes) else plain.encode())
    return example


def _line(split, row, name, begin, record, size):
    """A row of the manifest: what is encoded as a slice of the shard, everything else as it is."""
    line = {}
    for column, cell in row.items():
        line[column] = cell
        if split.kinds[column] in data.ENCODED:
            start = begin + record.find(cell)
            line[column] = f"{name}#{start}+{len(cell)}+{size - start - len(cell)}" if cell else ""
    return json.dumps(line, ensure_ascii=False)


def checksum(path):
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(folder):
    """The shards of a packed folder that are not what was packed, each with what is wrong; none of another folder."""
    folder = pathlib.Path(folder)
    if not (folder / SUMS_FILE).is_file():
        return []
    found = []
    for line in (folder / SUMS_FILE).read_text().splitlines():
        digest, _, name = line.partition("  ")
        if not (folder / name).exists():
            found.append(f"{folder / name}: it is gone. Pack the source again.")
        elif checksum(folder / name) != digest:
            found.append(f"{folder / name}: its bytes are not those that were packed. Pack the source again.")
    return found
