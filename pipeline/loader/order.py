"""The order of rows in an epoch, as a pure function: no I/O, no state.

Shuffling has two levels, so that reading stays in whole blocks: the blocks of a store are put in random
order, and the rows of `WINDOW_BLOCKS` blocks at a time are shuffled among each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

BLOCK_ROWS = 256
WINDOW_BLOCKS = 64

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class EpochOrder:
    """All rows of a store, each once, in the order of one epoch."""

    part_starts: tuple[int, ...]
    """First row of every part and, last, the number of rows. Blocks never cross parts."""
    shuffle: bool
    seed: int
    epoch: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.part_starts[-1]

    @cached_property
    def _blocks(self) -> Rows:
        """First row and number of rows of every block, int64 [blocks, 2], in the order of the epoch."""
        blocks = split_blocks(self.part_starts)
        if self.shuffle:
            self._random(0).shuffle(blocks)
        return blocks

    @cached_property
    def window_starts(self) -> Rows:
        """Position of the first row of every window and, last, the number of rows, int64 [windows + 1]."""
        ends = np.cumsum(self._blocks[:, 1])
        last_blocks = np.arange(WINDOW_BLOCKS, len(ends) + WINDOW_BLOCKS, WINDOW_BLOCKS).clip(max=len(ends)) - 1
        return np.concatenate([[0], ends[last_blocks]]).astype(np.int64)

    def window(self, number: int) -> Rows:
        """Rows of one window, in the order of the epoch."""
        blocks = self._blocks[number * WINDOW_BLOCKS : (number + 1) * WINDOW_BLOCKS]
        rows = np.concatenate([np.arange(first, first + count) for first, count in blocks])
        if self.shuffle:
            self._random(1 + number).shuffle(rows)
        return rows

    def _random(self, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch, stream))


def split_blocks(part_starts: Sequence[int]) -> Rows:
    """Cut every part into blocks of at most BLOCK_ROWS: first row and number of rows, int64 [blocks, 2]."""
    blocks = [
        (first, min(BLOCK_ROWS, end - first))
        for start, end in pairwise(part_starts)
        for first in range(start, end, BLOCK_ROWS)
    ]
    return np.asarray(blocks, np.int64).reshape(-1, 2)
