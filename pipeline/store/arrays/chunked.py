"""Arrays of a part, read by ranges of rows: the interface."""

from typing import Any, Protocol

import numpy as np

from pipeline.store.types import Array


class Damage(Exception):
    """An array is not as it was written; the message says where."""


class ChunkedArray(Protocol):
    """One array of a part. Reading it raises Damage, and OSError where files cannot be had."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def mapped(self) -> bool:
        """Whether what is read from one chunk is a view of a file, which costs no memory to keep."""

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop, both within the array; not to be written to."""
