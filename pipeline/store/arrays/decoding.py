"""Decoding compressed chunks. The libraries believe what a chunk says of itself, so that is compared first.

A checksum tells damage, not intent: a chunk may be forged with the right one.
"""

import struct
from collections.abc import Callable
from typing import Any

import numcodecs

from pipeline.store.arrays.stored_array import Compressor
from pipeline.store.types import Array


def decode(compressor: Compressor, encoded: Array, size: int, item_bytes: int, take: Callable[[int], Array]) -> Array:
    """A chunk, uint8 [size], decoded.

    Args:
        encoded: uint8, the chunk as it is stored, without its checksum.
        item_bytes: size of the numbers in it.
        take: gives memory for so many bytes.

    Raises ValueError and RuntimeError for anything else than a chunk that decodes to so many bytes.
    """
    header, library = _DECODERS[compressor]
    if size > most_decoded(compressor, encoded.size):
        raise ValueError(f"{size:,} bytes are expected of it, and it has {encoded.size:,}")
    header(encoded, size, item_bytes)
    decoded = take(size)
    library.decode(encoded, decoded)
    return decoded


# LZ4 tells 255 bytes with one of its own. Zstandard has no such bound: text of ours comes in chunks of half a MiB, and
# a larger chunk, which other writers may make, is believed when it is no bomb.
_LZ4_RATIO = 255
_ZSTD_RATIO = 1024
_ZSTD_BYTES = 16 << 20


def most_decoded(compressor: Compressor | None, size: int) -> int:
    """The most bytes that are believed to come of `size` bytes: memory is asked for no more."""
    match compressor:
        case None:
            return size
        case "blosc":
            return _LZ4_RATIO * size
        case "zstd":
            return max(_ZSTD_BYTES, _ZSTD_RATIO * size)


_BLOSC_HEADER = struct.Struct("<4B3I")
_BLOSC_VERSION = 2
_BITSHUFFLED, _MEMCPYED, _NOT_SPLIT = 0x04, 0x02, 0x10
_LZ4 = 1 << 5
_BLOCK_HEADER_BYTES = 4


def _check_blosc(encoded: Array, size: int, item_bytes: int) -> None:
    """Raise ValueError unless a Blosc 1 chunk says that it decodes to `size` bytes, and where its blocks lie in it.

    Bytes 0 to 3 are version, version of LZ4's format, flags and item size; then come, as uint32, the decoded size, the
    size of a block and the encoded size; then, unless the chunk is a plain copy, the offset of each block.
    https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst
    """
    if encoded.size < _BLOSC_HEADER.size:
        raise ValueError("it is shorter than a Blosc header")
    version, _, flags, items, decoded, block, whole = _BLOSC_HEADER.unpack_from(encoded.data)
    if (version, flags & ~(_MEMCPYED | _NOT_SPLIT), items) != (_BLOSC_VERSION, _LZ4 | _BITSHUFFLED, item_bytes):
        raise ValueError(f"its header says version {version}, flags {flags:#x} and items of {items} bytes")
    if (decoded, whole) != (size, encoded.size) or not 0 < block <= max(size, 1):
        raise ValueError(
            f"its header says {decoded:,} bytes in {whole:,}, in blocks of {block:,}; it has {encoded.size:,}, and "
            f"{size:,} are expected"
        )
    if flags & _MEMCPYED:
        if whole != size + _BLOSC_HEADER.size:
            raise ValueError(f"its {whole:,} bytes are no plain copy of {size:,}")
        return
    blocks = -(-size // block)
    first = _BLOSC_HEADER.size + 4 * blocks
    if first > whole:
        raise ValueError("it ends among the offsets of its blocks")
    starts = struct.unpack_from(f"<{blocks}I", encoded.data, _BLOSC_HEADER.size)
    if blocks and not first <= min(starts) <= max(starts) <= whole - _BLOCK_HEADER_BYTES:
        raise ValueError("a block lies outside it")


_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def _check_zstd(encoded: Array, size: int, item_bytes: int) -> None:
    """Raise ValueError unless a Zstandard frame says that it decodes to `size` bytes.

    A magic number, a byte that tells the lengths of what follows, a window size, an id of a dictionary, and the
    decoded size. RFC 8878, section 3.1.1.1. The library compares that size with what it decodes.
    """
    header = encoded[:18].tobytes()
    if header[:4] != _ZSTD_MAGIC or len(header) < 6:
        raise ValueError("it does not begin as a Zstandard frame")
    single, dictionary, kind = bool(header[4] & 0x20), header[4] & 3, header[4] >> 6
    length = (int(single), 2, 4, 8)[kind]
    start = 5 + (not single) + (0, 1, 2, 4)[dictionary]
    decoded = int.from_bytes(header[start : start + length], "little") + (256 if length == 2 else 0)
    if not length or decoded != size:
        raise ValueError(f"its header says {decoded:,} bytes, and {size:,} are expected")


_DECODERS: dict[Compressor, tuple[Callable[[Array, int, int], None], Any]] = {
    "blosc": (_check_blosc, numcodecs.Blosc()),
    "zstd": (_check_zstd, numcodecs.Zstd()),
}
