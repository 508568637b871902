"""Which store each row of a mixture comes from, as a pure function of seed and position."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from pipeline.loader.splitmix import GOLDEN_GAMMA, Words, splitmix64

_COUNTED_AT_ONCE = 1 << 20

Numbers = np.ndarray[Any, np.dtype[np.uint16]]


@dataclass(frozen=True)
class Schedule:
    """Stores in proportion to their weights, spread evenly: in every stretch of positions, not only in the long run.

    Position p falls on the circle at key + p / golden ratio, where each store has an arc of its weight: no sequence of
    this kind spreads more evenly (Kuipers, Niederreiter, "Uniform distribution of sequences", 1974, chapter 2.3).
    In integers, so that it is the same on every machine.
    """

    weights: tuple[float, ...]
    """None negative, at least one positive."""
    seed: int

    def at(self, start: int, count: int) -> Numbers:
        """Numbers of the stores at `count` positions from `start` on, uint16 [count]."""
        points = self._key + np.arange(start, start + count).astype(np.uint64) * np.uint64(GOLDEN_GAMMA)
        numbers, edges = self._arcs
        arcs = np.zeros(count, np.uint16)
        for edge in edges:  # faster than a search among few edges
            arcs += points >= edge
        return numbers[arcs]

    def counts(self, start: int, count: int) -> list[int]:
        """How many of these positions each store has."""
        total = np.zeros(len(self.weights), np.int64)
        for first in range(start, start + count, _COUNTED_AT_ONCE):
            stores = self.at(first, min(_COUNTED_AT_ONCE, start + count - first))
            total += np.bincount(stores, minlength=len(self.weights))
        return [int(number) for number in total]

    @cached_property
    def _key(self) -> np.uint64:
        return np.uint64(splitmix64(self.seed % (1 << 64), np.zeros(1, np.int64))[0])

    @cached_property
    def _arcs(self) -> tuple[Numbers, Words]:
        """Stores that have an arc, and where each arc but the last ends."""
        numbers = np.flatnonzero(self.weights)
        edges = _edges([self.weights[number] for number in numbers.tolist()])
        return numbers.astype(np.uint16), np.asarray(edges, np.uint64)


def _edges(weights: Sequence[float]) -> list[int]:
    ends = list(accumulate(map(Fraction, weights)))
    return [int(end / ends[-1] * (1 << 64)) for end in ends[:-1]]
