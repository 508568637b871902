"""Any rows of a store, gathered from the chunks of its parts.

    row numbers ──▶ chunks, mapped or decoded ──▶ the offset of each row in `space` ──▶ one gather

Rows lie in many files and many buffers. All of these lie in one range of addresses, from which numpy gathers rows in
one call.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from cachetools import LRUCache

from pipeline.overlap import Turns
from pipeline.store.arrays.chunked import ChunkedArray
from pipeline.store.arrays.opened import UNKNOWN, Opened
from pipeline.store.arrays.parts import Part
from pipeline.store.arrays.storage import chunk_rows_of
from pipeline.store.memory.buffers import in_space
from pipeline.store.memory.memory_map import in_memory, read_ahead
from pipeline.store.memory.space import space
from pipeline.store.types import Array

_MOST_MAPPED = 16_384
"""Parts that stay mapped: Linux allows a process 65,530 mappings (vm.max_map_count)."""

_LITTLE_BYTES = 1 << 20
"""A part of so many bytes takes a server hardly longer than one of its chunks."""

_SAMPLED = 8
"""Of so many mapped chunks it is asked whether they are in memory, before all are read ahead."""

_THREADS = min(4, os.cpu_count() or 1)
"""Of arrays whose files are here."""


@dataclass(frozen=True)
class Located:
    """Rows, and where they lie in memory."""

    rows: Array
    """int64 [n], row numbers of the store."""
    offsets: Array
    """int64 [n], in `space`."""
    memory: object
    """What keeps them there, as long as this lives."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Array) -> "Located":
        """Some of the rows."""
        if isinstance(which, slice):
            return Located(self.rows[which], self.offsets[which], self.memory)
        return Located(self.rows.take(which), self.offsets.take(which), self.memory)

    def __add__(self, other: "Located") -> "Located":
        """The rows of both."""
        return Located(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.offsets, other.offsets]),
            (self.memory, other.memory),
        )


