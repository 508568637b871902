"""The rows of a store, or some of them, in the order of any epoch, located ahead of their use."""

import hashlib
import reprlib
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from pipeline.errors import StoreError
from pipeline.loader.epochs import EpochOrder, Rows, Segment, Window
from pipeline.loader.views import ChosenViews, Views
from pipeline.store.arrays.located import Located
from pipeline.store.reader import TokenStore
from pipeline.store.requested import whole_number

WINDOWS_AHEAD = 2

_FIRST = 0


class OrderedRows:
    """What loaders take batches from.

    Args:
        store: an open store.
        rows: int64, sorted, without repeats: only these rows of the store; None for all.
        shuffle: another order every epoch; without it, the order of the store.
        seed: what the order depends on, together with the epoch and the number of ranks.
        parts_at_a_time: shuffle chunks only among those of so many parts; 0 for all of them.
        views: which view of each row; see TokenLoader.

    Raises ValueError for a negative seed, rows that are not sorted row numbers of the store, or views that it has not.
    """

    def __init__(
        self,
        store: TokenStore,
        rows: Sequence[int] | Rows | None,
        shuffle: bool,
        seed: int,
        parts_at_a_time: int,
        views: Views = 0,
    ) -> None:
        seed, parts_at_a_time = whole_number("seed", seed, 0), whole_number("parts_at_a_time", parts_at_a_time, 0)
        if store.cache is not None and not parts_at_a_time:
            _warn_of_a_small_cache(store)
        self._store = store
        self._rows = None if rows is None else checked_rows(rows, len(store))
        self._shuffle = bool(shuffle)
        self._seed = seed
        self._parts_at_a_time = parts_at_a_time
        self.views = ChosenViews.of(store, views, seed)

    def __len__(self) -> int:
        """Rows of an epoch, of all ranks together."""
        return len(self._store) if self._rows is None else len(self._rows)

    @property
    def identity(self) -> dict[str, Any]:
        """All that order and views depend on, besides the epoch and the number of ranks."""
        identity = {
            "content_digest": self._store.content_digest,
            "rows": self._selection,
            "shuffle": self._shuffle,
            "seed": self._seed,
            "parts_at_a_time": self._parts_at_a_time,
        }
        # The first view is what states mean that say nothing of views.
        return identity if self.views.which == _FIRST else {**identity, "views": self.views.which}

    def check(self, state: Mapping[str, Any], of: str) -> None:
        """Raises StoreError for the state `of` a loader or a mixture whose order of these rows is another."""
        compared = {"views": _FIRST, **state}
        for name, ours in {"views": _FIRST, **self.identity}.items():
            theirs = compared.get(name)
            if theirs != ours:
                grown = "; has the store grown? TokenStore(path, content_digest=...) reads it as it was"
                raise StoreError(
                    f"{self._store.root}: the {of}'s state has {name} {theirs!r}, this {of} {ours!r}"
                    f"{grown if name == 'content_digest' else ''}"
                )

    def locate(self, positions: Rows) -> Located:
        """The rows at int64 [n] positions of the unshuffled order, each at its first view."""
        return self._store.locate(self._numbers(positions))

    def at_views(self, epoch: int, located: Located) -> Located:
        """Rows, each at its view in an epoch."""
        return self._store.at_views(located, self.views.at(epoch, located.rows))

    def windows(self, epoch: int, world_size: int, segments: Sequence[Segment]) -> Iterator[Located]:
        """Rows of some segments of an epoch that begins with `world_size` ranks, each at its view, located ahead of
        their use."""
        chunk_starts, group_starts = self._starts
        order = EpochOrder(
            chunk_starts, world_size, self._shuffle, self._seed, epoch, group_starts, self._parts_at_a_time
        )
        windows = (window for segment in segments for window in order.windows(segment))
        begun: deque[Callable[[], Located]] = deque()
        for window in self._fetched(windows):
            begun.append(self._begin(window))
            if len(begun) > WINDOWS_AHEAD:
                yield self.at_views(epoch, begun.popleft()())
        while begun:
            yield self.at_views(epoch, begun.popleft()())

    def _begin(self, window: Window) -> Callable[[], Located]:
        """Begin to decode a window in threads of the store; returns what waits for it."""
        if self._rows is None:
            coming = self._store.begin_runs(window.starts, window.lengths)
            return lambda: coming()[window.order]
        return partial(self.locate, window.rows)

    def _fetched(self, windows: Iterable[Window]) -> Iterator[Window]:
        """The same windows, the parts of the next ones on their way into the store's cache."""
        waiting: deque[Window] = deque()
        for window in windows:
            self._store.fetch(self._numbers(window.starts))
            waiting.append(window)
            if len(waiting) > WINDOWS_AHEAD:
                yield waiting.popleft()
        yield from waiting

    def _numbers(self, positions: Rows) -> Rows:
        """Row numbers of the store."""
        return positions if self._rows is None else self._rows[positions]

    @cached_property
    def _starts(self) -> tuple[Rows, Rows]:
        """Positions where chunks with any of the rows begin, and the first such chunk of each part; with their ends."""
        chunks, parts = self._store.chunk_starts, self._store.part_starts
        if self._rows is not None:
            chunks, parts = np.searchsorted(self._rows, chunks), np.searchsorted(self._rows, parts)
        chunk_starts = np.unique(chunks)
        return chunk_starts, np.unique(np.searchsorted(chunk_starts, parts))

    @cached_property
    def _selection(self) -> str | None:
        """What tells one selection of rows from another."""
        return None if self._rows is None else hashlib.sha256(self._rows.tobytes()).hexdigest()


