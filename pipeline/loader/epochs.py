"""The order of rows in an epoch, as pure functions of numbers: no I/O, no state.

    rows ──▶ chunks in random order ──▶ one lane for each rank ──▶ windows, the rows in each shuffled

A chunk is what a store reads as one. The order of the chunks is cut into equal lanes, one for each rank, so that a rank
reads only what it delivers. A lane is cut into windows of some chunks, and the rows of a window are shuffled among each
other: two levels, so that reading stays sequential.

An epoch that is interrupted and resumed by another number of ranks goes on with what is left of the lanes, cut anew
into equal lanes (`lanes`): each row comes once, however often the world changes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

WINDOW_CHUNKS = 64

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Leg:
    """A stretch of an epoch with one number of ranks."""

    world_size: int
    taken: int = 0
    """Rows that every rank has delivered in it; a rank whose lane is shorter has delivered all of its lane."""


@dataclass(frozen=True)
class Segment:
    """Positions `start` to `stop` of a lane of the first stage."""

    lane: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def lanes(rows: int, stages: Sequence[Leg]) -> list[list[Segment]]:
    """What each rank of the last stage delivers, from the first row on; lengths differ by at most one."""
    whole = [Segment(lane, 0, stop - start) for lane, (start, stop) in enumerate(bounds(rows, stages[0].world_size))]
    now = [[segment] for segment in whole]
    for stage, following in pairwise(stages):
        rest = [segment for lane in now for segment in cut(lane, stage.taken, rows)]
        left = sum(map(len, rest))
        now = [cut(rest, start, stop) for start, stop in bounds(left, following.world_size)]
    return now


def bounds(rows: int, lanes: int) -> list[tuple[int, int]]:
    """Cut a range of rows into lanes, lengths of which differ by at most one."""
    return list(pairwise(rows * lane // lanes for lane in range(lanes + 1)))


def cut(segments: Sequence[Segment], start: int, stop: int) -> list[Segment]:
    """Positions `start` to `stop` of several segments as one sequence."""
    found, passed = [], 0
    for segment in segments:
        first, last = max(start - passed, 0), min(stop - passed, len(segment))
        if first < last:
            found.append(Segment(segment.lane, segment.start + first, segment.start + last))
        passed += len(segment)
    return found


@dataclass(frozen=True)
class Window:
    """Rows that are shuffled among each other, as runs of consecutive rows, each within a chunk."""

    starts: Rows
    """int64 [runs], first row of each run."""
    lengths: Rows
    """int64 [runs], rows in it."""
    order: Rows | slice
    """Which of these rows come, and in which order."""

    @property
    def rows(self) -> Rows:
        """int64 [n], the rows in the order in which they come."""
        return ranges(self.starts, self.lengths)[self.order]


def ranges(starts: Rows, lengths: Rows) -> Rows:
    """Several ranges of consecutive numbers, one behind the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


@dataclass(frozen=True)
class EpochOrder:
    """All rows, each once, in lanes for the ranks of an epoch's first stage."""

    chunk_starts: Rows
    """int64 [chunks + 1], first row of each chunk and, last, the number of rows."""
    world_size: int
    """Ranks of the first stage."""
    shuffle: bool
    seed: int
    epoch: int
    group_starts: Rows | None = None
    """First chunk of each part and, last, the number of chunks, int64 [parts + 1]; with `groups`."""
    groups: int = 0
    """Parts that are open at a time: chunks are shuffled only among those of so many parts. 0 for all."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.chunk_starts[-1])

    def windows(self, segment: Segment) -> Iterator[Window]:
        """The rows of a segment, by window."""
        first, end = bounds(self.rows, self.world_size)[segment.lane]
        edges = self._window_edges(first, end)
        begin, finish = first + segment.start, first + segment.stop
        number = int(np.searchsorted(edges, begin, side="right")) - 1
        while number < len(edges) - 1 and edges[number] < finish:
            start, stop = int(edges[number]), int(edges[number + 1])
            taken = slice(max(begin - start, 0), finish - start)
            order: Rows | slice = taken
            if self.shuffle:
                order = self._random(1, self.world_size, segment.lane, number).permutation(stop - start)[taken]
            yield Window(*self._runs(start, stop), order)
            number += 1

    @cached_property
    def _chunks(self) -> Rows:
        """Chunks in the order of the epoch."""
        chunks = len(self.chunk_starts) - 1
        if not self.shuffle:
            return np.arange(chunks)
        random = self._random(0)
        if not self.groups or self.group_starts is None:
            return random.permutation(chunks)
        starts = self.group_starts
        parts = random.permutation(len(starts) - 1)
        together = [parts[first : first + self.groups] for first in range(0, len(parts), self.groups)]
        of_groups = [
            np.concatenate([np.arange(starts[part], starts[part + 1]) for part in group]) for group in together
        ]
        return np.concatenate([random.permutation(group) for group in of_groups])

    @cached_property
    def _positions(self) -> Rows:
        """Position in the epoch of the first row of each chunk of `_chunks` and, last, the number of rows."""
        lengths = np.diff(self.chunk_starts)[self._chunks]
        return np.concatenate([[0], np.cumsum(lengths)])

    def _window_edges(self, first: int, end: int) -> Rows:
        """Positions where windows of the lane `first` to `end` begin and, last, `end`."""
        inside = self._positions[(self._positions > first) & (self._positions < end)]
        return np.concatenate([[first], inside[WINDOW_CHUNKS - 1 :: WINDOW_CHUNKS], [end]])

    def _runs(self, start: int, stop: int) -> tuple[Rows, Rows]:
        """First rows and lengths of what lies at the positions `start` to `stop` of the epoch, by chunk."""
        first = int(np.searchsorted(self._positions, start, side="right")) - 1
        end = max(int(np.searchsorted(self._positions, stop, side="left")), first)
        begin, finish = self._positions[first:end], self._positions[first + 1 : end + 1]
        from_start = np.maximum(start - begin, 0)
        starts = self.chunk_starts[self._chunks[first:end]] + from_start
        return starts, np.minimum(finish, stop) - begin - from_start

    def _random(self, *stream: int) -> np.random.RandomState:
        # Of numpy's generators the only one whose numbers no version changes (NEP 19): an epoch may outlive one.
        return np.random.RandomState(np.random.MT19937(np.random.SeedSequence((self.seed, self.epoch, *stream))))
