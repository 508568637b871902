"""The order in which training draws samples, as pure functions of numbers: no I/O, no state.

    source shards in random order ─▶ groups ─▶ pieces in random order ─▶ windows, the samples in each shuffled

An order has no end: one epoch follows the other, each with every sample once. It depends on the seed and on how many
samples each source shard holds, and on nothing else: not on processes, workers, batch size or checkpoints. So a
position in it is one number.

A piece is a stretch of consecutive samples, which is read at once. A source shard that can only be read from its
beginning is one piece. Only the source shards of a group are mixed, so the order can begin before the later groups have
been counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

GROUP_SHARDS = 64
_PIECES = 32
_MIN_PIECE = 16

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Extent(NamedTuple):
    """What the order must know of a source shard."""

    samples: int
    jumps: bool
    """Whether reading can begin anywhere in it."""


@dataclass(frozen=True)
class Window:
    """Consecutive positions of an order, whose samples are shuffled among each other."""

    start: int
    """Position of the first sample, counted over all epochs."""
    shards: Numbers
    """int64 [n], number of the source shard of each sample."""
    samples: Numbers
    """int64 [n], number of the sample within it."""
    mirrored: np.ndarray[Any, np.dtype[np.bool_]]
    """bool [n], whether the image is mirrored this time."""

    def share(self, origin: int, batch_size: int, rank: int, world_size: int) -> Numbers:
        """int64 [m], which of its samples one process takes: all of them take batches in turn, from `origin` on."""
        positions = self.start + np.arange(len(self.shards)) - origin
        return np.flatnonzero((positions >= 0) & (positions // batch_size % world_size == rank))


def shard_order(seed: int, epoch: int, shards: int) -> Numbers:
    """int64 [shards], the order in which an epoch comes to the source shards."""
    return _random(seed, epoch, 0).permutation(shards).astype(np.int64)


@dataclass(frozen=True)
class Order:
    """The endless order of the samples of some source shards.

    Args:
        extents: of each source shard; None where it has not been counted, and the order ends before it.
        buffer: samples in a window.
    """

    extents: Sequence[Extent | None]
    buffer: int
    seed: int

    @property
    def samples(self) -> int | None:
        """Samples in an epoch; None when not all are counted."""
        known = [extent.samples for extent in self.extents if extent is not None]
        return sum(known) if len(known) == len(self.extents) else None

    def windows(self, position: int) -> Iterator[Window]:
        """The windows from the one that holds `position` on."""
        epoch, skipped = divmod(position, self.samples) if self.samples else (0, position)
        while True:
            yield from self._epoch(epoch, skipped)
            if not self.samples:
                return
            epoch, skipped = epoch + 1, 0

    def _epoch(self, epoch: int, skipped: int) -> Iterator[Window]:
        """Windows of an epoch, without those that lie within its first `skipped` samples."""
        start = epoch * (self.samples or 0)
        shards = shard_order(self.seed, epoch, len(self.extents))
        for number, first in enumerate(range(0, len(shards), GROUP_SHARDS)):
            group = shards[first : first + GROUP_SHARDS]
            extents = [extent for shard in group if (extent := self.extents[shard]) is not None]
            if len(extents) < len(group):
                return
            size = sum(extent.samples for extent in extents)
            if skipped < size:
                yield from self._group(epoch, number, start, group, skipped)
            start, skipped = start + size, max(0, skipped - size)

    def _group(self, epoch: int, number: int, start: int, shards: Numbers, skipped: int) -> Iterator[Window]:
        """Windows of a group of source shards that begins at position `start`, without its first `skipped` samples."""
        shard_P, first_P, length_P = self._pieces(shards)
        drawn_P = _random(self.seed, epoch, 1, number).permutation(len(shard_P))
        shard_P, first_P, ends_P = shard_P[drawn_P], first_P[drawn_P], np.cumsum(length_P[drawn_P])
        before_P = ends_P - length_P[drawn_P]
        for window in range(skipped // self.buffer, -(-int(ends_P[-1]) // self.buffer)):
            begin = window * self.buffer
            places = np.arange(begin, min(begin + self.buffer, int(ends_P[-1])))
            random = _random(self.seed, epoch, 2, number, window)
            places = random.permutation(places)
            piece = np.searchsorted(ends_P, places, side="right")
            samples = first_P[piece] + places - before_P[piece]
            yield Window(start + begin, shard_P[piece], samples, random.random_sample(len(places)) < 0.5)

    def _pieces(self, shards: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Source shard, first sample and length of each piece, int64 [pieces] each."""
        size = max(_MIN_PIECE, self.buffer // _PIECES)
        pieces: list[Numbers] = []
        for shard in shards:
            extent = self.extents[shard]
            assert extent is not None
            edges = np.arange(0, extent.samples, size if extent.jumps else max(1, extent.samples))
            lengths = np.diff(edges, append=extent.samples)
            pieces.append(np.stack([np.full_like(edges, shard), edges, lengths]))
        shard_P, first_P, length_P = np.concatenate(pieces, axis=1)
        return shard_P, first_P, length_P


def _random(*stream: int) -> np.random.RandomState:
    # Of numpy's generators the only one whose numbers no version changes (NEP 19): a training may outlive one.
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(stream)))
