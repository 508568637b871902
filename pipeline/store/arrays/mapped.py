"""The fast way to read arrays of format 1: the chunk file mapped, its index parsed once, chunks checked and decoded.

A chunk file is one Zarr shard: inner chunks, each followed by its crc32c, then the index of their offsets and lengths,
then the index's crc32c. https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from pipeline.store.arrays.chunked import Damage
from pipeline.store.memory.buffers import decoded_chunks
from pipeline.store.types import Array

_CRC_BYTES = 4
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]

Decompress = Callable[[Array, Array], None]
"""Decodes the first argument, uint8 [encoded], into the second, uint8 [decoded]."""


@dataclass(frozen=True)
class ChunkFormat:
    """What the metadata of an array say of its chunk file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    chunks: int
    decode: Decompress | None
    """None for chunks that are stored as they are."""

    @classmethod
    def of(cls, metadata: bytes) -> "ChunkFormat | None":
        """The format that `zarr.json` describes, None for any that this module does not read."""
        try:
            return cls._parse(json.loads(metadata))
        except (KeyError, TypeError, ValueError, IndexError):
            return None

    @classmethod
    def _parse(cls, tree: dict[str, Any]) -> "ChunkFormat | None":
        (sharding,) = tree["codecs"]
        inner = sharding["configuration"]
        shape, chunk = tuple(tree["shape"]), tuple(inner["chunk_shape"])
        (outer_rows, *outer_rest) = tree["chunk_grid"]["configuration"]["chunk_shape"]
        order, *compressors, checksum = inner["codecs"]
        known = (
            sharding["name"] == "sharding_indexed"
            and inner["index_codecs"] == _INDEX_CODECS
            and inner["index_location"] == "end"
            and tree["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
            and shape[1:] == chunk[1:] == tuple(outer_rest)
            and outer_rows >= shape[0]
            and outer_rows % chunk[0] == 0
            and order["name"] == "bytes"
            and order.get("configuration", {}).get("endian", "little") == "little"
            and checksum == {"name": "crc32c"}
            and len(compressors) <= 1
            and (not compressors or compressors[0]["name"] in _DECOMPRESS)
        )
        if not known:
            return None
        decode = _DECOMPRESS[compressors[0]["name"]] if compressors else None
        dtype = np.dtype(tree["data_type"]).newbyteorder("<")
        return cls(shape, dtype, chunk[0], outer_rows // chunk[0], decode)


class MappedArray:
    """An array whose chunk file is mapped.

    Args:
        chunk_format: what its metadata say of it.
        data: uint8 [bytes], the chunk file; an array without rows needs none.
        check_always: compare checksums whenever a chunk is read, not only the first time.

    Raises Damage for a chunk file without a sound index.
    """

    def __init__(self, chunk_format: ChunkFormat, data: Array, check_always: bool = False) -> None:
        self.shape, self.dtype = chunk_format.shape, chunk_format.dtype
        self._format = chunk_format
        self._data = data
        self._check_always = check_always
        self._places = _read_index(data, chunk_format.chunks if self.shape[0] else 0)
        self._checked = np.zeros(len(self._places), np.bool_)

    @property
    def mapped(self) -> bool:
        """Whether what is read from one chunk is a view of the file."""
        return self._format.decode is None

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop: a view of the mapped file where chunks are stored as they are and one has them all."""
        rows = self._format.chunk_rows
        chunks = range(start // rows, -(-stop // rows) if stop > start else start // rows)
        read = [self._chunk(n)[max(start - n * rows, 0) : stop - n * rows] for n in chunks]
        if len(read) == 1:
            return read[0]
        return np.concatenate(read) if read else np.empty((0, *self.shape[1:]), self.dtype)

    def _chunk(self, number: int) -> Array:
        """A whole inner chunk; that of the last one reaches beyond the array."""
        offset, length = self._places[number]
        stored = self._data[offset : offset + length]
        payload = stored[:-_CRC_BYTES]
        if self._check_always or not self._checked[number]:
            if google_crc32c.value(payload) != int.from_bytes(stored[-_CRC_BYTES:].tobytes(), "little"):
                raise Damage(f"the checksum of chunk {number} is not that of its contents")
            self._checked[number] = True
        shape = (self._format.chunk_rows, *self.shape[1:])
        bytes_decoded = int(np.prod(shape)) * self.dtype.itemsize
        if self._format.decode is None:
            decoded = payload
        else:
            decoded = decoded_chunks.take(bytes_decoded)
            try:
                self._format.decode(payload, decoded)
            except (RuntimeError, ValueError) as error:
                raise Damage(f"chunk {number} cannot be decoded ({error})") from error
        if decoded.size != bytes_decoded:
            raise Damage(f"chunk {number} has {decoded.size} bytes instead of {bytes_decoded}")
        return decoded.view(self.dtype).reshape(shape)


def _read_index(data: Array, chunks: int) -> Array:
    """Offset and length of every inner chunk, int64 [chunks, 2], all of them within the file."""
    if not chunks:
        return np.empty((0, 2), np.int64)
    index_bytes = 16 * chunks
    first = data.size - index_bytes - _CRC_BYTES
    if first < 0:
        raise Damage(f"its chunk file of {data.size} bytes is cut or empty")
    index = data[first:]
    if google_crc32c.value(index[:index_bytes]) != int.from_bytes(index[index_bytes:].tobytes(), "little"):
        raise Damage("the checksum of its chunk file's index is not that of its contents")
    places = index[:index_bytes].tobytes()
    found = np.frombuffer(places, "<u8").reshape(chunks, 2)
    # A chunk that is not there has 2^64 - 1 in both places.
    bad = np.flatnonzero((found[:, 0] > first) | (found[:, 1] > first - found[:, 0]) | (found[:, 1] <= _CRC_BYTES))
    if bad.size:
        raise Damage(f"chunk {bad[0]} is missing from its chunk file")
    return found.astype(np.int64)


def _blosc(encoded: Array, decoded: Array) -> None:
    numcodecs.Blosc().decode(encoded, decoded)


def _zstd(encoded: Array, decoded: Array) -> None:
    numcodecs.Zstd().decode(encoded, decoded)


_DECOMPRESS: dict[str, Decompress] = {"blosc": _blosc, "zstd": _zstd}
