"""webdataset: tars of raw bytes, which need no decoder, with the shuffle buffer and the batching of its README.

Batches are made in the workers ("transferring individual samples is slow"), WebLoader gets batch_size=None, tars
are shuffled and rows in a buffer of 1,000.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from torch import Tensor

from loaders.peer import BATCH, Cannot, Fetch, Peer
from loaders.rows import Array

TARS = 8
BUFFER = 1000


class WebDataset(Peer):
    """WebDataset in a WebLoader."""

    def write(self, rows: Array, folder: Path) -> None:
        for tar, numbers in enumerate(np.array_split(np.arange(len(rows)), TARS)):
            with wds.TarWriter(os.fspath(folder / f"{tar:03d}.tar")) as writer:
                for row in numbers.tolist():
                    writer.write({"__key__": f"{row:08d}", "bin": rows[row].tobytes()})

    def epoch(self, folder: Path, shuffle: bool, workers: int) -> Iterable[Any]:
        tars = sorted(os.fspath(path) for path in folder.glob("*.tar"))
        dataset = wds.WebDataset(tars, shardshuffle=TARS if shuffle else False, seed=0)
        if shuffle:
            dataset = dataset.shuffle(BUFFER)
        dataset = dataset.to_tuple("bin").batched(BATCH, collation_fn=_stack)
        loader: Iterable[Any] = wds.WebLoader(
            dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0
        )
        return loader

    def fetch(self, folder: Path) -> Fetch:
        raise Cannot("no: a tar is read from its beginning")


def _stack(samples: Sequence[tuple[bytes]]) -> Tensor:
    """uint16 [n, L] out of the bytes of n rows."""
    joined = np.frombuffer(b"".join(data for (data,) in samples), np.uint16)
    return torch.from_numpy(joined.reshape(len(samples), -1).copy())
