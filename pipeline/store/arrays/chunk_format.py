"""How the inner chunks of an array lie in its chunk file, from its metadata.

An array's own metadata are for readers that know only Zarr. Here the records of the store say what was written, and
metadata that say anything else are damage: believed, they would have other bytes handed out as rows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.records import JSON, differences
from pipeline.store.arrays.chunked import Damage
from pipeline.store.arrays.stored_array import Compressor, StoredArray

_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]

_COMPRESSORS: Mapping[Compressor, JSON] = {
    "blosc": {"name": "blosc", "configuration": {"cname": "lz4", "shuffle": "bitshuffle"}},
    "zstd": {"name": "zstd"},
}

_LEFT_ALONE = ("attributes", "dimension_names", "storage_transformers")
"""What says nothing of how bytes become numbers, and what versions of Zarr write differently."""


@dataclass(frozen=True)
class ChunkFormat:
    """How an array is stored."""

    stored: StoredArray
    shape: tuple[int, ...]
    chunk_rows: int
    """Rows of an inner chunk; the last one reaches beyond the array."""
    chunks: int
    """0 for an array without rows."""

    @classmethod
    def of(cls, metadata: bytes, stored: StoredArray) -> "ChunkFormat":
        """The format of an array with this `zarr.json`.

        Of it only the number of rows in a chunk is taken over, and of packed text its length:
        the index of the chunk file and the length of every chunk must agree with them.

        Raises Damage unless it says what was written.
        """
        try:
            tree = json.loads(metadata)
            found = _comparable(tree, stored)
            chunk_rows = _count(tree["codecs"][0]["configuration"]["chunk_shape"][0], least=1)
            rows = _count(tree["shape"][0]) if stored.rows is None else stored.rows
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise Damage(f"its zarr.json does not describe it ({type(error).__name__}: {error})") from None
        wrong = differences(found, _written(stored, rows, chunk_rows))
        if wrong:
            raise Damage(f"its zarr.json is not as the records of the store say (there): {wrong[0]}")
        return cls(stored, (rows, *stored.row_shape), chunk_rows, -(-rows // chunk_rows))

    @classmethod
    def supposed(cls, stored: StoredArray) -> "ChunkFormat | None":
        """The format without its `zarr.json`, which is a request: that of an array in as many chunks as the records
        have checksums of, all about equally long, as vqtok writes them.

        None where the records do not tell. Chunks of another length are Damage when they are read.
        """
        if stored.rows is None or stored.crc32c is None:
            return None
        chunks = len(stored.crc32c)
        chunk_rows = -(-stored.rows // max(chunks, 1))
        if chunks != -(-stored.rows // max(chunk_rows, 1)):
            return None
        return cls(stored, (stored.rows, *stored.row_shape), max(chunk_rows, 1), chunks)


def _written(stored: StoredArray, rows: int, chunk_rows: int) -> JSON:
    """The metadata of such an array, but for what `_comparable` leaves out."""
    order: JSON = {"name": "bytes"}
    if stored.dtype.itemsize > 1:
        order["configuration"] = {"endian": "little"}
    # A Zarr shard holds whole inner chunks.
    outer_rows = -(-max(rows, 1) // chunk_rows) * chunk_rows
    compressors = [] if stored.compressor is None else [_COMPRESSORS[stored.compressor]]
    inner = {
        "chunk_shape": [chunk_rows, *stored.row_shape],
        "codecs": [order, *compressors, {"name": "crc32c"}],
        "index_codecs": _INDEX_CODECS,
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *stored.row_shape],
        "data_type": stored.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [outer_rows, *stored.row_shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": inner}],
    }


def _comparable(tree: JSON, stored: StoredArray) -> JSON:
    """Metadata as they are found, without what they may say in several ways."""
    found = {name: value for name, value in tree.items() if name not in _LEFT_ALONE}
    if tree.get("storage_transformers"):
        raise ValueError("storage transformers")
    (sharding,) = tree["codecs"]
    inner = sharding["configuration"]
    codecs = [_comparable_codec(codec, stored) for codec in inner["codecs"]]
    found["codecs"] = [{**sharding, "configuration": {**inner, "codecs": codecs}}]
    return found


def _comparable_codec(codec: JSON, stored: StoredArray) -> JSON:
    """A codec without what does not matter to a decoder: how hard the encoder tried, the order of a single byte."""
    settings = codec.get("configuration", {})
    match codec["name"]:
        case "blosc":
            return {"name": "blosc", "configuration": {name: settings.get(name) for name in ("cname", "shuffle")}}
        case "zstd":
            return {"name": "zstd"}
        case "bytes" if stored.dtype.itemsize == 1:
            return {"name": "bytes"}
    return codec


def _count(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 1 << 62:
        raise ValueError(f"{value!r} rows")
    return value
