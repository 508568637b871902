"""`TokenLoader`: every row of a store once per epoch, over any number of ranks, from any point on."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from torch.utils.data import IterableDataset, get_worker_info

from pipeline.errors import StoreError
from pipeline.loader.arguments import open_store, place_of, probability, transform_of
from pipeline.loader.batching import Batching
from pipeline.loader.collating import refuse_collating
from pipeline.loader.configured import options_of, store_of
from pipeline.loader.dropout import LabelDropout, TextDropout
from pipeline.loader.epoch_rows import OrderedRows, worker_of
from pipeline.loader.epochs import Rows
from pipeline.loader.position import Position, Remainder, Steps
from pipeline.loader.prepared import refuse_sharing
from pipeline.loader.shared import Shared, warn_of_a_second_time
from pipeline.loader.states import check_names, damage_named
from pipeline.loader.views import Views
from pipeline.records import NO_LABEL
from pipeline.store.batch import TokenBatch
from pipeline.store.reader import TokenStore
from pipeline.store.requested import flag, whole_number

Transform = Callable[[TokenBatch], Any]


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
            make equally many steps. By default `uneven` for one rank and `pad` for several, where a rank that makes a
            step more than another would wait for ever: less than batch_size * world_size rows of an epoch come twice.
        parts_at_a_time: shuffle chunks only among those of so many parts, for parts that are fetched as a whole;
            0 for all of them.
        views: of a store in which each image has several: a number, that view of each; `random`, another one of each
            image every epoch, which depends on seed, epoch and row alone; `all`, tokens are then [B, V, L_total], and B
            still counts images.
        label_dropout: the probability with which a label is dropped, for classifier-free guidance: anew every epoch,
            which depends on seed, epoch and row alone.
        null_label: what `batch.label` is for a label that was dropped, and for a row without one.
        text_dropout: the probability with which a text is dropped, likewise and independently: `batch.text` and
            TextImageSequences then have an empty one.
        transform: applied to every batch; what it returns is what comes, such as `TokenBatch.as_dict`. In workers of a
            `DataLoader` it runs in the worker.
        resume: whether an iteration goes on where the last ended. Without it each one begins with the first row of the
            epoch (that of `set_epoch`, 0 by default), and the loader keeps no position: for evaluation.

    Raises ValueError for a rank outside the world, a batch size below 1, a negative seed, rows that are not sorted
    row numbers of the store, a view that it does not have, or a probability outside 0 .. 1; TypeError for what is no
    open store, or cannot be called.
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
        remainder: Remainder | None = None,
        parts_at_a_time: int = 0,
        views: Views = 0,
        label_dropout: float = 0.0,
        null_label: int = NO_LABEL,
        text_dropout: float = 0.0,
        transform: Transform | None = None,
        resume: bool = True,
    ) -> None:
        self._options = {name: value for name, value in locals().items() if name not in ("self", "store", "__class__")}
        self.store = open_store(store)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        """Rows of a batch of this rank."""
        self.rank, self.world_size = place_of(rank, world_size)
        remainder = remainder or ("uneven" if self.world_size == 1 else "pad")
        if remainder not in ("uneven", "drop", "pad"):
            raise ValueError(f"remainder must be 'uneven', 'drop' or 'pad', not {remainder!r}")
        self.ordered = OrderedRows(store, rows, flag("shuffle", shuffle), seed, parts_at_a_time, views)
        self._steps = Steps(len(self.ordered), self.batch_size, remainder)
        self.label_dropout = LabelDropout(
            probability("label_dropout", label_dropout), whole_number("null_label", null_label), int(seed)
        )
        self.text_dropout = TextDropout(probability("text_dropout", text_dropout), int(seed))
        self._batching = Batching(store, self.ordered, self._steps, self.rank, self.label_dropout, self.text_dropout)
        self.transform = transform_of(transform)
        """What is applied to every batch."""
        self._resume = flag("resume", resume)
        self._begun = Position.beginning(0, self.world_size)
        self._steps_done = 0
        self._iteration: object = None
        self._worker: tuple[int, int, int] | None = None
        self._is_resumed = self._resumes = self._all_taken = False
        self._shared = Shared()
        self._loads, self._moves = self._shared.loads, self._shared.moves
        if rows is not None and not len(self.ordered) and len(store):
            warnings.warn(
                f"no rows of the {len(store):,} of {store.root} are chosen: there are no batches", stacklevel=2
            )
        if remainder == "drop" and len(self.ordered) and not len(self):
            warnings.warn(
                f"{len(self.ordered):,} rows fill no batch of {batch_size} on each of {world_size} ranks, and "
                "remainder='drop' leaves out what fills none: there are no batches; choose a smaller batch_size",
                stacklevel=2,
            )

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
        tokenize, of_file = options_of(path, set)
        return cls(store_of(tokenize, path) if store is None else store, **{**of_file, **options})

    def evaluation(self, **changes: Any) -> "TokenLoader":
        """A loader of the same rows for evaluation: in the order of the store, from the first row at every `iter()`.

        It keeps no position and drops no label or text. Of several views that are drawn at random it gives the first,
        and with several ranks it pads.

        Args:
            changes: arguments of TokenLoader that shall be others, such as `rows=held_out`.
        """
        views = 0 if self.ordered.views.which == "random" else self.ordered.views.which
        fixed: dict[str, Any] = {"shuffle": False, "views": views, "remainder": None, "resume": False}
        fixed |= {"label_dropout": 0.0, "text_dropout": 0.0}
        return type(self)(self.store, **{**self._options, **fixed, **changes})

    def __repr__(self) -> str:
        stands = f"epoch {self.epoch}, {self.steps_done} of {len(self)} steps done" if self._resume else "resume=False"
        return (
            f"{type(self).__name__}({self.store.root}: {len(self.ordered):,} rows, batches of {self.batch_size}, "
            f"rank {self.rank} of {self.world_size}, {stands})"
        )

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank, also where less is left of this one: that is `steps_left`."""
        return self._steps.left(Position.beginning(0, self.world_size), self.rank)

    @property
    def epoch(self) -> int:
        """The epoch that the loader stands in, from 0."""
        return self._begun.epoch

    @property
    def steps_left(self) -> int:
        """Batches of this rank from here to the end of the epoch; what workers have taken it does not know."""
        return self._steps.left(self._position, self.rank)

    @property
    def steps_done(self) -> int:
        """Batches of this rank in this epoch so far, of the present size: what `steps_left` lacks of a whole epoch."""
        return len(self) - self.steps_left

    def __iter__(self) -> Iterator[TokenBatch]:
        refuse_collating()
        refuse_sharing(self.world_size, self.transform)
        info = get_worker_info()
        batches = self._of_worker(info.id, info.num_workers) if info else self._own()
        # The type is that of loaders without a transform.
        return batches if self.transform is None else cast("Iterator[TokenBatch]", map(self.transform, batches))

    def _own(self) -> Iterator[TokenBatch]:
        if self._all_taken:  # whoever counts batches does not ask for one beyond the last
            self._move(Position.beginning(self.epoch + 1, self.world_size))
        self._shared.iterated_here()
        position = self._position
        if not self._resume:
            yield from self._batching.batches(position)
            return
        steps = self._steps.left(position, self.rank)
        # An iterator moves the loader as long as no other was begun, and the loader was not moved otherwise.
        self._iteration = own = object()
        for step, batch in enumerate(self._batching.batches(position), start=1):
            if self._iteration is own:
                self._steps_done += 1
                self._is_resumed, self._all_taken = False, step == steps
            yield batch
        if self._iteration is own:
            self._move(Position.beginning(position.epoch + 1, self.world_size))

    def _of_worker(self, number: int, count: int) -> Iterator[TokenBatch]:
        """The share of a worker of a `DataLoader`: of the epoch of the loader that this is a copy of, or, with the
        state of a worker, what is left of that worker's share."""
        if self._resumes:
            self._resumes = False
        elif self._loads == self._shared.loads:
            if self._moves != self._shared.moves:
                self._move(Position.beginning(self._shared.epoch, self.world_size))
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
        if self._resume:
            # At once, not with the first batch: a StatefulDataLoader takes the state before that.
            self._worker = number, count, done
            if self._shared.begin_in_worker(number):
                warn_of_a_second_time(self.epoch)
        return self._share(number, count, done)

    def _share(self, number: int, count: int, done: int) -> Iterator[TokenBatch]:
        position = self._position
        for step, rows in enumerate(self._batching.located(position, self.batch_size)):
            if step % count == number and step >= done * count:
                batch = self._batching.batch(position, rows)
                if self._resume:
                    self._worker = number, count, step // count + 1
                yield batch

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, also back to that of the present one.

        A loader that was given a state of this very epoch, and has not gone on since, stays there: so loops may call it
        before every epoch whether they resume or not.

        Raises ValueError for what is no epoch, StoreError as an iteration does.
        """
        refuse_sharing(self.world_size, self.transform)
        epoch = whole_number("epoch", epoch, 0)
        if not (self._is_resumed and epoch == self.epoch and not self._shared.in_workers):
            self._move(Position.beginning(epoch, self.world_size))

    def _move(self, position: Position) -> None:
        self._begun, self._steps_done, self._iteration = position, 0, None
        self._worker, self._all_taken, self._is_resumed = None, False, False
        self._moves = self._shared.moves if get_worker_info() else self._shared.moved(position.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: a few numbers that are the same on every rank after equally many steps.

        Raises StoreError while the workers of a `DataLoader` iterate over copies of this loader, for it stands still.
        """
        if not get_worker_info() and self._shared.in_workers:
            raise StoreError(
                f"epoch {self.epoch} is being iterated by workers of a DataLoader, over copies of this loader: use "
                "state_after(steps) with the number of batches so far"
            )
        return self._state(self._position)

    def state_after(self, steps: int) -> dict[str, Any]:
        """The state after so many batches from where the loader stands, also beyond the end of the epoch.

        For loops that count themselves, because the workers of a `DataLoader` iterate over copies of this loader.

        Raises ValueError for a negative number.
        """
        return self._state(self._steps.after(self._position, whole_number("steps", steps, 0)))

    def _state(self, position: Position) -> dict[str, Any]:
        state = {**self.ordered.identity, **position.tree}
        return {**state, "worker": list(self._worker)} if self._worker else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken: the rows not seen in its epoch come next.

        At any world size and batch size: what is left is shared out anew. Takes no time.

        Raises StoreError naming what differs when the state is of another store or another order, and for one in the
        middle of an epoch where the loader keeps no position (`resume=False`).
        """
        check_names(state, self._state(self._position).keys() - {"worker", "views"}, "loader", "TokenLoader")
        self.ordered.check(state, "loader")
        worker = worker_of(state, "loader")
        with damage_named("loader"):
            position = Position.resumed(state, self.world_size)
        if not self._resume and (worker or any(stage.taken for stage in position.stages)):
            raise StoreError("this loader keeps no position (resume=False); give the state to the one for training")
        self._move(position)
        self._worker, self._is_resumed = worker, True
        if get_worker_info():
            self._resumes = True
        else:
            self._loads = self._shared.loaded()

    @property
    def _position(self) -> Position:
        """Where the loader stands."""
        return self._begun.taken(self._steps_done * self.batch_size)


def _failing(error: StoreError) -> Iterator[TokenBatch]:
    """Raise with the first batch: from persistent workers torch passes on no error that comes before it."""
    raise error
    yield
