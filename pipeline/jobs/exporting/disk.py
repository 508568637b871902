"""Files that are whole or not there, and large files whose rows are written in any order."""

import contextlib
import errno
import io
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.errors import ExportError
from pipeline.store.types import Array

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


@contextlib.contextmanager
def full_disk_explained(kept: Path) -> Iterator[None]:
    """Say what to do about a full disk.

    Args:
        kept: the folder in which what has been written stays.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ExportError(
            f"{error.filename or kept}: {os.strerror(error.errno)}; what has been written stays in {kept}: make room "
            "and run the same command again to go on, or delete it"
        ) from error


@contextlib.contextmanager
def whole_file(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """A file that takes its name when the body has ended well, with its bytes on the disk by then.

    Args:
        temporary: folder of the same file system for it until then.
    """
    unfinished = temporary / secrets.token_hex(8)
    try:
        with named(path), unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Name a file in errors of the operating system that name none, as those of writes do not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@dataclass(frozen=True)
class RowFile:
    """A file of a header and rows of one size, which processes write in any order.

    Rows are shaped `row_shape`, of `dtype`.
    """

    path: Path
    header: bytes
    dtype: str
    row_shape: tuple[int, ...]
    count: int

    @cached_property
    def row_bytes(self) -> int:
        """Of one row."""
        return int(np.prod(self.row_shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def reserve(self) -> None:
        """Make the file in its full size and write the header; rows that are there already stay.

        Raises OSError where the disk has no room for it, as far as its file system can tell.
        """
        size = len(self.header) + self.row_bytes * self.count
        # Also for reading: where the file system cannot reserve, as NFS before 4.2, glibc looks at each block.
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with named(self.path):
                os.ftruncate(descriptor, size)
                _reserve(descriptor, size)
                _write_at(descriptor, self.header, 0)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def rows(self) -> Iterator["RowWriter"]:
        """What writes rows; they are on the disk when the body has ended well."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            with named(self.path):
                yield RowWriter(self, descriptor)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class RowWriter:
    """An open RowFile."""

    file: RowFile
    descriptor: int

    def write(self, first: int, rows: Array) -> None:
        """Write rows [n, *row_shape], the first one as row `first` of the file."""
        assert rows.shape[1:] == self.file.row_shape, (rows.shape, self.file.row_shape)
        data = np.ascontiguousarray(rows, np.dtype(self.file.dtype).newbyteorder("<")).reshape(-1).view(np.uint8)
        _write_at(self.descriptor, data.data, len(self.file.header) + first * self.file.row_bytes)


def _reserve(descriptor: int, size: int) -> None:
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise


def _write_at(descriptor: int, data: bytes | memoryview, position: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, position)
        left, position = left[written:], position + written


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What stands before the elements in a `.npy` file."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype).newbyteorder("<"))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()
