"""Reads a safetensors file without torch: what it holds, and digests that depend on nothing else.

The format (https://huggingface.co/docs/safetensors): the header's length as uint64, little-endian; the header,
JSON that gives each tensor's dtype, shape and byte range; the bytes.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.printing import printable
from pipeline.records import canonical_json

_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
_MOST_HEADER_BYTES = 100_000_000
"""As much as the library reads."""
_MOST_DIMENSIONS = 32


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a safetensors file."""

    name: str
    dtype: str
    """As the format spells it: F32, BF16, I64, ..."""
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin, counted from the start of the file."""
    stop: int


def tensor_entries(data: bytes) -> list[TensorEntry]:
    """The tensors of a whole safetensors file, sorted by name.

    Raises ValueError saying what is wrong with a file that is cut short or not in this format.
    """
    length = int.from_bytes(data[:8], "little")
    first = 8 + length
    if len(data) < 8 or len(data) < first:
        raise ValueError("it ends inside its header")
    if length > _MOST_HEADER_BYTES:
        raise ValueError(f"its header has {length:,} bytes, more than its format allows")
    try:
        header = json.loads(data[8:first])
        entries = [_entry(name, fields, first) for name, fields in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its header is not that of a safetensors file ({error})") from None
    expected = first
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start != expected:
            raise ValueError(f"its tensors overlap or leave a gap at {printable(entry.name)}")
        expected = entry.stop
    if len(data) != expected:
        raise ValueError(f"it has {len(data)} bytes where its header tells of {expected}")
    return sorted(entries, key=lambda entry: entry.name)


def weights_digest(data: bytes) -> str:
    """`sha256:` and the hex digest over name, dtype, shape and bytes of each tensor, sorted by name.

    The order of the tensors in the file and its other metadata change nothing.

    Raises ValueError as `tensor_entries` does.
    """
    digest = hashlib.sha256()
    view = memoryview(data)
    for entry in tensor_entries(data):
        digest.update(canonical_json([entry.name, entry.dtype, entry.shape]))
        digest.update(view[entry.start : entry.stop])
    return f"sha256:{digest.hexdigest()}"


def files_digest(files: Mapping[str, bytes]) -> str:
    """Digest of the files that decide tokens, by name: that of the one, or of the names and digests of several.

    A safetensors file has its `weights_digest`, any other file `sha256:` and the hex digest of its bytes.

    Raises ValueError, beginning with the name of the file, for a safetensors file that is not whole.
    """
    digests = {name: _file_digest(name, files[name]) for name in sorted(files)}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return f"sha256:{hashlib.sha256(canonical_json(digests)).hexdigest()}"


def _file_digest(name: str, data: bytes) -> str:
    if not name.endswith(".safetensors"):
        return f"sha256:{hashlib.sha256(data).hexdigest()}"
    try:
        return weights_digest(data)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _entry(name: str, fields: dict[str, list[int]], first: int) -> TensorEntry:
    dtype = str(fields["dtype"])
    shape = tuple(int(side) for side in fields["shape"])
    start, stop = (first + int(offset) for offset in fields["data_offsets"])
    is_shape = len(shape) <= _MOST_DIMENSIONS and all(0 <= side < 1 << 62 for side in shape)
    if not is_shape or stop - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError(f"the byte range of {printable(name)} does not fit its dtype and shape")
    return TensorEntry(name, dtype, shape, start, stop)
