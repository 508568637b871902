"""A range of addresses that this process keeps for itself, with files and memory mapped into it.

    offset    0 ─────┬───────────┬──────────────┬────────┬─────────────────────────── size
              faults │ a file    │ another file │ memory │ faults
              ───────┴───────────┴──────────────┴────────┴───────────────────────────

What is named by its offset cannot be outside of what was mapped here: an offset beyond the range is refused by
numpy, one at which nothing is mapped (any more) ends the process, and none ever reads another's memory.
"""

import contextlib
import ctypes
import mmap
import threading
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np

from pipeline.store.memory import libc
from pipeline.store.memory.spans import Spans
from pipeline.store.types import Array

_LARGE = 1 << 21
"""What is so large starts at a multiple of it, as the operating system has it for pages of that size."""

_WIDE = 1 << 16
"""Rows with more bytes are copied one by one: as fast, and numpy has no array of so many elements of that size."""


class Memory:
    """Bytes at consecutive addresses, for numpy's array interface: `np.asarray(memory)` and its views keep this alive.

    https://numpy.org/doc/stable/reference/arrays.interface.html
    """

    def __init__(self, address: int, size: int, writable: bool = False) -> None:
        self.__array_interface__ = {
            "data": (address, not writable),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }


class Reserved:
    """The range. Safe to use from several threads, and in a process that was forked off, which has a copy of it.

    Args:
        size: in bytes, at most 2^46.
        lock: held while room is handed out; whoever forks holds it too.
        near: an address to reserve it at, if that is free.

    Raises OSError where so many addresses cannot be had.
    """

    def __init__(self, size: int, lock: "threading.RLock", near: int | None = None) -> None:
        found = libc.map_nothing(size + _LARGE, near, fixed=False)
        weakref.finalize(self, libc.unmap, found, size + _LARGE).atexit = False
        self.size = size
        self.base = _up(found, _LARGE)
        # Not an array: numpy shows an array by reading it, at both ends at least.
        self._bytes = memoryview((ctypes.c_ubyte * size).from_address(self.base))
        self._spans = Spans(0, size)
        self._returned: deque[tuple[int, int]] = deque()
        self._lock = lock

    def map_file(self, descriptor: int, size: int) -> Memory | None:
        """A file, to be read, as long as the result or an array made of it lives. None where no room is left.

        Raises OSError where the file cannot be mapped.
        """
        return self._map(size, False, lambda room, at: libc.map_file(descriptor, room, at))

    def map_memory(self, size: int) -> Memory | None:
        """Memory to write to, filled with 0, likewise."""
        return self._map(size, True, libc.map_memory)

    def offset_of(self, array: Array) -> int | None:
        """Where the first byte of an array lies, None for one that is not in the range."""
        offset: int = array.__array_interface__["data"][0] - self.base
        return offset if 0 <= offset < self.size else None

    def gather(self, offsets: Array, row: "np.dtype[np.void]") -> Array:
        """Rows of one size that start at int64 [n] offsets, `row` [n], a copy.

        Raises IndexError for an offset above the last at which a row is within the range. Offsets below 0 are for the
        caller to avoid: they raise it too for rows of more than 64 KiB, and count from the end of the range, as
        indexes of numpy's do, for smaller ones. Looking for them would take a tenth of the time of 256 rows.
        """
        if row.itemsize <= _WIDE:
            # Element i of this array is the row that starts at byte i of the range: they overlap. The array is never
            # named nor returned, for debuggers would show its values, and read addresses at which nothing is mapped.
            return np.ndarray((self.size - row.itemsize + 1,), row, self._bytes, 0, (1,))[offsets]
        rows = np.empty((len(offsets), row.itemsize), np.uint8)
        for place, start in enumerate(offsets.tolist()):
            if not 0 <= start <= self.size - row.itemsize:
                raise IndexError(f"offset {start} is out of bounds for a range of {self.size} bytes")
            rows[place] = np.frombuffer(self._bytes, np.uint8, row.itemsize, start)
        return rows.view(row)[:, 0]

    def _map(self, size: int, writable: bool, map_at: Callable[[int, int], int]) -> Memory | None:
        room = _up(size, _LARGE if size >= _LARGE else mmap.PAGESIZE)
        with self._lock:
            self._take_back()
            offset = self._spans.take(room, _LARGE if size >= _LARGE else mmap.PAGESIZE)
        if offset is None:
            return None
        try:
            map_at(room, self.base + offset)
        except OSError:
            # Linux may have ended the old mapping before it refused the new one, and others could map there now.
            self._release(offset, room)
            raise
        memory = Memory(self.base + offset, size, writable)
        weakref.finalize(memory, self._release, offset, room).atexit = False
        return memory

    def _release(self, offset: int, room: int) -> None:
        """End what is mapped, keep the addresses. Runs where the garbage collector does, so it waits for no lock."""
        with contextlib.suppress(OSError):  # the process has all the mappings it may have: that room is lost
            libc.map_nothing(room, self.base + offset)
            self._returned.append((offset, room))

    def _take_back(self) -> None:
        while self._returned:
            self._spans.give_back(*self._returned.popleft())


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
