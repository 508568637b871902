"""litData as its README advises for tokens: `optimize` with TokensLoader, chunks of at most 64 MB, no compression.

A local folder is read in place (its "POSIX-fast" mode is the default there), and nothing goes to ~/.lightning:
the cache folder is given. torch.uint16 is stored and delivered as such.
"""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import torch
from torch import Tensor

from loaders.peer import BATCH, Fetch, Peer, Request
from loaders.rows import Array

CHUNK_BYTES = 64_000_000
ITEM_ROWS = 1024


class LitData(Peer):
    """StreamingDataset in a StreamingDataLoader."""

    def write(self, rows: Array, folder: Path) -> None:
        path, tokens = os.fspath(rows.filename), rows.shape[1]  # type: ignore[attr-defined]
        chunk_rows = min(CHUNK_BYTES // rows[0].nbytes, max(len(rows) // 8, 1))  # several chunks, to be shuffled
        item_rows = min(ITEM_ROWS, chunk_rows)
        litdata.optimize(
            fn=partial(_items, path, item_rows),
            inputs=list(range(0, len(rows), item_rows)),
            output_dir=os.fspath(folder / "chunks"),
            chunk_size=chunk_rows * tokens,
            item_loader=litdata.TokensLoader(),
            num_workers=1,
            reorder_files=False,
            keep_data_ordered=True,
            verbose=False,
        )
        (folder / "tokens").write_text(str(tokens))

    def epoch(self, folder: Path, shuffle: bool, workers: int) -> Iterable[Any]:
        dataset = _open(folder, shuffle)
        loader: Iterable[Any] = litdata.StreamingDataLoader(
            dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0
        )
        return loader

    def fetch(self, folder: Path) -> Fetch:
        dataset = _open(folder, shuffle=False)

        def fetch(request: Request) -> Tensor:
            # There is no call for many scattered rows.
            return dataset[request] if isinstance(request, int) else torch.stack([dataset[row] for row in request])

        return fetch


def _items(path: str, count: int, first: int) -> Iterator[Tensor]:
    """Rows one behind the other, as one run of tokens: TokensLoader cuts it again."""
    rows = np.load(path, mmap_mode="r")
    yield torch.from_numpy(np.array(rows[first : first + count]).reshape(-1))


def _open(folder: Path, shuffle: bool) -> Any:
    return litdata.StreamingDataset(
        os.fspath(folder / "chunks"),
        cache_dir=os.fspath(folder / "cache"),
        item_loader=litdata.TokensLoader(block_size=int((folder / "tokens").read_text())),
        shuffle=shuffle,
        drop_last=False,
    )
