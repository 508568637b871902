"""`MixtureLoader`: rows of several stores in given proportions, from any point on."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.errors import StoreError
from pipeline.loader.arguments import transform_of
from pipeline.loader.collating import refuse_collating
from pipeline.loader.epoch_rows import worker_of
from pipeline.loader.loader import TokenLoader, Transform
from pipeline.loader.mixtures.batching import MixedBatching
from pipeline.loader.mixtures.position import Course, Position, following
from pipeline.loader.mixtures.schedule import Schedule
from pipeline.loader.mixtures.sources import check_places, check_sources, give_whole_rows, normalised
from pipeline.loader.mixtures.state import check_state, place_in, state_of
from pipeline.loader.mixtures.stores import MixedBatch, MixedStores, Offsets
from pipeline.loader.mixtures.workers import check_worker
from pipeline.loader.prepared import refuse_sharing
from pipeline.loader.shared import Shared, warn_of_a_second_time
from pipeline.loader.states import damage_named
from pipeline.loader.views import Views
from pipeline.records import NO_LABEL
from pipeline.store.reader import TokenStore
from pipeline.store.requested import flag, whole_number

_COUNTED_STEPS = 64
"""The passes are brought up to date once in so many steps."""

_OF_LOADERS = ("views", "label_dropout", "null_label", "text_dropout")
"""Arguments that loaders have for themselves."""


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
        sources: open stores, or loaders of them, of which rows, order, seed, views and what they drop count, and rank
            and world_size must be those of the mixture. A store is read as `TokenLoader(store, seed=seed + its number)`
            reads it.
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
        label_dropout: the probability with which a label is dropped, as for a TokenLoader, anew in every pass of a
            store. Of loaders their own count.
        null_label: what `batch.label` is for a label that was dropped, and for a row without one. Of loaders their own
            count.
        text_dropout: the probability with which a text is dropped, as for a TokenLoader, anew in every pass of a
            store. Of loaders their own count.
        transform: applied to every batch; what it returns is what comes.
        resume: whether an iteration goes on where the last ended. Without it each one begins with the first row of the
            epoch (that of `set_epoch`, 0 by default), and the mixture keeps no position: for evaluation.

    Raises ValueError for senseless numbers, views that a store does not have, or a loader with a transform of its own;
    StoreError where codebooks differ and there are no offsets, where block lengths differ, or numbers of views of which
    all are wanted, or for a store that has a weight and no rows.
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
        transform: Transform | None = None,
        label_dropout: float = 0.0,
        null_label: int = NO_LABEL,
        text_dropout: float = 0.0,
        resume: bool = True,
    ) -> None:
        self._options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.batch_size = batch_size = whole_number("batch_size", batch_size, 1)
        self.rank, self.world_size = whole_number("rank", rank), whole_number("world_size", world_size)
        self._seed = seed = whole_number("seed", seed, 0)
        if rows_per_epoch is not None and whole_number("rows_per_epoch", rows_per_epoch) < batch_size * world_size:
            raise ValueError(f"rows_per_epoch is {rows_per_epoch}, less than a batch of {batch_size} on every rank")
        of_stores: dict[str, Any] = {"rank": rank, "world_size": world_size, "views": views}
        of_stores |= {"label_dropout": label_dropout, "null_label": null_label, "text_dropout": text_dropout}
        check_sources(sources)
        self._loaders = [
            source
            if isinstance(source, TokenLoader)
            else TokenLoader(source, batch_size, seed=seed + number, **of_stores)
            for number, source in enumerate(sources)
        ]
        check_places(self._loaders, self.rank, self.world_size)
        self.stores = MixedStores([loader.store for loader in self._loaders], offsets)
        """The stores as one, in whose numbering `batch.row` is."""
        whole = give_whole_rows(self._loaders)
        self.weights = normalised(weights, self._loaders)
        """Proportions of the stores, of sum 1."""
        self._rows_per_epoch = None if rows_per_epoch is None else int(rows_per_epoch)
        self.transform = transform_of(transform)
        """What is applied to every batch."""
        self._resume = flag("resume", resume)
        schedule = Schedule(self.weights, seed)
        lengths = [len(loader.ordered) for loader in self._loaders]
        self._batching = MixedBatching(
            self._loaders, self.stores, schedule, batch_size, self.rank, self.world_size, whole
        )
        self._course = Course(schedule, lengths, batch_size, self.world_size, self._rows_per_epoch)
        self._begin = self._epoch_begin = self._course.beginning
        self._steps = 0
        self._iteration: object = None
        self._worker: tuple[int, int, int] | None = None
        self._all_taken = self._is_resumed = self._resumes = self._goes_on = False
        self._shared = Shared()
        self._loads, self._moves = self._shared.loads, self._shared.moves

    def evaluation(self, **changes: Any) -> "MixtureLoader":
        """A mixture of the same rows for evaluation: the same batches at every `iter()`, from the first row on.

        They have the stores in the same proportions, each in its own order, and as many rows as an epoch. It keeps no
        position and drops no label or text. Of several views that are drawn at random it gives the first.

        Args:
            changes: arguments of MixtureLoader that shall be others, such as `rows_per_epoch=10_000`; with other
                `sources`, such as loaders of held-out rows, those are taken as they are.

        Raises ValueError where iterations would not end, for there is no rows_per_epoch.
        """
        if changes.get("rows_per_epoch", self._rows_per_epoch) is None:
            raise ValueError("an evaluation needs an end: evaluation(rows_per_epoch=...)")
        own = {name: changes[name] for name in (*_OF_LOADERS, "rank", "world_size") if name in changes}
        fixed = {"sources": [loader.evaluation(**own) for loader in self._loaders], "resume": False}
        return type(self)(**{**self._options, **fixed, "label_dropout": 0.0, "text_dropout": 0.0, **changes})

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
        return self._course.steps

    def __repr__(self) -> str:
        roots = ", ".join(loader.store.root for loader in self._loaders)
        stands = f"{self.steps_done} steps done"
        if self._rows_per_epoch is not None:
            stands = f"epoch {self.epoch}, {self.steps_done} of {len(self)} steps done"
        if not self._resume:
            stands = "resume=False"
        return (
            f"{type(self).__name__}({len(self._loaders)} stores ({roots}), batches of {self.batch_size}, rank "
            f"{self.rank} of {self.world_size}, {stands})"
        )

    @property
    def epoch(self) -> int:
        """The epoch that the mixture stands in, from 0; always 0 without rows_per_epoch."""
        return self._begin.epoch

    @property
    def steps_done(self) -> int:
        """Batches of each rank in this epoch so far, of the present size."""
        return self._now().delivered // (self.batch_size * self.world_size)

    @property
    def steps_left(self) -> int | None:
        """Batches of each rank from here to the end of the epoch; None without rows_per_epoch."""
        return self._course.steps_left(self._now())

    def __iter__(self) -> Iterator[MixedBatch]:
        refuse_collating()
        refuse_sharing(self.world_size, self.transform)
        batches = self._batches()
        # The type is that of mixtures without a transform.
        return batches if self.transform is None else cast("Iterator[MixedBatch]", map(self.transform, batches))

    def _batches(self) -> Iterator[MixedBatch]:
        info = get_worker_info()
        number, count = (info.id, info.num_workers) if info else (0, 1)
        if info:
            self._begin_in_worker(number, count)
        else:
            self._shared.iterated_here()
        if self._all_taken:  # whoever counts batches does not ask for one beyond the last
            self._next_epoch(self._now())
        done = self._worker[2] if self._worker else 0
        place = self._course.after(self._now(), done * count)
        steps = self._course.steps_left(place)
        # An iterator moves the mixture as long as no other was begun, and the mixture was not moved otherwise.
        own = object()
        self._iteration = own if self._resume else None
        with closing(self._batching.located(place)) as located:
            for step, rows in enumerate(islice(located, steps)):
                if step % count != number:
                    continue
                done += 1
                if self._iteration is own:
                    if info:
                        self._worker = number, count, done
                    else:
                        self._step()
                    self._is_resumed, self._all_taken = False, not info and step + 1 == steps
                yield self._batching.batch(rows)
        assert steps is not None
        if self._iteration is own:
            self._next_epoch(self._course.after(place, steps))
            self._goes_on = info is not None

    def _begin_in_worker(self, number: int, count: int) -> None:
        """Go where the mixture that this is a copy of was told to go, and warn of what comes a second time."""
        has_newer_state = self._loads != self._shared.loads
        if self._moves != self._shared.moves and not has_newer_state:
            self._go(self._shared.epoch)
        resumes, self._resumes = self._resumes, False
        check_worker(self._worker, (number, count), resumes, has_newer_state)
        if self._resume and self._shared.begin_in_worker(number) and not (resumes or self._goes_on):
            warn_of_a_second_time(self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the mixture stands: a few numbers for each store, the same on every rank after equally many steps.

        Raises StoreError once the workers of a `DataLoader` iterate over copies of this loader, for it stands still.
        """
        if self._shared.in_workers and not get_worker_info():
            raise StoreError(
                "workers of a DataLoader iterate over copies of this mixture: use state_after(steps) with the number "
                "of batches so far"
            )
        state = self._state(self._now())
        return {**state, "worker": list(self._worker)} if self._worker else state

    def state_after(self, steps: int) -> dict[str, Any]:
        """The state after so many batches from where the mixture stands, also beyond the end of the epoch.

        For loops that count themselves, because the workers of a `DataLoader` iterate over copies of this loader.
        After the last batch of an epoch it is the end of that epoch, as `state_dict` has it then.

        Raises ValueError for a negative number.
        """
        return self._state(self._course.later(self._now(), whole_number("steps", steps, 0)))

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, so many rows from the present one as the epochs between have.

        A mixture that was given a state of this very epoch, and has not gone on since, stays there: so loops may call
        it before every epoch whether they resume or not. Later, the beginning of that epoch is where the state was
        taken; one before it is found as if ranks and batch size had always been the present ones.

        Raises ValueError for what is no epoch, or any but the first of a mixture without rows_per_epoch.
        """
        refuse_sharing(self.world_size, self.transform)
        epoch = whole_number("epoch", epoch, 0)
        if self._rows_per_epoch is None:
            if epoch:
                raise ValueError(
                    f"epoch {epoch} of a mixture without rows_per_epoch, which has no end; pass rows_per_epoch"
                )
        elif not (self._is_resumed and epoch == self.epoch and not self._shared.in_workers):
            self._go(epoch)

    def _go(self, epoch: int) -> None:
        if self._rows_per_epoch is not None:
            self._move(self._course.beginning_of(epoch, self._now(), self._epoch_begin))

    def _move(self, place: Position) -> None:
        self._begin, self._epoch_begin, self._steps = place, place, 0
        self._iteration = self._worker = None
        self._all_taken = self._is_resumed = self._goes_on = False
        self._moves = self._shared.moves if get_worker_info() else self._shared.moved(place.epoch)

    def load_state_dict(self, state: dict[str, Any], new_weights: bool = False) -> None:
        """Go on where `state` was taken: the rows not seen in the passes that are begun come next.

        At any world size and batch size. Takes no time. With `new_weights` the proportions may be others from here on.

        Raises StoreError naming what differs when the state is of other stores, another order or other weights, and for
        one in the middle of an epoch where the mixture keeps no position (`resume=False`).
        """
        check_state(state, self._state(self._now()), self._loaders, new_weights)
        worker = worker_of(state, "mixture")
        with damage_named("mixture"):
            place = place_in(state, self.world_size)
        if not self._resume and (worker or place.delivered):
            raise StoreError("this mixture keeps no position (resume=False); give the state to the one for training")
        self._move(place)
        self._worker, self._is_resumed = worker, True
        if get_worker_info():
            self._resumes = True
        else:
            self._loads = self._shared.loaded()

    def _state(self, place: Position) -> dict[str, Any]:
        return {
            **state_of(place, self._loaders),
            "weights": list(self.weights),
            "seed": self._seed,
            "offsets": list(self.stores.offsets),
        }

    def _next_epoch(self, end: Position) -> None:
        self._begin = self._epoch_begin = following(end, end.epoch + 1)
        self._steps, self._worker, self._all_taken, self._is_resumed = 0, None, False, False

    def _step(self) -> None:
        self._steps += 1
        if self._steps == _COUNTED_STEPS:
            self._begin, self._steps = self._now(), 0

    def _now(self) -> Position:
        return self._course.after(self._begin, self._steps)
