"""Content digests: equal digests mean equal arrays, whatever wrote them and however they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def content_digest(arrays: Mapping[str, np.ndarray[Any, np.dtype[Any]]]) -> str:
    """sha256 (hex) over decoded arrays, whatever their chunks and codecs.

    For every array, sorted by path: the line `path dtype shape\\n`, such as `tokens <u2 1000,256\\n` with
    the numpy dtype in little-endian form (`|u1` for single bytes), then its elements in row-major order.
    """
    import numpy as np  # a manifest is read by commands that answer at once

    sha256 = hashlib.sha256()
    for path in sorted(arrays):
        little = np.ascontiguousarray(arrays[path], arrays[path].dtype.newbyteorder("<"))
        sha256.update(f"{path} {little.dtype.str} {','.join(map(str, little.shape))}\n".encode())
        sha256.update(little.data)
    return sha256.hexdigest()


def store_digest(parts: Iterable[tuple[str, str]]) -> str:
    """sha256 (hex) over the lines `part digest\\n` of all parts, sorted."""
    lines = sorted(f"{part} {digest}\n" for part, digest in parts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
