"""The ways in which rows are kept and gathered: in a reserved range, in one that is too small, without any."""

import mmap
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
import pytest

from pipeline.store.arrays import opening
from pipeline.store.arrays.mapped import ChunkFormat, MappedArray
from pipeline.store.memory import libc
from pipeline.store.memory.reserved import Reserved
from pipeline.store.memory.space import space

SMALL_RANGE = 6 * mmap.PAGESIZE


def _no_library(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(libc, "_libc", None)
    _no_range(patch)


def _no_range(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(space, "_range", None)
    patch.setattr(space, "_sizes", ())


def _full(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(space, "_range", Reserved(SMALL_RANGE, space.lock))


def range_at(base: int, patch: pytest.MonkeyPatch) -> dict[int, np.ndarray]:
    """Reserve the range anew, at addresses that this machine need not have. For a process that ends afterwards.

    Nothing is really mapped there, and whoever reads from the range ends the process. Returned are the contents of
    the files, by the offset at which each would be mapped; checksums are compared with these.
    """
    contents: dict[int, np.ndarray] = {}

    def at_or_base(size: int, at: int | None = None, fixed: bool = True) -> int:
        return at or base

    def map_file(file: BinaryIO) -> np.ndarray:
        data = space.map_file(file.fileno(), len(read := file.read()))
        contents[space.place(data)] = np.frombuffer(read, np.uint8)
        return data

    class Unread(MappedArray):
        """Finds its chunks by the contents, and refers to the range."""

        def __init__(self, chunk_format: ChunkFormat, data: np.ndarray, check_always: bool) -> None:
            super().__init__(chunk_format, contents[space.place(data)], check_always)
            self._data = data
            self._checked[:] = True

    patch.setattr(libc, "map_nothing", at_or_base)
    patch.setattr(libc, "map_memory", at_or_base)
    patch.setattr(libc, "map_file", lambda descriptor, size, at: at_or_base(size, at))
    patch.setattr(opening, "map_file", map_file)
    patch.setattr(opening, "MappedArray", Unread)
    patch.setattr(space, "_range", None)
    patch.setattr(space, "_sizes", (1 << 44,))
    return contents


def gather_from(contents: dict[int, np.ndarray], offsets: np.ndarray, row: "np.dtype[np.void]") -> np.ndarray:
    """What `Reserved.gather` would return, were the contents in the range."""
    rows = np.empty(len(offsets), row)
    for place, offset in enumerate(offsets.tolist()):
        start = max(start for start in contents if start <= offset)
        rows[place] = contents[start][offset - start :][: row.itemsize].view(row)[0]
    return rows


WAYS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no range": _no_range,
    "range exhausted": _full,
    "no C library": _no_library,
}
