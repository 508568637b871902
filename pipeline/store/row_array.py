"""Any rows of a store, gathered from the chunks of its parts.

    row numbers ──▶ chunks, mapped or decoded ──▶ an address for each row ──▶ one gather

Rows lie in many files and many buffers. Numpy gathers them in one call all the same, as elements of an array that
spans the whole address space.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from cachetools import LRUCache

from pipeline.store.arrays import Array, chunk_rows
from pipeline.store.chunked import ChunkedArray
from pipeline.store.mapping import Memory, in_memory, read_ahead
from pipeline.store.parts import Part

_ADDRESSES = 1 << 47
"""User space of 64-bit processors (x86-64 and ARM64 with four levels of page tables)."""

_FIRST_ADDRESS = 1
"""Numpy takes 0 for no buffer."""

_UNKNOWN = np.iinfo(np.int64).min

_MOST_MAPPED = 16_384
"""Parts that stay mapped: Linux allows a process 65,530 mappings (vm.max_map_count)."""

_SAMPLED = 8
"""Of so many mapped chunks it is asked whether they are in memory, before all are read ahead."""

_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Located:
    """Rows, and where they lie in memory."""

    rows: Array
    """int64 [n], row numbers of the store."""
    addresses: Array
    """int64 [n], less `_FIRST_ADDRESS`."""
    memory: object
    """What keeps them there, as long as this lives."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Array) -> "Located":
        """Some of the rows."""
        if isinstance(which, slice):
            return Located(self.rows[which], self.addresses[which], self.memory)
        return Located(self.rows.take(which), self.addresses.take(which), self.memory)

    def __add__(self, other: "Located") -> "Located":
        """The rows of both."""
        return Located(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.addresses, other.addresses]),
            (self.memory, other.memory),
        )


