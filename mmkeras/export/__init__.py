"""Export: named serving functions on raw bytes and strings, written as a SavedModel."""

from mmkeras.export.decoding import beam_search, nucleus_sample
from mmkeras.export.index import SearchIndex, search_signature
from mmkeras.export.samples import BATCH_SIZES, read_golden, samples
from mmkeras.export.saved_model import export, own_process
from mmkeras.export.server_files import write_server_files
from mmkeras.export.signatures import (
    Signature,
    alone_signature,
    classify_signature,
    encode_png,
    encode_signature,
    examples_of,
    label_signatures,
    raw_specs,
    readable,
    submodel,
)

__all__ = [
    "BATCH_SIZES",
    "SearchIndex",
    "Signature",
    "alone_signature",
    "beam_search",
    "classify_signature",
    "encode_png",
    "encode_signature",
    "examples_of",
    "export",
    "label_signatures",
    "nucleus_sample",
    "own_process",
    "raw_specs",
    "read_golden",
    "readable",
    "samples",
    "search_signature",
    "submodel",
    "write_server_files",
]
