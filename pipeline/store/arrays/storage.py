"""The arrays of a part: their names, dtypes, chunks and codecs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from pipeline.store.arrays.stored_array import compressor_of
from pipeline.store.types import Array

CHUNK_BYTES = 512 * 1024


@dataclass(frozen=True)
class Texts:
    """n byte strings, one behind the other."""

    data: Array
    """uint8 [total]."""
    offsets: Array
    """uint64 [n + 1]; string i is data[offsets[i]:offsets[i + 1]]."""

    def __getitem__(self, index: int) -> bytes:
        return self.data[int(self.offsets[index]) : int(self.offsets[index + 1])].tobytes()

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Views:
    """Which parts of their images n rows of V views each are."""

    box: Array
    """int32 [n, V, 4]: top, left, height and width in pixels of the resized image."""
    flip: Array
    """uint8 [n, V], 1 for one that is mirrored left to right."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[tuple[Sequence[int], bool]]], views: int) -> Self:
        """Box and flip of each of the `views` of some rows, as arrays; of no rows, too."""
        box = np.asarray([[box for box, _ in row] for row in rows], np.int32).reshape(len(rows), views, 4)
        flip = np.asarray([[flip for _, flip in row] for row in rows], np.uint8).reshape(len(rows), views)
        return cls(box, flip)


def pack_texts(texts: Sequence[bytes]) -> Texts:
    """Byte strings as two arrays."""
    offsets = np.zeros(len(texts) + 1, np.uint64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return Texts(np.frombuffer(b"".join(texts), np.uint8), offsets)


def arrays_of_part(
    tokens: Array,
    keys: Sequence[str],
    labels: Sequence[int],
    fields: Mapping[str, Sequence[bytes | None]],
    views: Views | None = None,
) -> dict[str, Array]:
    """Arrays of a part by their path in its group.

    Args:
        tokens: unsigned [n, L_total], blocks concatenated in order; with views [n, V, L_total].
        keys: n WebDataset keys.
        labels: n class indices, -1 for none.
        fields: n kept members under each name, None for a missing one.
    """
    arrays: dict[str, Array] = {"tokens": tokens, "label": np.asarray(labels, np.int64)}
    if views is not None:
        arrays["view/box"], arrays["view/flip"] = views.box.astype(np.int32), views.flip.astype(np.uint8)
    packed = pack_texts([key.encode() for key in keys])
    arrays["key/data"], arrays["key/offsets"] = packed.data, packed.offsets
    for name, values in fields.items():
        packed = pack_texts([value or b"" for value in values])
        arrays[f"fields/{name}/data"], arrays[f"fields/{name}/offsets"] = packed.data, packed.offsets
        arrays[f"fields/{name}/present"] = np.asarray([value is not None for value in values], np.uint8)
    return arrays


def chunk_rows(rows: int, row_bytes: int) -> int:
    """Rows of an inner chunk: at most CHUNK_BYTES, and all chunks of an array about equally long."""
    return int(chunk_rows_of(np.asarray(rows), row_bytes))


def chunk_rows_of(rows: Array, row_bytes: int) -> Array:
    """The same of many arrays, int64 [arrays]."""
    most = np.clip(CHUNK_BYTES // max(row_bytes, 1), 1, np.maximum(rows, 1))
    chunks = -(-rows // most)
    return np.asarray(np.where(chunks > 0, -(-rows // np.maximum(chunks, 1)), 1))


def create_array(group: zarr.Group, path: str, array: Array, codec: str, *, named: bool = True) -> "zarr.Array[Any]":
    """Write one array as one Zarr shard of balanced inner chunks, each with its crc32c.

    Args:
        named: give the dimensions the names that arrays of this path have in every store.
    """
    rows, *rest = array.shape
    inner = (chunk_rows(rows, array.dtype.itemsize * int(np.prod(rest))), *rest)
    # A Zarr shard holds whole inner chunks: it may reach a little beyond the array.
    outer = (-(-max(rows, 1) // inner[0]) * inner[0], *rest)
    created = group.create_array(
        path,
        shape=array.shape,
        dtype=array.dtype,
        chunks=inner,
        shards=outer,
        compressors=[*_compressors(path, codec), Crc32cCodec()],
        filters=None,
        dimension_names=_dimensions(path, array.ndim) if named else None,
        config={"write_empty_chunks": True},
    )
    if rows:
        created[...] = array
    return created


def _compressors(path: str, codec: str) -> list[BloscCodec | ZstdCodec]:
    match compressor_of(codec, path):
        case None:
            return []
        case "zstd":
            return [ZstdCodec(level=3)]
        case "blosc":
            return [BloscCodec(cname="lz4", shuffle="bitshuffle")]


_DIMENSIONS = {
    "codebook": ["code", "channel"],
    "data": ["byte"],
    "offsets": ["boundary"],
    "box": ["sample", "view", "edge"],
    "flip": ["sample", "view"],
}


def _dimensions(path: str, count: int) -> list[str]:
    if path == "tokens":
        return ["sample", "token"] if count == 2 else ["sample", "view", "token"]
    return _DIMENSIONS.get(path.rpartition("/")[2], ["sample"])
