"""Telling a machine that is out of memory from an image that is damaged: one fails the job, the other is a reject."""

import contextlib
import re
from collections.abc import Iterator

import numpy as np

from pipeline.errors import BadImage

# How Pillow, libjpeg and torch say that the machine is out of memory, where they raise no MemoryError.
_OUT_OF_MEMORY = ("out of memory", "insufficient memory", "allocate")


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn the RuntimeError by which torch says that the machine is out of memory into a MemoryError."""
    try:
        yield
    except RuntimeError as error:
        reason = failure("", error)
        if isinstance(reason, MemoryError):
            raise reason from error
        raise


def failure(kind: str, error: Exception) -> Exception:
    """BadImage, or MemoryError where the message blames the machine."""
    # torch puts the place in C++ before its message and a stack behind it.
    reason = re.sub(r"^\w+, \S+:\d+, ", "", str(error).partition("\n")[0])
    if any(words in reason.lower() for words in _OUT_OF_MEMORY):
        return MemoryError(reason)
    return BadImage(f"{kind}: {reason}")


def require_memory(size: int) -> None:
    """Raise MemoryError where `size` bytes cannot be had. They are not touched, so this costs next to nothing."""
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        raise MemoryError(f"decoding an image may take {size:,} bytes; give the process more memory") from None
