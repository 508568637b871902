"""Shuffling in two levels, for loaders that leave the order to the caller: blocks, then rows of many blocks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import get_worker_info

from loaders.rows import Array

BLOCK = 1024
WINDOW_BLOCKS = 64


@dataclass(frozen=True)
class Window:
    """Rows that are shuffled among each other."""

    blocks: Array
    """Numbers of the blocks to read, in this order."""
    rows: Array
    """Row numbers in the order of the epoch."""
    places: Array
    """The same rows as places among the rows of `blocks`."""


def windows(rows: int, shuffle: bool, random: np.random.Generator) -> Iterator[Window]:
    """All rows of a store, each once; in worker i of n, those of every n-th block."""
    blocks = np.arange(-(-rows // BLOCK))
    if shuffle:
        random.shuffle(blocks)
    if worker := get_worker_info():
        blocks = blocks[worker.id :: worker.num_workers]
    for first in range(0, len(blocks), WINDOW_BLOCKS):
        window = blocks[first : first + WINDOW_BLOCKS]
        numbers = (window[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
        numbers = numbers[numbers < rows]  # the last block may be short
        places = random.permutation(len(numbers)) if shuffle else np.arange(len(numbers))
        yield Window(window, numbers[places], places)