class RowArray:
    """One array of all parts of a store, as if it were one.

    Args:
        parts: the parts, in order.
        path: of the array in each part.
        dtype: of its elements.
        row_shape: of a row.
        cache_bytes: how much of decoded chunks to keep. Mapped files cost nothing and are not counted.
            Of what is read in runs, in an epoch, nothing is kept unless there is room for all.
        check_always: compare checksums whenever rows are located, not only the first time.
        keep_open: keep files mapped, which keeps their space on the disk if they are deleted.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        path: str,
        dtype: str,
        row_shape: tuple[int, ...] = (),
        cache_bytes: int = 1 << 28,
        check_always: bool = False,
        keep_open: bool = True,
    ) -> None:
        self._parts = parts
        self._path = path
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._row_shape = row_shape
        self._row_bytes = self._dtype.itemsize * int(np.prod(row_shape))
        self._cache_bytes = cache_bytes
        self._has_room_for_all = self._row_bytes * sum(part.rows for part in parts) <= cache_bytes
        self._check_always = check_always
        self._keep_open = keep_open
        self._part_starts = np.concatenate([[0], np.cumsum([part.rows for part in parts])]).astype(np.int64)
        self.chunk_starts, self._part_of_chunk = _cut(self._part_starts, self._row_bytes)
        """int64 [chunks + 1]: chunk i holds the rows chunk_starts[i] to chunk_starts[i + 1]; none crosses parts."""
        # An element of a row's size starts at every address.
        self._memory = np.asarray(Memory(_FIRST_ADDRESS, _ADDRESSES - self._row_bytes, f"|V{self._row_bytes}"))
        self._begin()

    def _begin(self) -> None:
        """Forget all that is open; rows that were located stay readable."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._open = _Open(len(self._part_of_chunk))
        self._decoded: LRUCache[int, Array] = LRUCache(self._cache_bytes, getsizeof=lambda rows: rows.nbytes)

    def gather(self, located: Located) -> Array:
        """The rows, [n, *row_shape], a copy."""
        rows: Array = self._memory[located.addresses]
        return rows.view(self._dtype).reshape(len(located), *self._row_shape)

    def locate(self, rows: Array) -> Located:
        """Map or decode the chunks of int64 [n] row numbers, all within the store.

        Safe to call from several threads. Raises CorruptStore naming part, chunk and remedy; StoreError where a
        file cannot be had.
        """
        offsets, memory = self._offsets(self.chunk_starts.searchsorted(rows, side="right") - 1, {})
        return Located(rows, offsets + rows * self._row_bytes, memory)

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
            offsets, memory = self._offsets(chunks, coming)
            first = starts - (np.cumsum(lengths) - lengths)  # row of each run, less its place among all rows
            rows, addresses = np.repeat(first, lengths), np.repeat(offsets + first * self._row_bytes, lengths)
            places = np.arange(len(rows))
            rows += places
            places *= self._row_bytes  # in place, for the pages of fresh arrays take longer than the sums
            addresses += places
            return Located(rows, addresses, memory)

        return located

    def _check_process(self) -> None:
        if os.getpid() != self._pid:  # no thread survives a fork, nor a lock that another thread held
            self._begin()

    def _missing(self, chunks: Array) -> set[int]:
        """Which of these chunks are not mapped."""
        return set(chunks[self._open.offsets[chunks] == _UNKNOWN].tolist())

    def _offsets(self, chunks: Array, coming: Mapping[int, "Future[Array]"]) -> tuple[Array, object]:
        """What to add to `row * row_bytes` in each chunk to get an address, and what keeps the chunks there."""
        self._check_process()
        opened = self._open
        offsets = opened.offsets[chunks]
        missing = offsets == _UNKNOWN
        if not missing.any():
            return offsets, opened
        wanted, places = np.unique(chunks[missing], return_inverse=True)
        loaded = {chunk: future.result() for chunk, future in coming.items()}
        loaded |= self._load(set(wanted.tolist()) - loaded.keys())
        offsets[missing] = np.asarray([self._offset(chunk, loaded[chunk]) for chunk in wanted.tolist()])[places]
        return offsets, (opened, loaded)

    def _offset(self, chunk: int, rows: Array) -> int:
        return int(rows.ctypes.data) - _FIRST_ADDRESS - int(self.chunk_starts[chunk]) * self._row_bytes

    def _load(self, chunks: set[int]) -> dict[int, Array]:
        """Chunks by their number, several read at a time."""
        if len(chunks) > 1:
            return {chunk: future.result() for chunk, future in self._start(chunks, keep=True).items()}
        return {chunk: self._kept_or_loaded(chunk, keep=True) for chunk in chunks}

    def _start(self, chunks: set[int], keep: bool) -> dict[int, "Future[Array]"]:
        """Begin to read chunks."""
        with self._lock:
            if chunks and self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, "vqtok-chunks")
            pool = self._pool
        return {chunk: pool.submit(self._kept_or_loaded, chunk, keep) for chunk in sorted(chunks)} if pool else {}

    def _kept_or_loaded(self, chunk: int, keep: bool) -> Array:
        with self._lock:
            rows: Array | None = self._decoded.get(chunk)
        return self._load_one(chunk, keep) if rows is None else rows

    def _load_one(self, chunk: int, keep: bool) -> Array:
        number = int(self._part_of_chunk[chunk])
        array = self._array(number)
        start, stop = (self.chunk_starts[chunk : chunk + 2] - self._part_starts[number]).tolist()
        rows = self._parts[number].read_range(self._path, array, start, stop)
        with self._lock:
            if array.mapped and not rows.flags.owndata:
                if self._keep_open and not self._check_always:
                    self._open.keep(chunk, rows, self._offset(chunk, rows))
            elif keep and rows.nbytes <= self._decoded.maxsize and not self._check_always:
                self._decoded[chunk] = rows
        return rows

    def _array(self, number: int) -> ChunkedArray:
        """The array of a part, open."""
        array = self._open.arrays.get(number)
        if array is None:
            array = self._parts[number].array(self._path)
            if not self._keep_open:
                return array
            with self._lock:
                if len(self._open.arrays) >= _MOST_MAPPED:
                    self._open = _Open(len(self._part_of_chunk))
                # Another thread may have been first, and addresses of what it opened may be in use.
                array = self._open.arrays.setdefault(number, array)
        return array


class _Open:
    """What is mapped: no address is given away without this, which keeps it valid."""

    def __init__(self, chunks: int) -> None:
        self.arrays: dict[int, ChunkedArray] = {}
        """By number of the part."""
        self.rows: dict[int, Array] = {}
        """By number of the chunk."""
        self.offsets = np.full(chunks, _UNKNOWN)
        """Of each chunk, as `RowArray._offsets` has them."""

    def keep(self, chunk: int, rows: Array, offset: int) -> None:
        """Remember a mapped chunk. One that is known stays as it is, for its address may be in use."""
        if chunk not in self.rows:
            self.rows[chunk] = rows
            self.offsets[chunk] = offset


def _cut(part_starts: Array, row_bytes: int) -> tuple[Array, Array]:
    """First rows of all chunks and, last, the number of rows, int64 [chunks + 1]; the part of each, [chunks].

    By the rule of the format, so that no part must be opened to know it. Where a part was written otherwise, its
    chunks are read in pieces: slower, and right.
    """
    rows = np.diff(part_starts)
    sizes = np.asarray([chunk_rows(count, row_bytes) for count in rows.tolist()], np.int64)
    counts = -(-rows // np.maximum(sizes, 1))
    part_of_chunk = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(part_of_chunk)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = part_starts[part_of_chunk] + within * sizes[part_of_chunk]
    return np.concatenate([starts, part_starts[-1:]]).astype(np.int64), part_of_chunk
