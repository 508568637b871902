"""A folder of files that several processes fill and read, and that stays below a size.

FOLDER/<name>.file      a whole file; its modification time says when it was last opened
FOLDER/<name>.coming    one on its way, of its full size already, under the lock of who writes it
FOLDER/.taken           the lock under which files get room, appear and are evicted; holds the bytes taken by all

A file counts with the blocks of the disk that it takes. Whoever holds no lock is dead or done: a `.coming` that can be
locked is taken over or swept. The bytes in `.taken` may be too many (a writer failed or was killed, a file was deleted
by hand), never too few, and are counted anew before anything is evicted. Only files with these endings are counted and
deleted. Lock order: `.coming`, then `.taken`.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.files.locks import is_at, lock, try_lock, unlock
from pipeline.files.regular import open_regular

_READY = ".file"
_COMING = ".coming"
_LEDGER = ".taken"

BLOCK = 4096
"""What files take a multiple of, on most file systems."""
_STAT_BLOCK = 512  # what stat(2) counts in, whatever the file system

_PAUSE_SECONDS = 0.05

# When room is made, at least one of so many files goes: the folder is not searched anew for every file.
_EVICTED_SHARE = 32

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors of a folder that takes no more, but has what it has."""


class FolderFull(OSError):
    """There is no room for another file: the disk is full, or it is read-only now."""


class _File(NamedTuple):
    """A whole file; the one unused for longest sorts first."""

    used_ns: int
    bytes: int
    """On the disk."""
    path: str


