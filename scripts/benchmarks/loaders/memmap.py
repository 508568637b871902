"""The reference: one flat array in one file, mapped into memory. Nothing is checked, and there are no keys."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from loaders.order import windows
from loaders.peer import BATCH, Fetch, Peer, Request
from loaders.rows import Array


class Blocks(IterableDataset[Tensor]):
    """Batches of rows copied out of the map: what leaves a loader must be memory of its own."""

    def __init__(self, rows: Array, shuffle: bool) -> None:
        self._rows = rows
        self._shuffle = shuffle
        self._epoch = 0

    def __iter__(self) -> Iterator[Tensor]:
        random = np.random.default_rng((0, self._epoch))
        self._epoch += 1
        for window in windows(len(self._rows), self._shuffle, random):
            for first in range(0, len(window.rows), BATCH):
                yield torch.from_numpy(_copied(self._rows, window.rows[first : first + BATCH]))


class Memmap(Peer):
    """A block loader over np.memmap."""

    def write(self, rows: Array, folder: Path) -> None:
        np.save(folder / "rows.npy", rows)

    def epoch(self, folder: Path, shuffle: bool, workers: int) -> Iterable[Any]:
        blocks = Blocks(self.open(folder), shuffle)
        return DataLoader(blocks, batch_size=None, num_workers=workers, persistent_workers=True) if workers else blocks

    def fetch(self, folder: Path) -> Fetch:
        rows = self.open(folder)
        return lambda request: torch.from_numpy(_copied(rows, request))

    def open(self, folder: Path) -> Array:
        """A plain array over the map, which is the fastest to take rows from."""
        rows: Array = np.load(folder / "rows.npy", mmap_mode="r")
        return rows.view(np.ndarray)


class MemmapIndexed(Memmap):
    """The same, indexed as np.memmap comes: `rows[numbers]`."""

    def open(self, folder: Path) -> Array:
        rows: Array = np.load(folder / "rows.npy", mmap_mode="r")
        return rows


def _copied(rows: Array, which: Request | Array) -> Array:
    if isinstance(rows, np.memmap):
        copied: Array = np.asarray(rows[which])
        return copied if np.ndim(which) else copied.copy()
    return np.take(rows, which, axis=0)
