"""Mosaic streaming: MDS shards of 64 MB, uncompressed, with the size of a sample in the schema, on the local disk.

Its pages on performance say to leave the defaults, to name the batch size, and to keep shards uncompressed where
decompression would be the bottleneck; `ndarray:uint16:L` spares the header of each sample. Samples are stacked
with one np.stack, which is faster than torch's own collation.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streaming
import torch
from streaming.base.util import clean_stale_shared_memory
from torch import Tensor

from loaders.peer import BATCH, Fetch, Peer, Request
from loaders.rows import Array


class Mosaic(Peer):
    """StreamingDataset in a StreamingDataLoader."""

    def write(self, rows: Array, folder: Path) -> None:
        columns = {"tokens": f"ndarray:uint16:{rows.shape[1]}"}
        with streaming.MDSWriter(out=os.fspath(folder / "mds"), columns=columns) as writer:
            for row in rows:
                writer.write({"tokens": np.asarray(row)})

    def epoch(self, folder: Path, shuffle: bool, workers: int) -> Iterable[Any]:
        dataset = _open(folder, shuffle)
        loader: Iterable[Any] = streaming.StreamingDataLoader(
            dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0, collate_fn=_stack
        )
        return loader

    def fetch(self, folder: Path) -> Fetch:
        dataset = _open(folder, shuffle=False)

        def fetch(request: Request) -> Tensor:
            found = dataset[request]
            return torch.from_numpy(found["tokens"].copy()) if isinstance(request, int) else _stack(found)

        return fetch

    def close(self) -> None:
        clean_stale_shared_memory()


def _stack(samples: Sequence[dict[str, Any]]) -> Tensor:
    return torch.from_numpy(np.stack([sample["tokens"] for sample in samples]))


def _open(folder: Path, shuffle: bool) -> Any:
    return streaming.StreamingDataset(local=os.fspath(folder / "mds"), shuffle=shuffle, batch_size=BATCH)
