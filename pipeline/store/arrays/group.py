"""Zarr groups as files: made in memory, and put wherever the store is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from pipeline.store.arrays.chunk_file import chunk_file, read_index, stored_checksums
from pipeline.store.arrays.storage import create_array
from pipeline.store.schema.checksums import pack_checksums
from pipeline.store.schema.commits import ArrayRecord
from pipeline.store.types import Array

Memory = dict[str, Buffer]
"""What a MemoryStore keeps its files in."""


@dataclass(frozen=True)
class GroupFiles:
    """A Zarr group that is not stored yet."""

    contents: dict[str, bytes]
    """Files by their path in the group, as `contents_of` orders them."""
    arrays: dict[str, ArrayRecord]
    """Shape and storage of its arrays, by path."""


def make_group(arrays: Mapping[str, Array], codec: str, digests: bool) -> GroupFiles:
    """A group that holds `arrays` at their paths.

    Args:
        digests: whether the records of the arrays say the crc32c of their inner chunks.
    """
    memory: Memory = {}
    group = zarr.create_group(MemoryStore(memory), zarr_format=3)
    for path in _groups_above(arrays):
        group.create_group(path)
    created = {path: create_array(group, path, array, codec) for path, array in arrays.items()}
    records = {
        path: _record(array, _checksums(memory, path, array) if digests else None) for path, array in created.items()
    }
    return GroupFiles(contents_of(memory), records)


def contents_of(memory: Memory) -> dict[str, bytes]:
    """What a MemoryStore holds, metadata before data and outer before inner.

    Written in this order a hierarchy is sound at every moment: all that lies in it is described already.
    """
    return {path: memory[path].to_bytes() for path in sorted(memory, key=_place)}


def _record(array: "zarr.Array[Any]", checksums: str | None) -> ArrayRecord:
    codecs = [type(codec).__name__.removesuffix("Codec").lower() for codec in array.compressors]
    return ArrayRecord(
        shape=array.shape,
        dtype=str(array.dtype),
        chunks=array.chunks,
        codecs=("bytes", *codecs),
        chunk_crc32c=checksums,
    )


def _checksums(memory: Memory, path: str, array: "zarr.Array[Any]") -> str:
    """The crc32c of the inner chunks of an array that lies in memory, as its chunk file has them."""
    if not array.shape[0]:
        return ""
    data = np.frombuffer(memory[f"{path}/{chunk_file(array.ndim)}"].to_bytes(), np.uint8)
    return pack_checksums(stored_checksums(data, read_index(data, -(-array.shape[0] // array.chunks[0]))))


def _groups_above(paths: Iterable[str]) -> list[str]:
    """Every group above the arrays at `paths`, parents first."""
    groups = {path[:end] for path in paths for end in range(len(path)) if path[end] == "/"}
    return sorted(groups)


def _place(path: str) -> tuple[bool, int, str]:
    return not path.endswith("zarr.json"), path.count("/"), path
