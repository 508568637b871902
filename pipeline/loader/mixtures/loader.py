"""`MixtureLoader`: rows of several stores in given proportions, from any point on.

schedule: which store (seed, position) ──▶ 0 1 0 0 2 ...
                                           │ │ │ │ │      each store in the order of its own loader,
store 0 ──▶ this rank's share of a pass ───┴─│─┴─┘ │      pass after pass, all ranks in step
store 1 ──▶ this rank's share of a pass ─────┘     │
store 2 ──▶ this rank's share of a pass ───────────┘ ──▶ MixedBatch
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.errors import StoreError
from pipeline.loader.epoch_rows import in_batches, worker_of
from pipeline.loader.loader import TokenLoader
from pipeline.loader.mixtures.merging import mixed_blocks
from pipeline.loader.mixtures.passes import Progress, Stretch, share, whole_share
from pipeline.loader.mixtures.schedule import Schedule
from pipeline.loader.mixtures.stores import MixedBatch, MixedStores, Offsets
from pipeline.loader.views import Views
from pipeline.overlap import prefetch
from pipeline.store.arrays.row_array import Located
from pipeline.store.reader import TokenStore

_BLOCKS_AHEAD = 8

_COUNTED_STEPS = 64
"""The passes are brought up to date once in so many steps."""


# What a mixture shares with its copies in workers: whether there are any, and how often it was given a state.
_IN_WORKERS, _LOADS = range(2)


@dataclass(frozen=True)
class _Position:
    """Where a mixture stands between two steps; the same on all ranks."""

    position: int
    """Rows that each rank has taken since the beginning."""
    delivered: int
    """Rows that all ranks have taken in this epoch."""
    stores: tuple[Progress, ...]


class MixtureLoader(IterableDataset[MixedBatch]):
    """Iterating gives batches without end, or of `rows_per_epoch`; the next iteration goes on where the last ended.

    A row is from store i with the probability weights[i], and any stretch of rows has the stores in these proportions
    up to a few rows. Of each store every row comes once per pass, over all ranks, and the next pass is in another
    order. All ranks make equally many steps, and all batches are full. Memory is that of one TokenLoader per store.
    Stores take turns on all ranks alike, so that a step of all ranks has a store of weight w in it about w * batch_size
    times on each: where that is less than one, only in some of the steps.

    A torch `DataLoader` may iterate it with `batch_size=None`, in the same order with any number of workers. They are
    copies that begin where this loader stands: before the next iteration, `load_state_dict(state_after(steps))`.
    Workers that stay (`persistent_workers=True`) go on by themselves with the next epoch; where an epoch was left
    before its end, and after `load_state_dict`, they raise StoreError, and it takes a new DataLoader.

    Args:
        sources: open stores, or loaders of them, of which rows, order and seed count, and rank and world_size must
            be those of the mixture. A store is read as `TokenLoader(store, seed=seed + its number)` reads it.
        weights: for each store, a proportion of rows. 0 for a store that is not read; by default the number of rows,
            so that all passes end together.
        batch_size: rows of a batch of this rank.
        seed: what the mixture depends on, together with the position.
        rank: which of `world_size` processes this is.
        world_size: number of processes.
        offsets: None where all stores have one codebook. `stack` gives the tokens of each codebook a range of their
            own, and stores of one codebook the same; or what to add to the tokens of each store.
        rows_per_epoch: end an iteration after so many rows of all ranks together, less what fills no batch on every
            rank: 1000 in batches of 256 are 768, and the next iteration begins with row 769. Of stores of n_i rows
            the first is through after min(n_i / weight_i), all are after the maximum, for weights of sum 1.
        views: which view of each image, as for a TokenLoader; `random` draws anew in every pass of a store. Of loaders
            their own count, and either all or none of them give all views.

    Raises ValueError for senseless numbers, or views that a store does not have; StoreError where codebooks differ and
    there are no offsets, where block lengths differ, or numbers of views of which all are wanted, or for a store that
    has a weight and no rows.
    """

    def __init__(
        self,
        sources: Sequence[TokenStore | TokenLoader],
        weights: Sequence[float] | None = None,
        batch_size: int = 256,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        offsets: Offsets = None,
        rows_per_epoch: int | None = None,
        views: Views = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if rows_per_epoch is not None and rows_per_epoch < batch_size * world_size:
            raise ValueError(f"rows_per_epoch is {rows_per_epoch}, less than a batch of {batch_size} on every rank")
        self._loaders = [
            source
            if isinstance(source, TokenLoader)
            else TokenLoader(source, batch_size, seed=seed + number, rank=rank, world_size=world_size, views=views)
            for number, source in enumerate(sources)
        ]
        for number, loader in enumerate(self._loaders):
            if (loader.rank, loader.world_size) != (rank, world_size):
                raise ValueError(
                    f"loader {number} is rank {loader.rank} of {loader.world_size}, the mixture rank {rank} of "
                    f"{world_size}; make the loaders with the rank and world_size of the mixture"
                )
            if loader.label_dropout.probability:
                raise ValueError(f"loader {number} drops labels, which a mixture does not: drop those of batch.label")
        self.stores = MixedStores([loader.store for loader in self._loaders], offsets)
        """The stores as one, in whose numbering `batch.row` is."""
        self._whole = _give_whole_rows(self._loaders)
        self.batch_size = batch_size
        self.weights = _normalised(weights, self._loaders)
        """Proportions of the stores, of sum 1."""
        self._rows_per_epoch = rows_per_epoch
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._schedule = Schedule(self.weights, seed)
        self._begin = _Position(0, 0, (Progress(0, (Stretch(world_size),)),) * len(self._loaders))
        self._steps = 0
        self._worker: tuple[int, int, int] | None = None
        self._all_taken = False
        self._resumes = False
        self._loads = 0
        self._shared = torch.zeros(2, dtype=torch.int64).share_memory_()

    @property
    def vocab_size(self) -> int:
        """Every token of the mixture is below it."""
        return self.stores.vocab_size

    @property
    def codebook(self) -> Tensor:
        """float32 [vocab_size, C]; with offsets the stores' codebooks above each other, NaN where no token can be."""
        return self.stores.codebook

    @property
    def passes(self) -> list[float]:
        """How often each store has been gone through."""
        return [
            progress.number + progress.delivered / max(len(loader.ordered), 1)
            for progress, loader in zip(self._now().stores, self._loaders, strict=True)
        ]

    def idxBl_to_var_input(self, idx_Bl: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """Blocks of [B, L_i] as the embedding sequence x_BLC, [B, L_total, C] of `dtype` on their device.

        Raises StoreError where stores have embeddings of different lengths, or of another rule than a lookup;
        TokenizerError for an index outside the vocabulary.
        """
        return self.stores.idxBl_to_var_input(idx_Bl, dtype)

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank. Raises TypeError where iterations do not end."""
        if self._rows_per_epoch is None:
            raise TypeError("a mixture without rows_per_epoch has no end")
        return self._rows_per_epoch // (self.batch_size * self._world_size)

    def __iter__(self) -> Iterator[MixedBatch]:
        info = get_worker_info()
        number, count = (info.id, info.num_workers) if info else (0, 1)
        if info:
            self._check_worker(number, count)
        self._shared[_IN_WORKERS] = info is not None
        if self._all_taken:  # whoever counts batches does not ask for one beyond the last
            self._next_epoch(self._now())
        done = self._worker[2] if self._worker else 0
        place = self._after(self._now(), done * count)
        steps = self._steps_left(place)
        with closing(prefetch(self._blocks(place), _BLOCKS_AHEAD)) as blocks:
            for step, located in enumerate(islice(in_batches(blocks, self.batch_size), steps)):
                if step % count != number:
                    continue
                done += 1
                if info:
                    self._worker = number, count, done
                else:
                    self._step()
                    self._all_taken = step + 1 == steps
                yield self.stores.batch(located, self._whole)
        assert steps is not None
        self._next_epoch(self._after(place, steps))

    def _check_worker(self, number: int, count: int) -> None:
        """Raises StoreError in a worker that would not go on where the other workers do."""
        resumes, self._resumes = self._resumes, False
        if self._worker and self._worker[:2] != (number, count):
            raise StoreError(
                f"the mixture's state is of worker {self._worker[0]} of {self._worker[1]}, this is worker {number} of "
                f"{count}; resume with the same number of workers, or from MixtureLoader.state_after"
            )
        if resumes:
            return
        if self._loads != int(self._shared[_LOADS]):
            raise StoreError(
                "the mixture was given a state after these persistent workers were started; make a new DataLoader"
            )
        if self._worker:
            raise StoreError(
                "the last iteration was left before its end, and these persistent workers had read ahead, one further "
                "than another; load_state_dict(state_after(steps)), then make a new DataLoader"
            )

    def state_dict(self) -> dict[str, Any]:
        """Where the mixture stands: a few numbers for each store, the same on every rank after equally many steps.

        Raises StoreError once the workers of a `DataLoader` iterate over copies of this loader, for it stands still.
        """
        if self._shared[_IN_WORKERS] and not get_worker_info():
            raise StoreError(
                "workers of a DataLoader iterate over copies of this mixture: use state_after(steps) with the number "
                "of batches so far"
            )
        state = self._state(self._now())
        return {**state, "worker": list(self._worker)} if self._worker else state

    def state_after(self, steps: int) -> dict[str, Any]:
        """The state after so many batches from where the mixture stands.

        For loops that count themselves, because the workers of a `DataLoader` iterate over copies of this loader.
        After the last batch of an epoch it is the beginning of the next.
        """
        place = self._now()
        while (left := self._steps_left(place)) is not None and 0 < steps >= left:
            place, steps = replace(self._after(place, left), delivered=0), steps - left
        return self._state(self._after(place, steps))

    def load_state_dict(self, state: dict[str, Any], new_weights: bool = False) -> None:
        """Go on where `state` was taken: the rows not seen in the passes that are begun come next.

        At any world size and batch size. Takes no time. With `new_weights` the proportions may be others from here on.

        Raises StoreError naming what differs when the state is of other stores, another order or other weights.
        """
        present = self._state(self._now())
        missing = present.keys() - state.keys()
        if missing:
            raise StoreError(f"the state has no {', '.join(sorted(missing))}: it is not that of a MixtureLoader")
        if len(state["stores"]) != len(self._loaders):
            raise StoreError(
                f"the mixture's state is of {len(state['stores'])} stores, this is of {len(self._loaders)}"
            )
        for name in ("seed", "offsets", *([] if new_weights else ["weights"])):
            if state[name] != present[name]:
                remedy = "; load_state_dict(state, new_weights=True) goes on with others" if name == "weights" else ""
                raise StoreError(f"the mixture's state has {name} {state[name]}, this mixture {present[name]}{remedy}")
        for loader, theirs in zip(self._loaders, state["stores"], strict=True):
            loader.ordered.check(theirs, "mixture")
        worker = worker_of(state, "mixture")
        progress = [
            Progress(
                int(own["pass"]), tuple(Stretch(int(size), int(delivered)) for size, delivered in own["stretches"])
            )
            for own in state["stores"]
        ]
        places = tuple(own.at(self._world_size) for own in progress)
        self._begin, self._steps = _Position(int(state["position"]), int(state["delivered"]), places), 0
        self._all_taken = False
        self._worker = worker
        if get_worker_info():
            self._resumes = True
        else:
            self._shared[_IN_WORKERS] = False
            self._shared[_LOADS] += 1
            self._loads = int(self._shared[_LOADS])

    def _state(self, place: _Position) -> dict[str, Any]:
        return {
            "stores": [
                {
                    **loader.ordered.identity,
                    "pass": own.number,
                    "stretches": [[stretch.world_size, stretch.delivered] for stretch in own.stretches],
                }
                for loader, own in zip(self._loaders, place.stores, strict=True)
            ],
            "weights": list(self.weights),
            "seed": self._seed,
            "offsets": list(self.stores.offsets),
            "position": place.position,
            "delivered": place.delivered,
        }

    def _next_epoch(self, place: _Position) -> None:
        self._begin, self._steps, self._worker, self._all_taken = replace(place, delivered=0), 0, None, False

    def _step(self) -> None:
        self._steps += 1
        if self._steps == _COUNTED_STEPS:
            self._begin, self._steps = self._now(), 0

    def _now(self) -> _Position:
        return self._after(self._begin, self._steps)

    def _after(self, place: _Position, steps: int) -> _Position:
        rounds = steps * self.batch_size
        counts = self._schedule.counts(place.position, rounds)
        return _Position(
            place.position + rounds,
            place.delivered + rounds * self._world_size,
            tuple(
                own.after(count, len(loader.ordered)) if count else own
                for own, count, loader in zip(place.stores, counts, self._loaders, strict=True)
            ),
        )

    def _steps_left(self, place: _Position) -> int | None:
        if self._rows_per_epoch is None:
            return None
        return max(self._rows_per_epoch - place.delivered, 0) // (self.batch_size * self._world_size)

    def _blocks(self, place: _Position) -> Iterator[Located]:
        """This rank's rows without end, numbered through all stores."""
        windows = [self._windows(number, own) for number, own in enumerate(place.stores)]
        return mixed_blocks(windows, self.stores.starts, self._schedule, place.position)

    def _windows(self, number: int, progress: Progress) -> Iterator[Located]:
        """This rank's rows of one store, pass after pass."""
        loader = self._loaders[number]
        own, first = share(progress, self._rank, len(loader.ordered))
        while True:
            yield from loader.ordered.windows(own.number, own.world_size, own.segments)
            own, first = whole_share(own.number + 1, self._world_size, self._rank, first, len(loader.ordered))


def _give_whole_rows(loaders: Sequence[TokenLoader]) -> bool:
    """Whether batches have all views of each image. Raises ValueError, StoreError where loaders do not go together."""
    whole = [loader.ordered.views.whole for loader in loaders]
    if len(set(whole)) > 1:
        raise ValueError(f"loaders {[n for n, gives in enumerate(whole) if gives]} give all views, the others do not")
    first = loaders[0].store
    for store in (loader.store for loader in loaders) if whole[0] else ():
        if store.num_views != first.num_views:
            raise StoreError(
                f"{first.root} has {first.num_views} views of each image, {store.root} has {store.num_views}: no batch "
                "holds all of both; take views='random', or a number"
            )
    return whole[0]


def _normalised(weights: Sequence[float] | None, loaders: Sequence[TokenLoader]) -> tuple[float, ...]:
    rows = [len(loader.ordered) for loader in loaders]
    given = [float(weight) for weight in (rows if weights is None else weights)]
    if len(given) != len(loaders):
        raise ValueError(f"{len(given)} weights for {len(loaders)} stores")
    total = sum(given)
    if not all(weight >= 0 for weight in given) or not 0 < total < math.inf:
        raise ValueError(f"weights must be finite, not negative, and not all 0, but are {given}")
    for loader, weight, count in zip(loaders, given, rows, strict=True):
        if weight and not count:
            raise StoreError(f"{loader.store.root}: no rows to give the mixture; leave it out, or give it the weight 0")
    return tuple(weight / total for weight in given)
