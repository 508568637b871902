"""Files mapped into memory without being kept open.

Python's `mmap` holds a file descriptor for every mapping, of which a process has a thousand; a store may have ten
thousand parts.
"""

import mmap
import os
from typing import BinaryIO

import numpy as np

from pipeline.store.memory import libc
from pipeline.store.memory.space import space
from pipeline.store.types import Array


class NotMapped(Exception):
    """The operating system or the file system does not map this file; it may be read all the same."""


def map_file(file: BinaryIO) -> Array:
    """The bytes of an open file, uint8 [size], read-only. The mapping ends with the last array that looks at it.

    The file may be closed and deleted, but not cut: the operating system kills a process that reads beyond the end
    of a mapped file (SIGBUS). Raises NotMapped.
    """
    size = os.fstat(file.fileno()).st_size
    if not size:
        return np.empty(0, np.uint8)
    try:
        return space.map_file(file.fileno(), size)
    except OSError as error:
        raise NotMapped(f"{file.name}: {error}") from error


def in_memory(data: Array) -> bool:
    """Whether the first page of a stretch of a mapped file is in memory.

    Linux tells only those who may write to the file; to others all pages seem to be there.
    """
    start, _ = _pages(data)
    return libc.is_resident(start)


def read_ahead(data: Array) -> None:
    """Have the operating system begin to read a stretch of a mapped file; returns without waiting for it."""
    libc.will_need(*_pages(data))


def _pages(data: Array) -> tuple[int, int]:
    """Address of the first page, and bytes from there to the end."""
    address: int = data.__array_interface__["data"][0]
    return address - address % mmap.PAGESIZE, data.nbytes + address % mmap.PAGESIZE
