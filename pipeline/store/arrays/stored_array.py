"""What a store's records say of an array: all that a reader must know of it before it opens a file of the array."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.store.arrays.chunked import Damage
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.checksums import Checksums, unpack_checksums
from pipeline.store.schema.manifest import PartRecord

Compressor = Literal["blosc", "zstd"]


@dataclass(frozen=True)
class StoredArray:
    """One array of a committed attempt, as it was written."""

    rows: int | None
    """None for packed text, which is as long as its offsets say."""
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compressor: Compressor | None
    """None for chunks that are stored as they are."""
    crc32c: Checksums | None = None
    """uint32 [chunks]: of each inner chunk. None where no record says it."""

    @property
    def dimensions(self) -> int:
        """Number of its dimensions."""
        return 1 + len(self.row_shape)


def array_paths(birth: Birth) -> list[str]:
    """Paths of the arrays of every part of a store, sorted."""
    views = [] if birth.views is None else ["view/box", "view/flip"]
    fields = [f"fields/{name}/{array}" for name in birth.fields for array in ("data", "offsets", "present")]
    return sorted(["tokens", "label", "key/data", "key/offsets", *views, *fields])


def stored_array(birth: Birth, record: PartRecord, path: str) -> StoredArray:
    """The array at `path` in a part of a store. Raises Damage where the store's records do not describe it."""
    name = path.rpartition("/")[2]
    rows, row_shape, dtype = _shapes(birth, record.written)[name]
    return StoredArray(
        rows,
        row_shape,
        np.dtype(dtype).newbyteorder("<"),
        compressor_of(birth.codec, name),
        _checksums(birth, record, path),
    )


def _checksums(birth: Birth, record: PartRecord, path: str) -> Checksums | None:
    """The crc32c of the inner chunks, uint32 [chunks]; None in a store without digests whose records say nothing."""
    if not (birth.has_digests or record.chunk_crc32c):
        return None
    paths, checksums = array_paths(birth), record.chunk_crc32c.split(" ")
    if len(checksums) != len(paths):
        raise Damage(f"the record of its part has checksums of {len(checksums)} arrays, and it has {len(paths)}")
    try:
        return unpack_checksums(checksums[paths.index(path)])
    except ValueError as error:
        raise Damage(f"what the record of its part says of it cannot be read ({error})") from None


def _shapes(birth: Birth, written: int) -> dict[str, tuple[int | None, tuple[int, ...], str]]:
    """Rows, shape of a row and dtype, by the last step of a path."""
    views = () if birth.views is None else (birth.views,)
    return {
        "tokens": (written, birth.row_shape, birth.token_dtype),
        "label": (written, (), "int64"),
        "data": (None, (), "uint8"),
        "offsets": (written + 1, (), "uint64"),
        "present": (written, (), "uint8"),
        "box": (written, (*views, 4), "int32"),
        "flip": (written, views, "uint8"),
    }


def compressor_of(codec: str, path: str) -> Compressor | None:
    """What compresses the chunks of the array at a path, in a store of this codec."""
    if codec == "raw":
        return None
    return "zstd" if path.endswith("data") else "blosc"
