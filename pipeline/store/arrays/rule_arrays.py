"""The arrays that a rule needs beside the codebook. No record says their shapes: their metadata do, within bounds.

Read as arrays of parts are, without Zarr: a library that opens whatever it finds would load the codecs that it names.
"""

import json
import math
from collections.abc import Iterable

import numpy as np

from pipeline.files import Files
from pipeline.files.damage import damaged
from pipeline.records import JSON
from pipeline.store.arrays.chunk_file import chunk_file
from pipeline.store.arrays.chunk_format import ChunkFormat
from pipeline.store.arrays.chunked import Damage
from pipeline.store.arrays.decoding import most_decoded
from pipeline.store.arrays.mapped import RangedArray
from pipeline.store.arrays.stored_array import StoredArray, compressor_of
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.groups import read_node
from pipeline.store.types import Array

_DTYPES = frozenset(
    [
        "bool",
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        "float16",
        "float32",
        "float64",
    ]
)


def read_rule_arrays(files: Files, birth: Birth, folder: str, known: Iterable[str] = ()) -> dict[str, Array]:
    """All arrays of the group at `folder`, by name. Raises CorruptStore for anything else in it, and OSError.

    Args:
        known: names of which a list may not tell yet.
    """
    return {name: _read(files, birth, folder, name) for name in sorted({*files.folders(folder), *known})}


def _read(files: Files, birth: Birth, folder: str, name: str) -> Array:
    path = f"{folder}/{name}"
    try:
        tree = read_node(files, path)
        stored = _stored(tree, birth, name)
        chunk_format = ChunkFormat.of(json.dumps(tree).encode(), stored)
        if not chunk_format.chunks:
            return np.empty(chunk_format.shape, stored.dtype)
        chunks = f"{path}/{chunk_file(stored.dimensions)}"
        _refuse_impossible(chunk_format, files.stat(chunks).bytes)
        return RangedArray(chunk_format, files, chunks).read(0, chunk_format.shape[0]).copy()
    except FileNotFoundError:
        raise damaged(files, path, "its chunk file is missing") from None
    except Damage as error:
        raise damaged(files, path, str(error)) from None


def _stored(tree: JSON, birth: Birth, name: str) -> StoredArray:
    """The array as its own metadata have it; `ChunkFormat` compares the rest of them."""
    dtype, shape = tree.get("data_type"), tree.get("shape")
    if dtype not in _DTYPES:
        raise Damage(f"elements of {dtype!r}")
    if not isinstance(shape, list) or not shape or not all(type(side) is int and 0 <= side < 1 << 48 for side in shape):
        raise Damage(f"a shape of {shape!r}")
    return StoredArray(None, tuple(shape[1:]), np.dtype(dtype).newbyteorder("<"), compressor_of(birth.codec, name))


def _refuse_impossible(chunk_format: ChunkFormat, file_bytes: int) -> None:
    stored = chunk_format.stored
    claimed = math.prod(chunk_format.shape) * stored.dtype.itemsize
    if claimed > most_decoded(stored.compressor, file_bytes):
        raise Damage(f"its metadata tell of {claimed:,} bytes, which no chunk file of {file_bytes:,} holds")
