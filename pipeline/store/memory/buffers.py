"""Memory for decoded chunks that is used again.

A fresh page costs the operating system more time than decoding into it: chunks decoded into memory that has been
written before come more than twice as fast.
"""

import weakref

import numpy as np

from pipeline.store.memory.reserved import Memory
from pipeline.store.memory.small_blocks import SmallBlocks
from pipeline.store.memory.space import space
from pipeline.store.types import Array

_STEP = 1 << 16


class Buffers:
    """Hands out memory, and takes it back when the last array that looks at it is gone.

    Args:
        keep_bytes: how much to keep of what came back.
    """

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._kept_bytes = 0
        self._kept: dict[int, list[Array]] = {}
        self._small = SmallBlocks(space)

    def take(self, size: int) -> Array:
        """uint8 [size], of any contents."""
        if size < _STEP:
            return self._small.take(size)
        capacity = -(-size // _STEP) * _STEP
        try:
            buffer = self._kept[capacity].pop()
            self._kept_bytes -= capacity
        except (KeyError, IndexError):
            buffer = space.memory(capacity)
        # Views of the array that is made of it keep this object, where they would pass by an array in between.
        memory = Memory(buffer.ctypes.data, size, writable=True)
        weakref.finalize(memory, self._take_back, buffer).atexit = False
        return np.asarray(memory)

    def _take_back(self, buffer: Array) -> None:
        if self._kept_bytes + buffer.size <= self._keep_bytes:
            self._kept.setdefault(buffer.size, []).append(buffer)
            self._kept_bytes += buffer.size


decoded_chunks = Buffers(1 << 26)
"""Of this process."""


def in_space(array: Array) -> Array:
    """The array, or a copy of one that does not lie where `space` gathers from, if there is room for it."""
    if space.has(array) or not space.has(copy := decoded_chunks.take(array.nbytes)):
        return array
    copied: Array = copy.view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied
