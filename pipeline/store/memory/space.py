"""Where the chunks of this process's stores lie: one number, the offset, names a row of any of them."""

import contextlib
import errno
import mmap
import os
import sys
import threading
import weakref

import numpy as np

from pipeline.store.memory import libc
from pipeline.store.memory.elsewhere import FIRST, Elsewhere
from pipeline.store.memory.reserved import Memory, Reserved
from pipeline.store.types import Array

_SIZES = tuple(1 << bits for bits in (44, 42, 40, 38, 36, 34))
"""How many addresses to reserve, the first that can be had. Processors have 2^39 to 2^56 for a process; numpy takes
2^63 / 65,536 = 2^47 at most."""


class Space:
    """Rows of files, of memory and of arrays, gathered by their offsets, whatever store they are from.

    Files and memory are mapped into a range of addresses that is reserved when the first is. Where none can be had,
    or its room is used up, files are mapped anywhere and arrays stay where they are: rows are gathered from one array
    after the other, which is slower where they are of many.
    """

    def __init__(self, sizes: tuple[int, ...] = _SIZES) -> None:
        # Reentrant, for a signal may come, and its handler fork, while the lock is held.
        self.lock = threading.RLock()
        self._sizes = sizes
        self._range: Reserved | None = None
        self._elsewhere = Elsewhere(self.lock)

    def map_file(self, descriptor: int, size: int) -> Array:
        """The bytes of a file, uint8 [size], read-only, mapped until the last array that looks at them is gone.

        Raises OSError where it cannot be mapped.
        """
        reserved = self._reserved()
        memory = reserved.map_file(descriptor, size) if reserved else None
        return _anywhere(descriptor, size) if memory is None else np.asarray(memory)

    def memory(self, size: int) -> Array:
        """uint8 [size], of any contents, to be written to."""
        reserved = self._reserved()
        memory = None
        with contextlib.suppress(OSError):
            memory = reserved.map_memory(size) if reserved else None
        return np.empty(size, np.uint8) if memory is None else np.asarray(memory)

    def has(self, array: Array) -> bool:
        """Whether an array lies in the reserved range."""
        return self._range is not None and self._range.offset_of(array) is not None

    def place(self, array: Array) -> int:
        """Offset of the first byte of a contiguous array, as long as the caller keeps it."""
        offset = None if self._range is None else self._range.offset_of(array)
        return self._elsewhere.place(array) if offset is None else offset

    def gather(self, offsets: Array, row: "np.dtype[np.void]") -> Array:
        """Rows of one size at int64 [n] offsets, which `place` and sums with it gave: `row` [n], a copy.

        What keeps their arrays must be held meanwhile. Raises IndexError for an offset where nothing can be; one below
        0 is not always found out (see Reserved.gather).
        """
        if self._range is None:
            return self._elsewhere.gather(offsets, row)
        if not self._elsewhere:
            return self._range.gather(offsets, row)
        outside = offsets >= FIRST
        if not outside.any():
            return self._range.gather(offsets, row)
        rows = np.empty(len(offsets), row)
        rows[outside] = self._elsewhere.gather(offsets[outside], row)
        rows[~outside] = self._range.gather(offsets[~outside], row)
        return rows

    def _reserved(self) -> Reserved | None:
        """The range, reserved the first time that one can be had."""
        if self._range is None and self._sizes:
            with self.lock:
                if self._range is None:
                    self._range = _reserve(self._sizes, self.lock)
                    self._sizes = ()
        return self._range


def _reserve(sizes: tuple[int, ...], lock: "threading.RLock") -> Reserved | None:
    if sys.maxsize < sizes[0] or _addresses_are_counted():
        return None
    for size in sizes:
        with contextlib.suppress(OSError):
            return Reserved(size, lock)
    return None


def _anywhere(descriptor: int, size: int) -> Array:
    """A file mapped where the operating system finds room."""
    try:
        address = libc.map_file(descriptor, size)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), np.uint8)
    memory = Memory(address, size)
    weakref.finalize(memory, libc.unmap, address, size).atexit = False
    return np.asarray(memory)


def _addresses_are_counted() -> bool:
    """Whether there is a limit on the process's addresses (`ulimit -v`), which those reserved would use up."""
    try:
        import resource
    except ImportError:
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


space = Space()
"""Of this process."""

if hasattr(os, "register_at_fork"):
    # So that no thread is in the middle of a change that the fork would see half of.
    os.register_at_fork(
        before=space.lock.acquire, after_in_parent=space.lock.release, after_in_child=space.lock.release
    )
