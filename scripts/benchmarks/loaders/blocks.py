"""zarr-python, as fast as it reads without help: uncompressed chunks, read whole, shuffled in memory.

Chunks are the blocks that are shuffled, so that each is read once an epoch; without a codec, and without Zarr
shards, whose index would be read besides (https://zarr.readthedocs.io/en/stable/user-guide/performance/).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from loaders.order import BLOCK, windows
from loaders.peer import BATCH, Fetch, Peer, Request
from loaders.rows import Array


class Chunks(IterableDataset[Tensor]):
    """Batches out of whole chunks."""

    def __init__(self, folder: Path, shuffle: bool) -> None:
        self._array = _open(folder)
        self._shuffle = shuffle
        self._epoch = 0

    def __iter__(self) -> Iterator[Tensor]:
        random = np.random.default_rng((0, self._epoch))
        self._epoch += 1
        for window in windows(self._array.shape[0], self._shuffle, random):
            read = [np.asarray(self._array[block * BLOCK : (block + 1) * BLOCK]) for block in window.blocks.tolist()]
            rows = np.concatenate(read)
            for first in range(0, len(rows), BATCH):
                yield torch.from_numpy(np.take(rows, window.places[first : first + BATCH], axis=0))


class ZarrBlocks(Peer):
    """zarr-python, reading in blocks."""

    def write(self, rows: Array, folder: Path) -> None:
        shape = (min(BLOCK, len(rows)), rows.shape[1])
        array = zarr.create_array(
            folder / "rows.zarr", shape=rows.shape, dtype=rows.dtype, chunks=shape, compressors=None, filters=None
        )
        array[...] = rows

    def epoch(self, folder: Path, shuffle: bool, workers: int) -> Iterable[Any]:
        chunks = Chunks(folder, shuffle)
        return DataLoader(chunks, batch_size=None, num_workers=workers, persistent_workers=True) if workers else chunks

    def fetch(self, folder: Path) -> Fetch:
        array = _open(folder)

        def fetch(request: Request) -> Tensor:
            wanted = array[request] if isinstance(request, int) else array.oindex[np.asarray(request)]
            return torch.from_numpy(np.asarray(wanted))

        return fetch


def _open(folder: Path) -> "zarr.Array[Any]":
    return zarr.open_array(folder / "rows.zarr", mode="r")
