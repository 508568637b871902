"""The rows that every loader stores: random tokens, and the number of the row in its first two."""

from pathlib import Path
from typing import Any

import numpy as np

VOCAB = 16_384
"""Codes of the invented tokenizer, as many as usual ones have: uint16, of which two bits are always 0."""

Array = np.ndarray[Any, np.dtype[Any]]


def write_rows(path: Path, rows: int, tokens: int) -> None:
    """Write uint16 [rows, tokens] as one .npy."""
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=(rows, tokens))
    random = np.random.default_rng(0)
    for first in range(0, rows, 8192):
        block = file[first : first + 8192]
        block[:] = random.integers(0, VOCAB, block.shape, np.uint16)
        number = np.arange(first, first + len(block))
        block[:, 0], block[:, 1] = number % VOCAB, number // VOCAB
    file.flush()


def open_rows(path: Path) -> Array:
    """uint16 [rows, tokens], mapped and not read."""
    rows: Array = np.load(path, mmap_mode="r")
    return rows


def numbers_of(tokens: Array) -> Array:
    """int64 [n]: which rows these are."""
    return tokens[:, 0].astype(np.int64) + tokens[:, 1].astype(np.int64) * VOCAB
