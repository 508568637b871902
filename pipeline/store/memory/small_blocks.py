"""Memory in pieces smaller than a page or a few: many of them share what the operating system maps at once."""

import weakref
from collections import deque

import numpy as np

from pipeline.store.memory.reserved import Memory
from pipeline.store.memory.space import Space
from pipeline.store.memory.spans import Spans
from pipeline.store.types import Array

_SLAB_BYTES = 1 << 20
_ALIGN = 64
"""Of each piece: a cache line."""


class SmallBlocks:
    """Hands out memory, and takes it back when the last array that looks at it is gone.

    A slab is returned to the operating system when nothing in it is in use. Safe to use from several threads.

    Args:
        space: where the slabs lie.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._with_room: dict[int, _Slab] = {}
        """Slabs that may have room, by their first address."""
        self._returned: deque[tuple[_Slab, int, int]] = deque()

    def take(self, size: int) -> Array:
        """uint8 [size], of any contents, much smaller than a slab."""
        with self._space.lock:
            self._take_back()
            slab, start, room = self._find(-(-max(size, 1) // _ALIGN) * _ALIGN)
        memory = Memory(slab.address + start, size, writable=True)
        # Called wherever the garbage collector runs, so it must not wait for the lock.
        weakref.finalize(memory, self._returned.append, (slab, start, room)).atexit = False
        return np.asarray(memory)

    def _find(self, room: int) -> "tuple[_Slab, int, int]":
        for slab in list(self._with_room.values()):
            start = slab.spans.take(room)
            if start is not None:
                return slab, start, room
            del self._with_room[slab.address]
        slab = _Slab(self._space.memory(_SLAB_BYTES))
        self._with_room[slab.address] = slab
        start = slab.spans.take(room)
        assert start is not None
        return slab, start, room

    def _take_back(self) -> None:
        while self._returned:
            slab, start, room = self._returned.popleft()
            slab.spans.give_back(start, room)
            self._with_room[slab.address] = slab
            if slab.spans.is_free and len(self._with_room) > 1:
                del self._with_room[slab.address]


class _Slab:
    def __init__(self, memory: Array) -> None:
        self.memory = memory
        self.address: int = memory.ctypes.data
        self.spans = Spans(0, memory.size)
