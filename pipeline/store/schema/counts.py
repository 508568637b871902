"""Code histograms as text for JSON: a codebook may have 65,536 codes."""

import base64
import zlib

import numpy as np

from pipeline.errors import CorruptStore

Counts = np.ndarray[tuple[int], np.dtype[np.int64]]


def pack_counts(counts: Counts) -> str:
    """int64 counts [K] as base64 of zlib of their little-endian bytes."""
    return base64.b64encode(zlib.compress(counts.astype("<i8").tobytes(), 9)).decode()


def unpack_counts(text: str, vocab_size: int, path: str) -> Counts:
    """Inverse of `pack_counts`: int64 [vocab_size].

    Raises CorruptStore naming `path`, the file that `text` is from, for anything else than such counts.
    """
    try:
        # No more than there must be: a few bytes can unpack to gigabytes.
        unpacker = zlib.decompressobj()
        counts = np.frombuffer(unpacker.decompress(base64.b64decode(text), 8 * vocab_size + 1), "<i8").astype(np.int64)
        if not unpacker.eof:
            raise ValueError("they do not end where they should")
    except (ValueError, zlib.error) as error:
        raise CorruptStore(f"{path}: the code counts cannot be read ({error})") from None
    if len(counts) != vocab_size:
        raise CorruptStore(f"{path}: {len(counts)} code counts for {vocab_size} codes")
    return counts
