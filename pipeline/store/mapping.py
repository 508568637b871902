"""Files mapped into memory without being kept open.

Python's `mmap` holds a file descriptor for every mapping, of which a process has a thousand; a store may have ten
thousand parts.
"""

import ctypes
import mmap
import os
import weakref
from typing import BinaryIO

import numpy as np

from pipeline.store.arrays import Array

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_FAILED = ctypes.c_void_p(-1).value


class Memory:
    """Items at consecutive addresses of this process, a byte apart, for numpy's array interface.

    https://numpy.org/doc/stable/reference/arrays.interface.html
    """

    def __init__(self, address: int, shape: int, item: str = "|u1", writable: bool = False) -> None:
        self.__array_interface__ = {
            "data": (address, not writable),
            "shape": (shape,),
            "strides": (1,),
            "typestr": item,
            "version": 3,
        }


def map_file(file: BinaryIO) -> Array:
    """The bytes of an open file, uint8 [size], read-only. The mapping ends with the last array that looks at it.

    The file may be closed and deleted, but not cut: the operating system kills a process that reads beyond the end
    of a mapped file (SIGBUS). Raises OSError.
    """
    size = os.fstat(file.fileno()).st_size
    if not size:
        return np.empty(0, np.uint8)
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), file.name)
    memory = Memory(address, size)
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False
    return np.asarray(memory)


def in_memory(data: Array) -> bool:
    """Whether the first page of a stretch of a mapped file is in memory.

    Linux tells only those who may write to the file; to others all pages seem to be there.
    """
    start, _ = _pages(data)
    page = ctypes.create_string_buffer(1)
    return bool(_libc.mincore(start, 1, page)) or bool(page.raw[0] & 1)


def read_ahead(data: Array) -> None:
    """Have the operating system begin to read a stretch of a mapped file; returns without waiting for it."""
    _libc.madvise(*_pages(data), mmap.MADV_WILLNEED)


def _pages(data: Array) -> tuple[int, int]:
    """Address of the first page, and bytes from there to the end."""
    address: int = data.__array_interface__["data"][0]
    return address - address % mmap.PAGESIZE, data.nbytes + address % mmap.PAGESIZE
