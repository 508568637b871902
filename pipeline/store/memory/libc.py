"""The system calls for mapped memory that Python's `mmap` does not have: at a given address, or without a descriptor.

Each raises OSError where the operating system refuses, and all of them on a system without a C library to call, such
as Windows.
"""

import contextlib
import ctypes
import errno
import mmap
import os

_FIXED = 0x10
"""MAP_FIXED of Linux, macOS and the BSDs."""

# On Windows they are missing, and never used.
_SHARED, _PRIVATE, _ANON = (getattr(mmap, f"MAP_{name}", 0) for name in ("SHARED", "PRIVATE", "ANON"))

_NOTHING, _READ, _READ_WRITE = 0, 1, 3
"""PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE."""

_FAILED = ctypes.c_void_p(-1).value


def _load() -> "ctypes.CDLL | None":
    """The C library of this process; None on Windows, and in a Python that is linked without shared libraries."""
    with contextlib.suppress(OSError, TypeError, AttributeError):
        found = ctypes.CDLL(None, use_errno=True)
        found.mmap.restype = ctypes.c_void_p
        # The last is off_t, which is as wide as a pointer wherever a range is reserved.
        found.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        found.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        found.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        found.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        return found
    return None


_libc = _load()


def map_nothing(size: int, at: int | None = None, fixed: bool = True) -> int:
    """Addresses that fault, and that nothing else is mapped at. They take no memory, and count as none.

    Returns the first one: `at`, or where the operating system finds room, near `at` unless that is `fixed`.
    """
    return _map(size, _NOTHING, _PRIVATE | _ANON, -1, at, fixed)


def map_memory(size: int, at: int) -> int:
    """Zeros to be written to, in place of what is mapped at `at`."""
    return _map(size, _READ_WRITE, _PRIVATE | _ANON, -1, at, True)


def map_file(descriptor: int, size: int, at: int | None = None) -> int:
    """A file from its beginning, to be read, in place of what is mapped at `at`; what is beyond its end faults."""
    return _map(size, _READ, _SHARED, descriptor, at, True)


def unmap(address: int, size: int) -> None:
    """End what is mapped."""
    if _libc is not None:
        _libc.munmap(address, size)


def will_need(address: int, size: int) -> None:
    """Advise to read pages of a file, from the start of one. Refusals are not told: it is only advice."""
    if _libc is not None:
        _libc.madvise(address, size, mmap.MADV_WILLNEED)


def is_resident(address: int) -> bool:
    """Whether the page that starts there is in memory; true where that cannot be known."""
    page = ctypes.create_string_buffer(1)
    return _libc is None or bool(_libc.mincore(address, 1, page)) or bool(page.raw[0] & 1)


def _map(size: int, access: int, flags: int, descriptor: int, at: int | None, fixed: bool) -> int:
    if _libc is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    address: int | None = _libc.mmap(at, size, access, flags | (_FIXED if at and fixed else 0), descriptor, 0)
    if address is None or address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return address
