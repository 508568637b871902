"""`TokenLoader`: every row of a store once per epoch, over any number of ranks, from any point on."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.config import load_reader_config
from pipeline.errors import StoreError, VqtokError
from pipeline.files import is_url
from pipeline.loader.epoch_rows import OrderedRows, in_batches, worker_of
from pipeline.loader.epochs import Leg, Rows, cut, lanes
from pipeline.loader.views import Views
from pipeline.store.arrays.row_array import Located
from pipeline.store.batch import TokenBatch
from pipeline.store.reader import TokenStore
from pipeline.world import launched_rank

Remainder = Literal["uneven", "drop", "pad"]

# What a loader shares with its copies in workers: the epoch it stands in, the epoch that a worker has begun, and how
# often it was given a state.
_EPOCH, _BEGUN, _LOADS = range(3)
_NO_EPOCH = -1

# Numpy releases the interpreter's lock, for which threads that decode wait, only when it gathers 500 rows or more.
_GATHERED_ROWS = 1024


class TokenLoader(IterableDataset[TokenBatch]):
    """Iterating gives the batches of one epoch, or what is left of it; the next iteration the next epoch.

    Reading runs in threads beside the iteration, so worker processes are not needed for speed. A torch `DataLoader` may
    iterate it all the same, with `batch_size=None`: batches come in the same order with any number of workers.
    They iterate over copies, which begin where this loader stands: call `set_epoch` before every epoch then, and take
    `state_after(steps)`. A torchdata `StatefulDataLoader` keeps the state itself; it goes on with as many workers as
    before, and with others it fails (of none with AssertionError, its own; else with StoreError).

    Accelerate and Lightning take the loader itself, with their rank and world size. `prepare` leaves it alone; it
    cannot be given a `DataLoader` of it, of which Accelerate would share out the batches once more.

    Args:
        store: an open store.
        batch_size: rows of a batch of this rank.
        shuffle: another order every epoch; without it, the order of the store, cut into an equal stretch for each rank.
        seed: what the order depends on, together with the epoch and the number of ranks.
        rank: which of `world_size` processes this is. Together they see every row exactly once.
        world_size: number of processes.
        rows: int64, sorted, without repeats: deliver only these rows of the store.
        remainder: what becomes of rows that do not fill a batch on every rank. `uneven`: last batches are shorter,
            and a rank may have one batch less than another. `drop`: they are left out. `pad`: they are filled up with
            rows that have been delivered already, for which `batch.mask` is False. With `drop` and `pad` all ranks
            make equally many steps.
        parts_at_a_time: shuffle chunks only among those of so many parts, for parts that are fetched as a whole;
            0 for all of them.
        views: of a store in which each image has several: a number, that view of each; `random`, another one of each
            image every epoch, which depends on seed, epoch and row alone; `all`, tokens are then [B, V, L_total], and B
            still counts images.

    Raises ValueError for a rank outside the world, a batch size below 1, a negative seed, rows that are not sorted
    row numbers of the store, or a view that it does not have.
    """

    def __init__(
        self,
        store: TokenStore,
        batch_size: int = 256,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        rows: Sequence[int] | Rows | None = None,
        remainder: Remainder = "uneven",
        parts_at_a_time: int = 0,
        views: Views = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0 .. world_size - 1 = {world_size - 1}")
        if remainder not in ("uneven", "drop", "pad"):
            raise ValueError(f"remainder must be 'uneven', 'drop' or 'pad', not {remainder!r}")
        launched = launched_rank()[1]
        if world_size == 1 and launched > 1:
            warnings.warn(
                f"{launched} processes were started together, but this loader gives every row to every process; pass "
                "rank and world_size to share them out",
                stacklevel=2,
            )
        self.store = store
        self.batch_size = batch_size
        self.ordered = OrderedRows(store, rows, shuffle, seed, parts_at_a_time, views)
        self._rank = rank
        self._world_size = world_size
        self._remainder = remainder
        self._epoch = 0
        self._begun = [Leg(world_size)]
        self._steps_done = 0
        self._worker: tuple[int, int, int] | None = None
        self._resumes = False
        self._all_taken = False
        self._loads = 0
        # Workers see it change: whether forked or spawned, and also those that stay for the next epoch.
        self._shared = torch.tensor([0, _NO_EPOCH, 0]).share_memory_()

    @classmethod
    def from_config(
        cls,
        path: str | os.PathLike[str],
        *,
        set: Sequence[str] = (),
        store: TokenStore | None = None,
        **options: Any,
    ) -> "TokenLoader":
        """The loader of a YAML configuration: its store is `tokenize.store`, its arguments those of section `loader`.

            loader = TokenLoader.from_config("my.yaml", rank=rank, world_size=world_size)
            store = loader.store

        Other sections are not read: the images, and environment variables that name them, need not be there. Relative
        paths are relative to the working folder, as they are for `vqtok`.

        Args:
            path: the YAML file.
            set: overrides such as `loader.batch_size=64`, as `vqtok --set` takes them.
            store: read this open store instead, such as one with a cache.
            options: arguments of TokenLoader, which go before those of the file; rank and world_size are never in it.

        Raises ConfigError naming the file, the field and what would be right; StoreError, IncompleteStore and
        CorruptStore naming the file and the store; and what the constructor raises.
        """
        config = load_reader_config(path, set)
        if store is None:
            store = _open(config.tokenize.store, path)
        return cls(store, **{**config.loader.model_dump(), **options})

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return self._steps([Leg(self._world_size)])

    def __iter__(self) -> Iterator[TokenBatch]:
        info = get_worker_info()
        return self._of_worker(info.id, info.num_workers) if info else self._own()

    def _own(self) -> Iterator[TokenBatch]:
        if self._all_taken:  # whoever counts batches does not ask for one beyond the last
            self.set_epoch(self._epoch + 1)
        self._shared[_BEGUN] = _NO_EPOCH
        epoch, steps = self._epoch, self._steps(self._stages)
        for step, batch in enumerate(self._batches(epoch, self._stages), start=1):
            self._steps_done += 1
            self._all_taken = step == steps
            yield batch
        self.set_epoch(epoch + 1)

    def _of_worker(self, number: int, count: int) -> Iterator[TokenBatch]:
        """The share of a worker of a `DataLoader`: of the epoch of the loader that this is a copy of, or, with the
        state of a worker, what is left of that worker's share."""
        if self._resumes:
            self._resumes = False
        elif self._loads == int(self._shared[_LOADS]):
            self.set_epoch(int(self._shared[_EPOCH]))
            self._worker = None
        else:
            return _failing(
                StoreError(
                    "the loader was given a state after these persistent workers were started; make a new DataLoader"
                )
            )
        *of, done = self._worker or (number, count, 0)
        if of != [number, count]:
            raise StoreError(
                f"the loader's state is of worker {of[0]} of {of[1]}, this is worker {number} of {count}; resume with "
                "the same number of workers, or from TokenLoader.state_after"
            )
        # At once, not with the first batch: a StatefulDataLoader takes the state before that.
        self._worker = number, count, done
        self._shared[_BEGUN] = self._shared[_EPOCH]
        return self._share(number, count, done)

    def _share(self, number: int, count: int, done: int) -> Iterator[TokenBatch]:
        epoch = self._epoch
        for step, rows in enumerate(self._located(epoch, self._stages, self.batch_size)):
            if step % count == number and step >= done * count:
                batch = self._filled(epoch, self.store.batch(rows, self.ordered.views.whole))
                self._worker = number, count, step // count + 1
                yield batch

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; where the loader is in it already, it stays there."""
        if epoch != self._epoch:
            self._move(epoch, [Leg(self._world_size)])

    def _move(self, epoch: int, stages: list[Leg]) -> None:
        self._epoch, self._begun, self._steps_done = epoch, stages, 0
        self._worker, self._all_taken = None, False
        if not get_worker_info():
            self._shared[_EPOCH], self._shared[_BEGUN] = epoch, _NO_EPOCH

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: a few numbers that are the same on every rank after equally many steps.

        Raises StoreError while the workers of a `DataLoader` iterate over copies of this loader, for it stands still.
        """
        if not get_worker_info() and self._epoch == int(self._shared[_BEGUN]):
            raise StoreError(
                f"epoch {self._epoch} is being iterated by workers of a DataLoader, over copies of this loader: use "
                "state_after(steps) with the number of batches so far"
            )
        return self._state()

    def _state(self, steps: int = 0) -> dict[str, Any]:
        state = {
            **self.ordered.identity,
            "epoch": self._epoch,
            "stages": [[stage.world_size, stage.taken] for stage in self._stages_after(steps)],
        }
        return {**state, "worker": list(self._worker)} if self._worker else state

    def state_after(self, steps: int) -> dict[str, Any]:
        """The state after so many batches from where the loader stands.

        For loops that count themselves, because the workers of a `DataLoader` iterate over copies of this loader.
        """
        return self._state(steps)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken: the rows not seen in its epoch come next.

        At any world size and batch size: what is left is shared out anew. Takes no time.

        Raises StoreError naming what differs when the state is of another store or another order.
        """
        present = self._state()
        missing = present.keys() - state.keys() - {"worker", "views"}
        if missing:
            raise StoreError(f"the loader's state has no {', '.join(sorted(missing))}: it is not that of a TokenLoader")
        self.ordered.check(state, "loader")
        worker = worker_of(state, "loader")
        stages = [Leg(int(world_size), int(taken)) for world_size, taken in state["stages"]]
        if not stages[-1].taken:
            stages.pop()
        if not stages or stages[-1].world_size != self._world_size:
            stages.append(Leg(self._world_size))
        self._move(int(state["epoch"]), stages)
        self._worker = worker
        if get_worker_info():
            self._resumes = True
        else:
            self._shared[_LOADS] += 1
            self._loads = int(self._shared[_LOADS])

    @property
    def place(self) -> tuple[int, int]:
        """Rank and number of ranks."""
        return self._rank, self._world_size

    @property
    def _stages(self) -> list[Leg]:
        """Where the loader stands in its epoch."""
        return self._stages_after(0)

    def _stages_after(self, steps: int) -> list[Leg]:
        *before, now = self._begun
        return [*before, Leg(now.world_size, now.taken + (self._steps_done + steps) * self.batch_size)]

    def _steps(self, stages: list[Leg]) -> int:
        """Batches of this rank from now to the end of the epoch."""
        lengths = [sum(map(len, lane)) for lane in lanes(len(self.ordered), stages)]
        taken, size = stages[-1].taken, self.batch_size
        own, least, most = (max(length - taken, 0) for length in (lengths[self._rank], min(lengths), max(lengths)))
        return {"uneven": -(-own // size), "drop": least // size, "pad": -(-most // size)}[self._remainder]

    def _batches(self, epoch: int, stages: list[Leg]) -> Iterator[TokenBatch]:
        """All batches from now to the end of the epoch."""
        several = max(_GATHERED_ROWS // self.batch_size, 1)
        for rows in self._located(epoch, stages, several * self.batch_size):
            batches = self.store.batches_of(rows, self.batch_size, self.ordered.views.whole)
            yield from (self._filled(epoch, batch) for batch in batches) if self._remainder == "pad" else batches

    def _located(self, epoch: int, stages: list[Leg], size: int) -> Iterator[Located]:
        """The rows of all batches from now to the end of the epoch, so many at a time, which are whole batches."""
        steps = self._steps(stages)
        lane = lanes(len(self.ordered), stages)[self._rank]
        segments = cut(lane, stages[-1].taken, len(self.ordered))
        windows = self.ordered.windows(epoch, stages[0].world_size, segments)
        for rows in in_batches(windows, size) if steps else ():
            wanted = rows[: steps * self.batch_size]
            steps -= -(-len(wanted) // self.batch_size)
            yield wanted
            if not steps:
                return
        for _ in range(steps):  # with `pad`: this rank has no row for the batch that others fill
            yield self.ordered.locate(np.empty(0, np.int64))

    def _filled(self, epoch: int, batch: TokenBatch) -> TokenBatch:
        """A batch; with `pad` always of the full size."""
        if self._remainder != "pad":
            return batch
        count = len(batch)
        rows = batch.row if count else self.ordered.locate(np.zeros(1, np.int64)).rows
        places = np.arange(self.batch_size)
        full = batch
        if count < self.batch_size:
            filling = self.store.locate(rows[places.clip(max=len(rows) - 1)])
            full = self.store.batch(self.ordered.at_views(epoch, filling), self.ordered.views.whole)
        return replace(full, mask=torch.from_numpy(places < count))


def _open(store: str, config: str | os.PathLike[str]) -> TokenStore:
    """The store that a configuration names; errors name the configuration, too."""
    try:
        return TokenStore(store)
    except VqtokError as error:
        relative = not is_url(store) and not Path(store.removeprefix("file://")).expanduser().is_absolute()
        hint = f"; the path is relative to the working folder, which is {Path.cwd()}" if relative else ""
        raise type(error)(f"{config}: tokenize.store: {error}{hint}") from error


def _failing(error: StoreError) -> Iterator[TokenBatch]:
    """Raise with the first batch: from persistent workers torch passes on no error that comes before it."""
    raise error
    yield
