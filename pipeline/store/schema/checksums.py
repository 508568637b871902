"""The checksums of inner chunks as text for JSON: an array may have thousands."""

import base64

import numpy as np

Checksums = np.ndarray[tuple[int], np.dtype[np.uint32]]


def pack_checksums(checksums: Checksums) -> str:
    """uint32 [chunks] as base64 of their little-endian bytes."""
    return base64.b64encode(checksums.astype("<u4").tobytes()).decode()


def unpack_checksums(text: str) -> Checksums:
    """Inverse of `pack_checksums`: uint32 [chunks]. Raises ValueError for any other text."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<u4").astype(np.uint32)