class BoundedFolder:
    """Files by name, at most `max_bytes` on the disk, counting those on their way in all processes.

    Deleting a file that somebody has open or mapped is harmless on POSIX: it is readable until the last one closes
    it, and only then is its space free. So files are handed out open, never as paths, and what readers keep open
    beyond its eviction comes on top of `max_bytes`.

    Every method raises OSError with a message for users where the folder cannot be written; FolderFull, which is one,
    where that is for want of room.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._is_counted = False

    def fits(self, size: int) -> bool:
        """Whether a file of so many bytes may be here, if it has all the room."""
        return _on_disk(size) <= self.max_bytes

    def find(self, name: str, size: int | None = None) -> BinaryIO | None:
        """The file of that name, where it is whole here, and of this size where one is named."""
        with self._explained():
            return self._find(name, size)

    def open(self, name: str, size: int, blocks: Iterable[bytes]) -> BinaryIO:
        """The file of that name, written from `blocks` if it is not there, by one process or thread while others wait.

        It appears when the last block is written; what `blocks` raises is raised, and nothing appears.
        """
        assert self.fits(size)
        while True:
            with self._explained():
                file = self._find(name, size)
                descriptor = None if file else lock(self._made(name + _COMING))
            if descriptor is not None:
                file = self._fill(descriptor, name, size, blocks)
            if file is not None:
                return file
            time.sleep(_PAUSE_SECONDS)  # files on their way take all the room

    def bring(self, name: str, size: int, blocks: Iterable[bytes]) -> None:
        """`open` for later: does nothing while another brings the file, or where there is no room now."""
        with self._explained():
            file = self._find(name, size)
            descriptor = None if file else try_lock(self._made(name + _COMING))
        if descriptor is not None:
            file = self._fill(descriptor, name, size, blocks)
        if file is not None:
            file.close()

    def discard(self, name: str) -> None:
        """Delete the file of that name, if there is one. Who has it open can read it on."""
        with self._explained():
            (self.folder / (name + _READY)).unlink(missing_ok=True)

    def _find(self, name: str, size: int | None) -> BinaryIO | None:
        try:
            file = open_regular(self.folder / (name + _READY))
        except FileNotFoundError:
            return None
        if size is not None and os.fstat(file.fileno()).st_size != size:
            file.close()
            return None
        # Another user's file, or a folder that is read-only now: it may be evicted too early, no more.
        with contextlib.suppress(OSError):
            os.utime(file.fileno())
        return file

    def _made(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def _fill(self, descriptor: int, name: str, size: int, blocks: Iterable[bytes]) -> BinaryIO | None:
        """The file, written under its lock unless another was faster; None where there is no room now."""
        coming = self.folder / (name + _COMING)
        try:
            with self._explained():
                if file := self._find(name, size):
                    return file
                if not self._reserve(descriptor, coming, size):
                    return None
            return self._receive(descriptor, coming, size, blocks)
        finally:
            with contextlib.suppress(OSError):
                if is_at(descriptor, coming):
                    coming.unlink()
            unlock(descriptor)

    def _receive(self, descriptor: int, coming: Path, size: int, blocks: Iterable[bytes]) -> BinaryIO:
        ready = coming.with_suffix(_READY)
        for block in blocks:
            with self._explained():
                _write(descriptor, block)
        with self._explained():
            # Else a power cut may leave the renamed file full of zeros.
            getattr(os, "fdatasync", os.fsync)(descriptor)  # macOS has no fdatasync
            with self._ledger() as ledger:
                taken = _read_taken(ledger)
                if taken is not None:
                    _write_taken(ledger, max(taken - _on_disk(size) + _blocks_of(os.fstat(descriptor)), 0))
                coming.replace(ready)
                return ready.open("rb")

    def _reserve(self, descriptor: int, coming: Path, size: int) -> bool:
        """Give a file on its way its size, if there is or can be made room for it."""
        needed = _on_disk(size)
        with self._ledger() as ledger:
            taken = _read_taken(ledger)
            if taken is None or taken + needed > self.max_bytes or not self._is_counted:
                taken = self._make_room(needed, coming)
                _write_taken(ledger, taken)
                self._is_counted = True
            if taken + needed > self.max_bytes:
                return False
            _write_taken(ledger, taken + needed)
            os.ftruncate(descriptor, size)
            return True

    def _make_room(self, size: int, own: Path) -> int:
        """Evict what was opened longest ago until `size` more fit, unless nothing can help. Returns the bytes taken."""
        on_the_way, files = 0, []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(_COMING) and entry.name != own.name:
                    on_the_way += _size_or_sweep(Path(entry))
                elif entry.name.endswith(_READY):
                    with contextlib.suppress(FileNotFoundError):  # deleted by hand
                        stat = entry.stat()
                        files.append(_File(stat.st_mtime_ns, _blocks_of(stat), entry.path))
        taken = on_the_way + sum(file.bytes for file in files)
        if taken + size <= self.max_bytes or on_the_way + size > self.max_bytes:
            return taken
        for number, file in enumerate(sorted(files)):
            if taken + size <= self.max_bytes and number >= len(files) // _EVICTED_SHARE:
                break
            Path(file.path).unlink(missing_ok=True)
            taken -= file.bytes
        return taken

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[int]:
        descriptor = lock(self.folder / _LEDGER)
        try:
            yield descriptor
        finally:
            unlock(descriptor)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = FolderFull if error.errno in _FULL else OSError
            raise kind(
                error.errno,
                f"{error.strerror}; a cache of up to {self.max_bytes:,} bytes is kept here: see to the disk, allow it "
                "fewer bytes, or name another folder",
                str(self.folder),
            ) from error


def _size_or_sweep(coming: Path) -> int:
    """Bytes that a file on its way takes; one that nobody writes any more is deleted."""
    descriptor = try_lock(coming)
    try:
        if descriptor is not None:
            coming.unlink(missing_ok=True)
            return 0
        return _on_disk(coming.stat().st_size)
    except FileNotFoundError:
        return 0  # its writer gave up
    finally:
        if descriptor is not None:
            unlock(descriptor)


def _on_disk(size: int) -> int:
    """What a file of so many bytes will take, in the blocks of most file systems."""
    return -(-size // BLOCK) * BLOCK


def _blocks_of(stat: os.stat_result) -> int:
    """What a file does take, in bytes."""
    return stat.st_blocks * _STAT_BLOCK


def _read_taken(ledger: int) -> int | None:
    digits = os.pread(ledger, 32, 0)
    return int(digits) if digits.isdigit() else None


def _write_taken(ledger: int, taken: int) -> None:
    os.pwrite(ledger, b"%020d" % taken, 0)


def _write(descriptor: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(descriptor, left) :]
