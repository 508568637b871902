"""`TokenLoader`: every row of a store once per epoch, over any number of ranks, from any point on."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.errors import StoreError
from pipeline.loader.order import EpochOrder, Rows
from pipeline.store.reader import TokenBatch, TokenStore


class TokenLoader:
    """Iterating gives the batches of one epoch, or what is left of it; the next iteration the next epoch.

    Args:
        store: an open store.
        batch_size: rows of a batch of this rank.
        shuffle: another order every epoch; without it, the order of the store.
        seed: what the order depends on, together with the epoch.
        rank: which of `world_size` processes this is. Together they see every row exactly once.
        world_size: number of processes.
        drop_last: leave out the rows at the end of an epoch that do not fill a batch on every rank, so that
            all ranks make equally many steps. Otherwise last batches are shorter, and a rank may have one
            batch less than another.

    Raises ValueError for a rank outside the world or a batch size below 1.
    """

    def __init__(
        self,
        store: TokenStore,
        batch_size: int = 256,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0 .. world_size - 1 = {world_size - 1}")
        self.store = store
        self.batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._drop_last = drop_last
        self._epoch = 0
        self._rows_seen = 0

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        step = self.batch_size * self._world_size
        whole, rest = divmod(len(self.store), step)
        return whole + (not self._drop_last and rest > self._rank)

    def __iter__(self) -> Iterator[TokenBatch]:
        order = EpochOrder(tuple(self.store.part_starts.tolist()), self._shuffle, self._seed, self._epoch)
        step = self.batch_size * self._world_size
        for batch in self._batches(order, self._rows_seen):
            if self._drop_last and order.rows - self._rows_seen < step:
                break
            self._rows_seen = min(self._rows_seen + step, order.rows)
            yield batch
        self._epoch += 1
        self._rows_seen = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: a few numbers that are the same on every rank after equally many steps."""
        return {
            "content_digest": self.store.content_digest,
            "shuffle": self._shuffle,
            "seed": self._seed,
            "epoch": self._epoch,
            "rows_seen": self._rows_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken: the rows not seen in its epoch come next, at any world size.

        Raises StoreError naming what differs when the state is of another store or another order.
        """
        present = self.state_dict()
        missing = present.keys() - state.keys()
        if missing:
            raise StoreError(f"the loader's state has no {', '.join(sorted(missing))}: it is not that of a TokenLoader")
        for name, ours in present.items():
            if name in ("content_digest", "shuffle", "seed") and state[name] != ours:
                raise StoreError(f"the loader's state has {name} {state[name]!r}, this loader {ours!r}")
        self._epoch, self._rows_seen = int(state["epoch"]), int(state["rows_seen"])

    def _batches(self, order: EpochOrder, start: int) -> Iterator[TokenBatch]:
        """Batches of this rank from position `start` of the epoch on; whole windows are read at once."""
        waiting: list[TokenBatch] = []
        for rows in self._rows_by_window(order, start):
            read = self.store.read(rows)
            waiting.append(read)
            merged = TokenBatch.concatenate(waiting)
            whole = len(merged) - len(merged) % self.batch_size
            for first in range(0, whole, self.batch_size):
                yield merged[first : first + self.batch_size]
            waiting = [merged[whole:]]
        if waiting and len(waiting[0]):
            yield waiting[0]

    def _rows_by_window(self, order: EpochOrder, start: int) -> Iterator[Rows]:
        """This rank's rows: positions start + rank, start + rank + world_size, ... of the epoch."""
        windows = order.window_starts
        for number in range(len(windows) - 1):
            first, end = int(windows[number]), int(windows[number + 1])
            skipped = max(start - first, 0)
            if skipped >= end - first:
                continue
            offset = (self._rank - (first + skipped - start)) % self._world_size
            yield np.ascontiguousarray(order.window(number)[skipped + offset :: self._world_size])