class RowArray:
    """One array of all parts of a store, as if it were one.

    Args:
        parts: the parts, in order.
        path: of the array in each part.
        dtype: of its elements.
        row_shape: of a row.
        in_pieces: whether a row is gathered one piece at a time, those of its first dimension.
        cache_bytes: how much of decoded chunks to keep. Mapped files cost nothing and are not counted.
            Of what is read in runs, in an epoch, nothing is kept unless there is room for all.
        check_always: compare checksums whenever rows are located, not only the first time.
        keep_open: keep files mapped, which keeps their space on the disk if they are deleted.
        threads: how many chunks are read at a time.
        merged_bytes: neighbouring chunks are read together up to this size, where each read is a request.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        path: str,
        dtype: str,
        row_shape: tuple[int, ...] = (),
        in_pieces: bool = False,
        cache_bytes: int = 1 << 28,
        check_always: bool = False,
        keep_open: bool = True,
        threads: int = _THREADS,
        merged_bytes: int = 0,
    ) -> None:
        self._parts = parts
        self._path = path
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._row_bytes = self._dtype.itemsize * int(np.prod(row_shape))
        self._pieces, self._piece_shape = (row_shape[0], row_shape[1:]) if in_pieces else (1, row_shape)
        self._piece_bytes = self._row_bytes // self._pieces
        self._piece, self._row = np.dtype((np.void, self._piece_bytes)), np.dtype((np.void, self._row_bytes))
        self._row_shape = row_shape
        self._cache_bytes = cache_bytes
        self._has_room_for_all = self._row_bytes * sum(part.rows for part in parts) <= cache_bytes
        self._check_always = check_always
        self._keep_open = keep_open
        self._threads = threads
        self._merged_bytes = merged_bytes
        self._part_starts = np.concatenate([[0], np.cumsum([part.rows for part in parts])]).astype(np.int64)
        self.chunk_starts, self._part_of_chunk = _cut(self._part_starts, self._row_bytes)
        """int64 [chunks + 1]: chunk i holds the rows chunk_starts[i] to chunk_starts[i + 1]; none crosses parts."""
        self._begin()

    def _begin(self) -> None:
        """Forget all that is open; rows that were located stay readable."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._turns = Turns()
        self._pool: ThreadPoolExecutor | None = None
        self._open = Opened(len(self._part_of_chunk))
        self._decoded: LRUCache[int, _Chunk] = LRUCache(self._cache_bytes, getsizeof=lambda kept: kept.rows.nbytes)

    def gather(self, located: Located) -> Array:
        """The rows, [n, *row_shape], a copy; of rows in pieces the first one of each, [n, *row_shape[1:]]."""
        rows = space.gather(located.offsets, self._piece)
        return rows.view(self._dtype).reshape(len(located), *self._piece_shape)

    def gather_whole(self, located: Located) -> Array:
        """The rows with all of their pieces, [n, *row_shape], a copy."""
        return space.gather(located.offsets, self._row).view(self._dtype).reshape(len(located), *self._row_shape)

    def at_pieces(self, located: Located, pieces: int | Array) -> Located:
        """The same rows from another piece on, or from those of int64 [n]: what `gather` then gives.

        Each must be one that rows have.
        """
        if isinstance(pieces, int) and pieces == 0:
            return located
        return replace(located, offsets=located.offsets + pieces * self._piece_bytes)

    def locate(self, rows: Array) -> Located:
        """Map or decode the chunks of int64 [n] row numbers, all within the store.

        Safe to call from several threads. Raises CorruptStore naming part, chunk and remedy; StoreError where a
        file cannot be had.
        """
        origins, memory = self._origins(self.chunk_starts.searchsorted(rows, side="right") - 1, {})
        return Located(rows, origins + rows * self._row_bytes, memory)

    def read_ahead(self, rows: Array) -> None:
        """Have the operating system read the mapped chunks of int64 [n] rows, one in each, if it has dropped them.

        Returns at once. Where they are in memory still it takes some microseconds: a sample of the chunks is looked at.
        """
        opened = self._open.rows
        chunks = (self.chunk_starts.searchsorted(rows, side="right") - 1).tolist()
        mapped = [opened[chunk] for chunk in chunks if chunk in opened]
        step = max(len(mapped) // _SAMPLED, 1)
        if not all(map(in_memory, mapped[::step])):
            for data in mapped:
                read_ahead(data)

    def begin_runs(self, starts: Array, lengths: Array) -> Callable[[], Located]:
        """Begin to map or decode runs of consecutive rows, int64 [runs] each, every one within a chunk.

        Returns at once what waits for them, and raises then what `locate` raises.
        """
        chunks = np.searchsorted(self.chunk_starts, starts, side="right") - 1
        self._check_process()
        coming = self._start(self._missing(chunks), keep=self._has_room_for_all)

        def located() -> Located:
            origins, memory = self._origins(chunks, coming)
            first = starts - (np.cumsum(lengths) - lengths)  # row of each run, less its place among all rows
            rows, offsets = np.repeat(first, lengths), np.repeat(origins + first * self._row_bytes, lengths)
            places = np.arange(len(rows))
            rows += places
            places *= self._row_bytes  # in place, for the pages of fresh arrays take longer than the sums
            offsets += places
            return Located(rows, offsets, memory)

        return located

    def _check_process(self) -> None:
        if os.getpid() != self._pid:  # no thread survives a fork, nor a lock that another thread held
            self._begin()

    def _missing(self, chunks: Array) -> set[int]:
        """Which of these chunks are not mapped."""
        return set(chunks[self._open.origins[chunks] == UNKNOWN].tolist())

    def _origins(self, chunks: Array, coming: "_Coming") -> tuple[Array, object]:
        """Of each chunk, and what keeps the chunks where they are."""
        self._check_process()
        opened = self._open
        origins = opened.origins[chunks]
        missing = origins == UNKNOWN
        if not missing.any():
            return origins, opened
        wanted, places = np.unique(chunks[missing], return_inverse=True)
        loaded = {chunk: wait() for chunk, wait in coming.items()}
        loaded |= self._load(set(wanted.tolist()) - loaded.keys())
        origins[missing] = np.asarray([loaded[chunk].origin for chunk in wanted.tolist()])[places]
        return origins, (opened, loaded)

    def _load(self, chunks: set[int]) -> dict[int, "_Chunk"]:
        """Chunks by their number, several read at a time."""
        kept = self._kept_of(chunks)
        missing = chunks - kept.keys()
        if len(missing) == 1:
            return kept | {chunk: self._load_one(chunk, keep=True) for chunk in missing}
        return kept | {chunk: wait() for chunk, wait in self._read_in_threads(missing, keep=True).items()}

    def _start(self, chunks: set[int], keep: bool) -> "_Coming":
        """Begin to read chunks, those that are not kept."""
        kept = self._kept_of(chunks)
        coming: _Coming = {chunk: partial(_itself, loaded) for chunk, loaded in kept.items()}
        return coming | self._read_in_threads(chunks - kept.keys(), keep)

    def _kept_of(self, chunks: set[int]) -> dict[int, "_Chunk"]:
        """Those that are decoded and kept."""
        if not self._decoded:
            return {}
        with self._lock:
            found = {chunk: self._decoded.get(chunk) for chunk in chunks}
        return {chunk: loaded for chunk, loaded in found.items() if loaded is not None}

    def _read_in_threads(self, chunks: set[int], keep: bool) -> "_Coming":
        if not chunks:
            return {}
        with self._lock:
            pool = self._pool = self._pool or ThreadPoolExecutor(self._threads, "vqtok-chunks")
        coming: _Coming = {}
        for run in self._runs(sorted(chunks)):
            loaded = pool.submit(self._load_run, run, keep)
            coming |= {chunk: partial(_of, loaded, chunk) for chunk in run}
        return coming

    def _runs(self, chunks: Sequence[int]) -> Iterator[list[int]]:
        """Chunks, rising, together with those that follow in the same part, as far as they are to be merged."""
        run: list[int] = []
        for chunk in chunks:
            follows = run and chunk == run[-1] + 1 and self._part_of_chunk[chunk] == self._part_of_chunk[run[0]]
            rows = int(self.chunk_starts[chunk + 1] - self.chunk_starts[run[0] if run else chunk])
            if run and not (follows and rows * self._row_bytes <= self._merged_bytes):
                yield run
                run = []
            run.append(chunk)
        if run:
            yield run

    def _load_run(self, run: Sequence[int], keep: bool) -> "dict[int, _Chunk]":
        """Consecutive chunks of one part."""
        if len(run) == 1:
            return {run[0]: self._load_one(run[0], keep)}
        rows, first = in_space(self._read(run)[1]), int(self.chunk_starts[run[0]])
        loaded = {}
        for chunk in run:
            start, stop = (self.chunk_starts[chunk : chunk + 2] - first).tolist()
            loaded[chunk] = self._kept(chunk, self._placed(chunk, rows[start:stop]), keep)
        return loaded

    def _read(self, run: Sequence[int]) -> tuple[ChunkedArray, Array]:
        """The rows of consecutive chunks of one part, and the array that they are of."""
        number = int(self._part_of_chunk[run[0]])
        array, first = self._array(number, run), int(self._part_starts[number])
        start, stop = int(self.chunk_starts[run[0]]) - first, int(self.chunk_starts[run[-1] + 1]) - first
        return array, self._parts[number].read_range(self._path, array, start, stop)

    def _kept(self, number: int, chunk: "_Chunk", keep: bool) -> "_Chunk":
        """A chunk that lies in memory, kept there if that is wanted and there is room."""
        if keep and chunk.rows.nbytes <= self._decoded.maxsize and not self._check_always:
            with self._lock:
                self._decoded[number] = chunk
        return chunk

    def _load_one(self, chunk: int, keep: bool) -> "_Chunk":
        array, rows = self._read([chunk])
        if not array.mapped or rows.flags.owndata:
            return self._kept(chunk, self._placed(chunk, in_space(rows)), keep)
        loaded = self._placed(chunk, rows)
        if self._keep_open and not self._check_always:
            with self._lock:
                self._open.keep(chunk, loaded.rows, loaded.origin)
        return loaded

    def _placed(self, chunk: int, rows: Array) -> "_Chunk":
        rows = np.ascontiguousarray(rows)
        return _Chunk(rows, space.place(rows) - int(self.chunk_starts[chunk]) * self._row_bytes)

    def _array(self, number: int, run: Sequence[int]) -> ChunkedArray:
        """The array of a part, open; by the first of several threads that want it."""
        if not self._keep_open:
            return self._parts[number].array(self._path)
        if (known := self._open.arrays.get(number)) is not None:
            return known
        with self._turns.of(number):
            if (known := self._open.arrays.get(number)) is not None:
                return known
            array = self._parts[number].array(self._path, self._is_wanted_whole(number, run))
            with self._lock:
                if len(self._open.arrays) >= _MOST_MAPPED:
                    self._open = Opened(len(self._part_of_chunk))
                self._open.arrays[number] = array
            return array

    def _is_wanted_whole(self, number: int, run: Sequence[int]) -> bool:
        """Whether all of a part is best read at once: it is wanted, or is little and will be wanted and kept."""
        rows = self._parts[number].rows
        if rows == int(self.chunk_starts[run[-1] + 1] - self.chunk_starts[run[0]]):
            return True
        return self._has_room_for_all and rows * self._row_bytes <= _LITTLE_BYTES


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Rows of a chunk, and where they lie as long as this lives."""

    rows: Array
    """[n, *row_shape]."""
    origin: int
    """What to add to `row * row_bytes` to get the offset of a row in `space`."""


_Coming = dict[int, Callable[[], _Chunk]]
"""What waits for each of some chunks, by number."""


def _itself(loaded: _Chunk) -> _Chunk:
    return loaded


def _of(loaded: "Future[dict[int, _Chunk]]", chunk: int) -> _Chunk:
    return loaded.result()[chunk]


def _cut(part_starts: Array, row_bytes: int) -> tuple[Array, Array]:
    """First rows of all chunks and, last, the number of rows, int64 [chunks + 1]; the part of each, [chunks].

    By the rule of the format, so that no part must be opened to know it. Where a part was written otherwise, its
    chunks are read in pieces: slower, and right.
    """
    rows = np.diff(part_starts)
    sizes = chunk_rows_of(rows, row_bytes)
    counts = -(-rows // np.maximum(sizes, 1))
    part_of_chunk = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(part_of_chunk)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = part_starts[part_of_chunk] + within * sizes[part_of_chunk]
    return np.concatenate([starts, part_starts[-1:]]).astype(np.int64), part_of_chunk