def in_batches(stretches: Iterable[Located], size: int) -> Iterator[Located]:
    """Cut stretches of rows into batches of `size`, across their borders; the last may be shorter."""
    rest: Located | None = None
    for stretch in stretches:
        start = 0
        if rest is not None:
            start = size - len(rest)
            rest += stretch[:start]
            if len(rest) < size:
                continue
            yield rest
        whole = start + (len(stretch) - start) // size * size
        for first in range(start, whole, size):
            yield stretch[first : first + size]
        rest = stretch[whole:] if whole < len(stretch) else None
    if rest is not None:
        yield rest


def _warn_of_a_small_cache(store: TokenStore) -> None:
    """A window of random chunks needs parts from all over the store."""
    assert store.cache is not None
    parts = [store.cache.bytes_of(part.bytes) for part in store.manifest.parts if part.written]
    if sum(parts) > store.cache.max_bytes:
        few = max(store.cache.max_bytes * len(parts) // sum(parts) // 2, 1)
        warnings.warn(
            f"the cache of {store.cache.max_bytes:,} bytes does not hold the store's {sum(parts):,}: parts will be "
            f"fetched again and again; pass parts_at_a_time={few}, the same on every rank",
            stacklevel=4,
        )


def checked_rows(rows: Sequence[int] | Rows, length: int) -> Rows:
    """Sorted row numbers of a store of `length` as int64 [n]. Raises ValueError for anything else."""
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        remedy = "; np.flatnonzero(mask) gives those of a mask" if numbers.dtype.kind == "b" else ""
        if isinstance(rows, slice):
            remedy = f"; range{rows.indices(length)} are those of a slice"
        raise ValueError(f"rows must be a sequence of row numbers, not {reprlib.repr(rows)}{remedy}")
    numbers = numbers.astype(np.int64)
    unknown = numbers[(numbers < 0) | (numbers >= length)]
    if unknown.size:
        raise ValueError(f"rows must be in 0 .. {length - 1}, the rows of the store, not {unknown[0]}")
    unsorted = np.flatnonzero(np.diff(numbers) <= 0)
    if unsorted.size:
        before, after = numbers[unsorted[0] :][:2]
        raise ValueError(
            f"rows must be sorted and without repeats, and {after} comes after {before}: np.unique(rows) gives them so"
        )
    return numbers


def worker_of(state: Mapping[str, Any], of: str) -> tuple[int, int, int] | None:
    """What the state `of` a loader or a mixture says of the worker of a DataLoader that it is from; None without one.

    Raises StoreError for the state of a worker outside workers.
    """
    worker = state.get("worker")
    if not worker:
        return None
    if not get_worker_info():
        raise StoreError(
            f"the {of}'s state is that of worker {worker[0]} of {worker[1]} of a DataLoader; give it to the "
            "StatefulDataLoader that it is from"
        )
    return int(worker[0]), int(worker[1]), int(worker[2])
