"""Telling a machine that is out of memory from an image that is damaged: one fails the job, the other is a reject."""

import numpy as np

from pipeline.errors import BadImage
from pipeline.process.shortage import is_memory_shortage, reason_of


def failure(kind: str, error: Exception) -> Exception:
    """BadImage, or MemoryError where the message blames the machine."""
    reason = reason_of(error)
    return MemoryError(reason) if is_memory_shortage(error) else BadImage(f"{kind}: {reason}")


def require_memory(size: int) -> None:
    """Raise MemoryError where `size` bytes cannot be had. They are not touched, so this costs next to nothing."""
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        raise MemoryError(f"decoding an image may take {size:,} bytes; give the process more memory") from None
