"""Rows of a mixture, and the pass of its store that each of them belongs to."""

from dataclasses import dataclass

import numpy as np

from pipeline.store.arrays.located import Located
from pipeline.store.types import Array


@dataclass(frozen=True)
class Dealt(Located):
    """Located rows of one store or of several; of one store that comes often, rows of two passes may be neighbours."""

    passes: Array
    """int64 [n]: which pass over its store each row belongs to, from 0."""

    @classmethod
    def of(cls, located: Located, number: int) -> "Dealt":
        """Rows that all belong to one pass."""
        return cls(located.rows, located.offsets, located.memory, np.full(len(located), number, np.int64))

    def __getitem__(self, which: slice | Array) -> "Dealt":
        part = super().__getitem__(which)
        return Dealt(part.rows, part.offsets, part.memory, self.passes[which])

    def __add__(self, other: Located) -> "Dealt":
        assert isinstance(other, Dealt)
        both = super().__add__(other)
        return Dealt(both.rows, both.offsets, both.memory, np.concatenate([self.passes, other.passes]))
