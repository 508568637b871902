"""Rows of several stores, each in its own order, brought into the order of a schedule: many at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.loader.epochs import Rows
from pipeline.loader.mixtures.dealt import Dealt
from pipeline.loader.mixtures.schedule import Schedule

BLOCK_ROWS = 4096
"""Rows that are mixed as one."""


def mixed_blocks(
    windows: Sequence[Iterator[Dealt]], starts: Rows, schedule: Schedule, position: int
) -> Iterator[Dealt]:
    """Blocks of rows without end, numbered through all stores.

    Args:
        windows: rows of each store, without end.
        starts: int64 [stores + 1], what to add to the row numbers of each store.
        schedule: which store each row is from.
        position: of the first row in the schedule.
    """
    streams = [_StoreRows(own) for own in windows]
    while True:
        sources = schedule.at(position, BLOCK_ROWS)
        counts = np.bincount(sources, minlength=len(streams)).tolist()
        pieces = [
            replace(piece, rows=piece.rows + starts[number])
            for number, count in enumerate(counts)
            for piece in streams[number].take(count)
        ]
        places = np.argsort(sources, kind="stable")  # of the rows of the first store, then of the second
        rows, offsets, passes = np.empty((3, BLOCK_ROWS), np.int64)
        rows[places] = np.concatenate([piece.rows for piece in pieces])
        offsets[places] = np.concatenate([piece.offsets for piece in pieces])
        passes[places] = np.concatenate([piece.passes for piece in pieces])
        yield Dealt(rows, offsets, [piece.memory for piece in pieces], passes)
        position += BLOCK_ROWS


class _StoreRows:
    """Windows of rows, to be taken in pieces of any length."""

    def __init__(self, windows: Iterator[Dealt]) -> None:
        self._windows = windows
        self._rest: Dealt | None = None

    def take(self, count: int) -> Iterator[Dealt]:
        """The next `count` rows."""
        while count:
            window = next(self._windows) if self._rest is None else self._rest
            piece = window[:count]
            count -= len(piece)
            self._rest = window[len(piece) :] if len(piece) < len(window) else None
            yield piece
