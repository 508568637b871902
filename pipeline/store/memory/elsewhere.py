"""Arrays of rows that lie anywhere, under offsets of their own: the plain way, chunk by chunk."""

import itertools
import threading
import weakref

import numpy as np

from pipeline.store.types import Array

FIRST = 1 << 50
"""The first offset of an array that lies elsewhere; those of a reserved range are below."""


class Elsewhere:
    """Gives each array a range of numbers that no other ever had, and finds it by them.

    Safe to use from several threads.

    Args:
        lock: held while arrays are added or listed; whoever forks holds it too.
    """

    def __init__(self, lock: "threading.RLock") -> None:
        self._lock = lock
        self._next = FIRST
        self._arrays: dict[int, weakref.ref[Array]] = {}  # by its first offset, in order
        self._starts: Array | None = None

    def __bool__(self) -> bool:
        return bool(self._arrays)

    def place(self, array: Array) -> int:
        """The offset of the first byte of a contiguous array; it is found as long as the caller keeps it."""
        with self._lock:
            start = self._next
            self._next += max(array.nbytes, 1)
            self._arrays[start] = weakref.ref(array)
            self._starts = None
        weakref.finalize(array, self._arrays.pop, start, None).atexit = False
        return start

    def gather(self, offsets: Array, row: "np.dtype[np.void]") -> Array:
        """Rows of one size that start at int64 [n] offsets, `row` [n], a copy.

        Raises IndexError for an offset at which no array (any more) has a row.
        """
        starts = self._known()
        numbers = starts.searchsorted(offsets, side="right") - 1
        order = np.argsort(numbers, kind="stable")
        edges = np.flatnonzero(np.diff(numbers[order], prepend=-2, append=-2)).tolist()
        rows = np.empty(len(offsets), row)
        for first, stop in itertools.pairwise(edges):
            places = order[first:stop]
            start = int(starts[numbers[places[0]]]) if numbers[places[0]] >= 0 else -1
            rows[places] = self._rows(start, row)[(offsets[places] - start) // row.itemsize]
        return rows

    def _known(self) -> Array:
        """The first offsets, int64, ascending; of some the array may be gone."""
        with self._lock:
            if self._starts is None:
                self._starts = np.asarray(list(self._arrays), np.int64)
            return self._starts

    def _rows(self, start: int, row: "np.dtype[np.void]") -> Array:
        array = self._arrays[start]() if start in self._arrays else None
        if array is None:
            raise IndexError("no rows are kept at this offset")
        return array.reshape(-1).view(row)
