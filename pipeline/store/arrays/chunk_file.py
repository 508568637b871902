"""The chunk file of an array: one Zarr shard.

Inner chunks, each followed by its crc32c, then the index of their offsets and lengths, then the index's crc32c.
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import google_crc32c
import numpy as np

from pipeline.store.arrays.chunked import Damage
from pipeline.store.schema.checksums import Checksums
from pipeline.store.types import Array

CRC_BYTES = 4


def chunk_file(dimensions: int) -> str:
    """The one chunk file of an array, relative to it."""
    return "/".join(["c", *("0" for _ in range(dimensions))])


def index_bytes(chunks: int) -> int:
    """Size of the index of so many chunks, at the end of the file, with its crc32c."""
    return 16 * chunks + CRC_BYTES


def read_index(data: Array, chunks: int) -> Array:
    """Offset and length of every inner chunk of a whole file, int64 [chunks, 2]. Raises Damage as `places_in` does."""
    return places_in(data[max(data.size - index_bytes(chunks), 0) :], data.size, chunks)


def places_in(index: Array, file_bytes: int, chunks: int) -> Array:
    """Offset and length of every inner chunk, int64 [chunks, 2], all of them within the file.

    Args:
        index: uint8, the last `index_bytes(chunks)` of a file of `file_bytes`, or all of a shorter one.

    Raises Damage for an index that is cut, whose crc32c is another, or that says what cannot be.
    """
    if not chunks:
        return np.empty((0, 2), np.int64)
    if index.size != index_bytes(chunks):
        raise Damage(f"its chunk file of {file_bytes:,} bytes is cut or empty")
    first = file_bytes - index.size
    if google_crc32c.value(index[:-CRC_BYTES]) != int.from_bytes(index[-CRC_BYTES:].tobytes(), "little"):
        raise Damage("the checksum of its chunk file's index is not that of its contents")
    found = np.frombuffer(index[:-CRC_BYTES].tobytes(), "<u8").reshape(chunks, 2)
    # A chunk that is not there has 2^64 - 1 in both places.
    bad = np.flatnonzero((found[:, 0] > first) | (found[:, 1] > first - found[:, 0]) | (found[:, 1] <= CRC_BYTES))
    if bad.size:
        raise Damage(f"chunk {bad[0]} is missing from its chunk file")
    if (listed := sum(found[:, 1].tolist())) != first:  # a file to which itself was appended has a sound index too
        raise Damage(f"its chunk file has {first:,} bytes of chunks, and its index lists {listed:,}")
    return found.astype(np.int64)


def stored_checksums(data: Array, places: Array) -> Checksums:
    """The crc32c that stands behind each chunk, uint32 [chunks].

    Args:
        data: uint8, the whole file.
        places: int64 [chunks, 2], its index.
    """
    ends = places.sum(axis=1)
    stored = data[ends[:, None] - np.arange(CRC_BYTES, 0, -1)] if len(places) else np.empty((0, CRC_BYTES), np.uint8)
    return np.ascontiguousarray(stored).view("<u4").reshape(-1).astype(np.uint32)
