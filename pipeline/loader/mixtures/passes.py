"""Passes over a store that follow each other without a gap, as pure functions of numbers: no I/O, no state.

    round 0    round 1    round 2    round 3
    0 1 2      0 1 2      0 1 2      0 1 2      ranks
    a b c      d e f      g h|d      a e g      rows of one store of 8: the next pass begins within a round

In a round every rank takes one row of the store. Each row comes once per pass, over all ranks, whatever the number of
rows: a pass ends in the middle of a round where it must, and the other ranks begin the next one. So all ranks have
taken equally many rows after each round, and where the store stands is the same on all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.loader.epochs import Segment, bounds, cut


@dataclass(frozen=True)
class Stretch:
    """Part of a pass with one number of ranks."""

    world_size: int
    delivered: int = 0
    """Rows that all ranks together have delivered in it."""


@dataclass(frozen=True)
class Progress:
    """Where a store stands between two rounds."""

    number: int
    """Passes that are over."""
    stretches: tuple[Stretch, ...]
    """Of the pass that is begun."""

    @property
    def delivered(self) -> int:
        """Rows of the pass that have been delivered."""
        return sum(stretch.delivered for stretch in self.stretches)

    def after(self, rounds: int, rows: int) -> "Progress":
        """Where a store of so many rows stands so many rounds later."""
        *before, now = self.stretches
        delivered = now.delivered + rounds * now.world_size
        left = rows - sum(stretch.delivered for stretch in before)
        if delivered < left:
            return Progress(self.number, (*before, Stretch(now.world_size, delivered)))
        passes, rest = divmod(delivered - left, rows)
        return Progress(self.number + 1 + passes, (Stretch(now.world_size, rest),))

    def at(self, world_size: int) -> "Progress":
        """The same with another number of ranks from now on."""
        *before, now = self.stretches
        if now.world_size == world_size:
            return self
        return Progress(self.number, (*before, *([now] if now.delivered else []), Stretch(world_size)))


@dataclass(frozen=True)
class Share:
    """What one rank delivers of one pass."""

    number: int
    """Number of the pass."""
    world_size: int
    """Ranks at its beginning, on which its order depends."""
    segments: list[Segment]


def share(progress: Progress, rank: int, rows: int) -> tuple[Share, int]:
    """What a rank still delivers of the pass that is begun, and which rank takes the first row of the next."""
    now = progress.stretches[-1]
    first = -now.delivered % now.world_size  # the rank that took the first row of this stretch
    own = (rank - first) % now.world_size
    segments = cut(_dealt(rows, progress.stretches)[own], _taken(now, own), rows)
    left = rows - progress.delivered
    return Share(progress.number, progress.stretches[0].world_size, segments), left % now.world_size


def whole_share(number: int, world_size: int, rank: int, first: int, rows: int) -> tuple[Share, int]:
    """What a rank delivers of a later pass, the first row of which rank `first` takes; and the next one's `first`."""
    segments = _dealt(rows, [Stretch(world_size)])[(rank - first) % world_size]
    return Share(number, world_size, segments), (first + rows) % world_size


def _dealt(rows: int, stretches: Sequence[Stretch]) -> list[list[Segment]]:
    """The rows of the last stretch, dealt to its ranks in the order in which they take their first row.

    Lengths differ by at most one; the longer come first.
    """
    whole = [Segment(lane, 0, stop - start) for lane, (start, stop) in enumerate(bounds(rows, stretches[0].world_size))]
    now = _longest_first([[segment] for segment in whole])
    for before, stretch in pairwise(stretches):
        rest = [part for place, own in enumerate(now) for part in cut(own, _taken(before, place), rows)]
        left = sum(map(len, rest))
        now = _longest_first([cut(rest, start, stop) for start, stop in bounds(left, stretch.world_size)])
    return now


def _taken(stretch: Stretch, place: int) -> int:
    """Rows that the rank with the `place`-th of the hands dealt by `_dealt` has taken."""
    rounds, more = divmod(stretch.delivered, stretch.world_size)
    return rounds + (place < more)


def _longest_first(hands: list[list[Segment]]) -> list[list[Segment]]:
    return sorted(hands, key=lambda hand: -sum(map(len, hand)))
