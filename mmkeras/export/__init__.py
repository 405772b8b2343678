"""Export: named serving functions on raw bytes and strings, written as a SavedModel."""

from mmkeras.export.decoding import beam_search, nucleus_sample
from mmkeras.export.index import SearchIndex, search_signature
from mmkeras.export.saved_model import export, own_process
from mmkeras.export.signatures import (
    Signature,
    alone_signature,
    encode_png,
    encode_signature,
    label_signatures,
    raw_specs,
    readable,
    submodel,
)

__all__ = [
    "SearchIndex",
    "Signature",
    "alone_signature",
    "beam_search",
    "encode_png",
    "encode_signature",
    "export",
    "label_signatures",
    "nucleus_sample",
    "own_process",
    "raw_specs",
    "readable",
    "search_signature",
    "submodel",
]
