"""What a row array holds open."""

import numpy as np

from pipeline.store.arrays.chunked import ChunkedArray
from pipeline.store.types import Array

UNKNOWN = np.iinfo(np.int64).min


class Opened:
    """What is mapped: no offset is given away without this, which keeps it valid."""

    def __init__(self, chunks: int) -> None:
        self.arrays: dict[int, ChunkedArray] = {}
        """By number of the part."""
        self.rows: dict[int, Array] = {}
        """By number of the chunk."""
        self.origins = np.full(chunks, UNKNOWN)
        """Of each chunk, `UNKNOWN` for those that are not mapped: what to add to `row * row_bytes` to get the offset of
        a row in `space`."""

    def keep(self, number: int, rows: Array, origin: int) -> None:
        """Remember a mapped chunk. One that is known stays as it is, for its offset may be in use."""
        if number not in self.rows:
            self.rows[number] = rows
            self.origins[number] = origin
