"""The codebook of a store, read as arrays of parts are: without Zarr, and not believed."""

import hashlib

import numpy as np

from pipeline.files import Files
from pipeline.files.damage import damaged
from pipeline.store.arrays.chunk_file import chunk_file
from pipeline.store.arrays.chunk_format import ChunkFormat
from pipeline.store.arrays.mapped import RangedArray
from pipeline.store.arrays.stored_array import StoredArray, compressor_of
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.groups import REMEDY
from pipeline.store.types import Array


def table_digest(table: Array) -> str:
    """sha256 (hex) of a codebook [K, C] as little-endian float32 in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(table, "<f4").tobytes()).hexdigest()


def check_codebook(files: Files, birth: Birth) -> Array | None:
    """The codebook, float32 [K, C], or None where the store has none.

    Raises CorruptStore when it is missing, unreadable or not the one of the store's birth.
    """
    if birth.codebook.sha256 is None:
        return None
    try:
        table = _read(files, birth)
    except Exception as error:
        raise damaged(files, names.CODEBOOK, f"the codebook cannot be read: {error}{REMEDY}") from error
    if table_digest(table) != birth.codebook.sha256:
        raise damaged(files, names.CODEBOOK, f"the codebook is not the one that {names.STORE} names{REMEDY}")
    return table


def _read(files: Files, birth: Birth) -> Array:
    rows, columns = birth.codebook.vocab_size, birth.codebook.embedding_dim
    stored = StoredArray(rows, (columns,), np.dtype("<f4"), compressor_of(birth.codec, names.CODEBOOK))
    chunk_format = ChunkFormat.of(files.read(f"{names.CODEBOOK}/zarr.json"), stored)
    array = RangedArray(chunk_format, files, f"{names.CODEBOOK}/{chunk_file(stored.dimensions)}")
    return array.read(0, rows).copy()  # writable, as torch wants it
