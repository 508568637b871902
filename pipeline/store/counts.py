"""Code histograms as text for JSON: a codebook may have 65,536 codes."""

import base64
import zlib

import numpy as np

Counts = np.ndarray[tuple[int], np.dtype[np.int64]]


def pack_counts(counts: Counts) -> str:
    """int64 counts [K] as base64 of zlib of their little-endian bytes."""
    return base64.b64encode(zlib.compress(counts.astype("<i8").tobytes(), 9)).decode()


def unpack_counts(text: str) -> Counts:
    """Inverse of `pack_counts`."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i8").astype(np.int64)
