"""Where rows lie in memory."""

from dataclasses import dataclass

import numpy as np

from pipeline.store.types import Array


@dataclass(frozen=True)
class Located:
    """Rows, and where they lie in memory."""

    rows: Array
    """int64 [n], row numbers of the store."""
    offsets: Array
    """int64 [n], in `space`."""
    memory: object
    """What keeps them there, as long as this lives."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Array) -> "Located":
        """Some of the rows."""
        if isinstance(which, slice):
            return Located(self.rows[which], self.offsets[which], self.memory)
        return Located(self.rows.take(which), self.offsets.take(which), self.memory)

    def __add__(self, other: "Located") -> "Located":
        """The rows of both."""
        return Located(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.offsets, other.offsets]),
            (self.memory, other.memory),
        )
