"""Local copies of the files of parts, for stores that are far away."""

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pipeline.errors import ConfigError, CorruptStore
from pipeline.files import Files
from pipeline.files.damage import damaged
from pipeline.records import digest_of
from pipeline.store.cache.background import Background
from pipeline.store.cache.folder import BLOCK, BoundedFolder, FolderFull
from pipeline.store.schema import names
from pipeline.store.schema.commits import FileRecord, remedy
from pipeline.store.schema.sizes import Checksum

# A stream over an object holds two of these.
_BLOCK_BYTES = 8 << 20
# Their metadata, their chunk file, and what the commit says of both.
_FILES_OF_TOKENS = 3
# After which a folder that took no more is tried again.
_FULL_SECONDS = 60.0


class _CacheStopped(Exception):
    """The cache was closed, or the process ends, in the middle of a download that nobody waits for."""


class PartCache:
    """Files of committed attempts in a local folder, which many stores, processes and threads may share.

    Args:
        folder: made when it is first needed. Its file system must have flock(2): a local disk or tmpfs.
        max_bytes: what the folder may take, in whole blocks of the disk; what was opened longest ago is evicted, by any
            process that needs room.
        threads: how many files `prefetch` downloads at a time, with some 16 MiB of memory for each.

    Nothing in a copy's name is chosen by a machine or a process: it follows from the store's URL, the path, and the
    size, checksum and entity tag of the commit record, so that another generation of a store has other copies. Works in
    forked and in spawned processes, as far as the `Files` do.
    """

    def __init__(self, folder: Path, max_bytes: int, threads: int = 8) -> None:
        self._folder = BoundedFolder(Path(folder).expanduser().absolute(), max_bytes)
        self._threads = threads
        self._background = Background(threads)
        self._full, self._full_until = "", 0.0
        self._has_warned = False

    def __reduce__(self) -> tuple[type["PartCache"], tuple[Path, int, int]]:
        return PartCache, (self._folder.folder, self.max_bytes, self._threads)

    def __enter__(self) -> "PartCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def max_bytes(self) -> int:
        """What the folder may take."""
        return self._folder.max_bytes

    def bytes_of(self, part_bytes: int) -> int:
        """What the tokens of a part take of it at most: its bytes, and a block of the disk more for each file."""
        return part_bytes + _FILES_OF_TOKENS * BLOCK

    def open(self, files: Files, path: str, record: FileRecord) -> BinaryIO:
        """A file of a committed attempt, open for reading, downloaded if there is no copy. Blocks.

        It can be read and mapped until it is closed, even when it is evicted meanwhile; close it after mapping it. A
        forked process shares its position: map it there, or use os.pread.

        Args:
            files: the store.
            path: relative to the store's root.
            record: what the commit says of it.

        Raises CorruptStore where the store holds something else, ConfigError for a file larger than the whole cache,
        and OSError where the store cannot be reached or the folder cannot be written: FolderFull for want of room.
        """
        if not self._folder.fits(record.bytes):
            raise ConfigError(
                f"{files.root}/{path}: its {record.bytes:,} bytes are more than the {self.max_bytes:,} bytes that the "
                f"cache in {self._folder.folder} may take; raise its max_bytes"
            )
        try:
            return self._open(files, path, record)
        except CorruptStore:
            return self._open(files, path, record)  # it may have been damaged on its way

    def _open(self, files: Files, path: str, record: FileRecord) -> BinaryIO:
        with self._noticing(), contextlib.closing(_checked_blocks(files, path, record)) as blocks:
            return self._folder.open(_name(files, path, record), record.bytes, blocks)

    def open_if_room(self, files: Files, path: str, record: FileRecord) -> BinaryIO | None:
        """`open`; None where the disk of the folder takes no more, which is said once, and tried again after a while.

        Raises as `open` does, but for FolderFull.
        """
        file = None
        if self._is_full:
            file = self._folder.find(_name(files, path, record), record.bytes)
        else:
            with contextlib.suppress(FolderFull):
                file = self.open(files, path, record)
        if file is None and not self._has_warned:
            self._has_warned = True
            warnings.warn(f"{self._full}. What has no room is read from {files.root} each time", stacklevel=2)
        return file

    def keep(self, name: str, data: bytes) -> None:
        """Keep a small file under a name of its own, if there is room; errors of the folder are left to others."""
        if self._folder.fits(len(data)) and not self._is_full:
            with contextlib.suppress(OSError), self._noticing():
                self._folder.bring(name, len(data), [data])

    def kept(self, name: str) -> bytes | None:
        """What `keep` kept under a name, as far as it is still there; whether it is whole is for the caller to see."""
        with contextlib.suppress(OSError):
            if (file := self._folder.find(name)) is not None:
                with file:
                    return file.read()
        return None

    def forget(self, name: str) -> None:
        """Delete what `keep` kept under a name, if it can be deleted."""
        with contextlib.suppress(OSError):
            self._folder.discard(name)

    @property
    def _is_full(self) -> bool:
        return time.monotonic() < self._full_until

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        """Remember when the folder took no more: what is fetched for it meanwhile would be fetched in vain."""
        try:
            yield
        except FolderFull as error:
            self._full, self._full_until = str(error), time.monotonic() + _FULL_SECONDS
            raise

    def discard(self, files: Files, path: str, record: FileRecord) -> None:
        """Delete the copy of a file, if there is one: it is damaged, and the next `open` downloads it again."""
        self._folder.discard(_name(files, path, record))

    def prefetch(self, files: Files, wanted: Iterable[tuple[str, FileRecord]]) -> None:
        """Begin to download files, in this order, several at a time; returns at once.

        A hint: errors are left to `open`, which tries again. Who asks for more than `max_bytes` before opening any of
        it has the first evicted by the last.
        """
        self.later([partial(self.bring, files, path, record) for path, record in wanted])

    def later(self, calls: Iterable[Callable[[], None]]) -> None:
        """Make calls, such as of `bring`, as `prefetch` does: in order, several at a time, in the background.

        Returns at once. They raise nothing.
        """
        self._own_background().add(calls)

    def close(self) -> None:
        """End what `prefetch` began. `open` works on, and so do open files."""
        self._own_background().close()

    def _own_background(self) -> Background:
        if self._background.pid != os.getpid():
            self._background = Background(self._threads)  # a fork has none of its parent's threads
        return self._background

    def bring(self, files: Files, path: str, record: FileRecord) -> None:
        """Download a file for later, in the background. Raises nothing: whatever it is, `open` meets it again."""
        if self._is_full or not self._folder.fits(record.bytes):
            return
        with (
            contextlib.suppress(Exception),
            self._noticing(),
            contextlib.closing(_checked_blocks(files, path, record)) as blocks,
        ):
            self._folder.bring(_name(files, path, record), record.bytes, self._until_stopped(blocks))

    def _until_stopped(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            if self._background.is_stopping:
                raise _CacheStopped
            yield block


def _name(files: Files, path: str, record: FileRecord) -> str:
    return digest_of([files.root, path, record.bytes, record.sha256 or record.crc32c, record.etag])


def _checked_blocks(files: Files, path: str, record: FileRecord) -> Generator[bytes, None, None]:
    """The contents, no more bytes than recorded. Raises CorruptStore, at the latest at the end, where they differ."""
    size, checksum = 0, Checksum(record)
    try:
        for block in _blocks(files, path, record.bytes):
            size += len(block)
            if size > record.bytes:
                raise _damaged(files, path, f"longer than the {record.bytes:,} bytes of its commit")
            checksum.add(block)
            yield block
    except FileNotFoundError:
        raise _damaged(files, path, "missing") from None
    if size != record.bytes:
        raise _damaged(files, path, f"{size:,} bytes, {record.bytes:,} bytes when it was committed")
    if not checksum.is_right():
        raise _damaged(files, path, "the checksum is not that of the commit")


def _blocks(files: Files, path: str, size: int) -> Iterator[bytes]:
    if size <= _BLOCK_BYTES:
        yield files.read(path)  # one request, where a stream asks for the size first
        return
    with files.open(path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block


def _damaged(files: Files, path: str, what: str) -> CorruptStore:
    return damaged(files, path, f"{what}; {remedy(files, *names.attempt_of(path))}")
