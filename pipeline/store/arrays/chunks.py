"""The chunks of one array of all parts: mapped or decoded when they are wanted, and kept while there is room."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Rows of a chunk, and where they lie as long as this lives."""

    rows: Array
    """[n, *row_shape]."""
    origin: int
    """What to add to `row * row_bytes` to get the offset of a row in `space`."""


_Coming = dict[int, Callable[[], _Chunk]]
"""What waits for each of some chunks, by number."""


class Chunks:
    """Where the chunks of an array lie. Safe to use from several threads.

    Args:
        parts: the parts, in order.
        path: of the array in each part.
        row_bytes: size of a row.
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
        row_bytes: int,
        cache_bytes: int,
        check_always: bool,
        keep_open: bool = True,
        threads: int = _THREADS,
        merged_bytes: int = 0,
    ) -> None:
        self._parts = parts
        self._path = path
        self._row_bytes = row_bytes
        self._cache_bytes = cache_bytes
        self._has_room_for_all = row_bytes * sum(part.rows for part in parts) <= cache_bytes
        self._check_always = check_always
        self._keep_open = keep_open
        self._threads = threads
        self._merged_bytes = merged_bytes
        self._part_starts = np.concatenate([[0], np.cumsum([part.rows for part in parts])]).astype(np.int64)
        self.starts, self._part_of_chunk = _cut(self._part_starts, row_bytes)
        """int64 [chunks + 1]: chunk i holds the rows starts[i] to starts[i + 1]; none crosses parts."""
        self._begin()

    def _begin(self) -> None:
        """Forget all that is open; rows that were located stay readable."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._turns = Turns()
        self._pool: ThreadPoolExecutor | None = None
        self._open = Opened(len(self._part_of_chunk))
        self._decoded: LRUCache[int, _Chunk] = LRUCache(self._cache_bytes, getsizeof=lambda kept: kept.rows.nbytes)

    def of_rows(self, rows: Array) -> Array:
        """The number of the chunk that each of int64 [n] rows lies in, int64 [n]."""
        return self.starts.searchsorted(rows, side="right") - 1

    def origins(self, chunks: Array) -> tuple[Array, object]:
        """Map or decode chunks, int64 [n], several at a time.

        Returns what to add to `row * row_bytes` for the offset of a row of each in `space`, int64 [n], and what keeps
        the chunks where they are. Raises as `RowArray.locate` does.
        """
        self._check_process()
        return self._origins(chunks, {})

    def begin(self, chunks: Array) -> Callable[[], tuple[Array, object]]:
        """Begin to map or decode chunks; what waits for them, and then gives what `origins` gives."""
        self._check_process()
        missing = set(chunks[self._open.origins[chunks] == UNKNOWN].tolist())
        return partial(self._origins, chunks, self._start(missing, keep=self._has_room_for_all))

    def read_ahead(self, chunks: Array) -> None:
        """Have the operating system read those of int64 [n] chunks that are mapped, if it has dropped them."""
        opened = self._open.rows
        mapped = [opened[chunk] for chunk in chunks.tolist() if chunk in opened]
        step = max(len(mapped) // _SAMPLED, 1)
        if not all(map(in_memory, mapped[::step])):
            for data in mapped:
                read_ahead(data)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:  # no thread survives a fork, nor a lock that another thread held
            self._begin()

    def _origins(self, chunks: Array, coming: _Coming) -> tuple[Array, object]:
        self._check_process()
        opened = self._open
        origins = opened.origins[chunks]
        missing = origins == UNKNOWN
        if not missing.any():
            return origins, opened
        wanted, places = _distinct(chunks[missing])
        loaded = {chunk: wait() for chunk, wait in coming.items()}
        loaded |= self._load(set(wanted.tolist()) - loaded.keys())
        origins[missing] = np.asarray([loaded[chunk].origin for chunk in wanted.tolist()])[places]
        return origins, (opened, loaded)

    def _load(self, chunks: set[int]) -> dict[int, _Chunk]:
        """Chunks by their number, several read at a time."""
        kept = self._kept_of(chunks)
        missing = chunks - kept.keys()
        if len(missing) == 1:
            return kept | {chunk: self._load_one(chunk, keep=True) for chunk in missing}
        return kept | {chunk: wait() for chunk, wait in self._read_in_threads(missing, keep=True).items()}

    def _start(self, chunks: set[int], keep: bool) -> _Coming:
        """Begin to read chunks, those that are not kept."""
        kept = self._kept_of(chunks)
        coming: _Coming = {chunk: partial(_itself, loaded) for chunk, loaded in kept.items()}
        return coming | self._read_in_threads(chunks - kept.keys(), keep)

    def _kept_of(self, chunks: set[int]) -> dict[int, _Chunk]:
        """Those that are decoded and kept."""
        if not self._decoded:
            return {}
        with self._lock:
            found = {chunk: self._decoded.get(chunk) for chunk in chunks}
        return {chunk: loaded for chunk, loaded in found.items() if loaded is not None}

    def _read_in_threads(self, chunks: set[int], keep: bool) -> _Coming:
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
            rows = int(self.starts[chunk + 1] - self.starts[run[0] if run else chunk])
            if run and not (follows and rows * self._row_bytes <= self._merged_bytes):
                yield run
                run = []
            run.append(chunk)
        if run:
            yield run

    def _load_run(self, run: Sequence[int], keep: bool) -> dict[int, _Chunk]:
        """Consecutive chunks of one part."""
        if len(run) == 1:
            return {run[0]: self._load_one(run[0], keep)}
        rows, first = in_space(self._read(run)[1]), int(self.starts[run[0]])
        loaded = {}
        for chunk in run:
            start, stop = (self.starts[chunk : chunk + 2] - first).tolist()
            loaded[chunk] = self._kept(chunk, self._placed(chunk, rows[start:stop]), keep)
        return loaded

    def _load_one(self, chunk: int, keep: bool) -> _Chunk:
        array, rows = self._read([chunk])
        if not array.mapped or rows.flags.owndata:
            return self._kept(chunk, self._placed(chunk, in_space(rows)), keep)
        loaded = self._placed(chunk, rows)
        if self._keep_open and not self._check_always:
            with self._lock:
                self._open.keep(chunk, loaded.rows, loaded.origin)
        return loaded

    def _read(self, run: Sequence[int]) -> tuple[ChunkedArray, Array]:
        """The rows of consecutive chunks of one part, and the array that they are of."""
        number = int(self._part_of_chunk[run[0]])
        array, first = self._array(number, run), int(self._part_starts[number])
        start, stop = int(self.starts[run[0]]) - first, int(self.starts[run[-1] + 1]) - first
        return array, self._parts[number].read_range(self._path, array, start, stop)

    def _placed(self, chunk: int, rows: Array) -> _Chunk:
        rows = np.ascontiguousarray(rows)
        return _Chunk(rows, space.place(rows) - int(self.starts[chunk]) * self._row_bytes)

    def _kept(self, number: int, chunk: _Chunk, keep: bool) -> _Chunk:
        """A chunk that lies in memory, kept there if that is wanted and there is room."""
        if keep and chunk.rows.nbytes <= self._decoded.maxsize and not self._check_always:
            with self._lock:
                self._decoded[number] = chunk
        return chunk

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
        if rows == int(self.starts[run[-1] + 1] - self.starts[run[0]]):
            return True
        return self._has_room_for_all and rows * self._row_bytes <= _LITTLE_BYTES


def _distinct(numbers: Array) -> tuple[Array, Array]:
    """The different ones of some numbers, at least one, and which of them each is. Where all are equal, as for a row by
    itself, that is found in a fifth of the time."""
    if (numbers == numbers[0]).all():
        return numbers[:1], np.zeros(len(numbers), np.int64)
    return np.unique(numbers, return_inverse=True)


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
