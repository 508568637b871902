"""One interface for whole files and byte ranges, on local folders today and object stores later.

Source shards, claims, commits and the manifest are read and written through it and nothing else, so that
another place to keep them is a second implementation of `Files` and not a rewrite. Paths are POSIX and
relative to the root that the object was made for.
"""

import contextlib
import errno
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.errors import ConfigError, StoreError

_TEMPORARY = ".tmp-"


class Files(Protocol):
    """Files below one root, named by POSIX paths relative to it."""

    root: str

    def list(self, folder: str) -> list[str]:
        """Names of the finished files directly inside `folder`, sorted; empty when there is no folder."""

    def size(self, path: str) -> int:
        """Size in bytes. Raises FileNotFoundError."""

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes from `start` (to the end without `length`); fewer only where the file ends.

        Raises FileNotFoundError.
        """

    def put(self, path: str, data: bytes) -> None:
        """Write or replace a file: readers see the old bytes or the new ones, and the new ones last."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create a file, atomically and only if there is none. Returns whether it was created here."""

    def delete(self, path: str) -> None:
        """Remove a file; a missing one is fine."""


class LocalFiles:
    """`Files` in a local folder. Writes are on disk (fsync of the file and its folder) when they return."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = str(root)
        self._root = Path(root)

    def path(self, path: str) -> Path:
        """The operating system's path of a file here, for writers of whole folders."""
        return self._root / path

    def list(self, folder: str) -> list[str]:
        try:
            with os.scandir(self._root / folder) as entries:
                return sorted(e.name for e in entries if e.is_file() and not e.name.startswith(_TEMPORARY))
        except FileNotFoundError:
            return []

    def size(self, path: str) -> int:
        return (self._root / path).stat().st_size

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        with (self._root / path).open("rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)

    def put(self, path: str, data: bytes) -> None:
        with self._written_beside(path, data) as temporary:
            temporary.replace(self._root / path)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        with self._written_beside(path, data) as temporary:
            try:
                # `rename` would silently overwrite; `link` is the one call that creates or fails.
                os.link(temporary, self._root / path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                    raise StoreError(
                        f"{self._root}: this file system has no hard links, which commits need to be atomic; "
                        "put the store on one that has (ext4, xfs, btrfs, zfs, nfs, lustre)"
                    ) from error
                raise
            return True

    def delete(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _written_beside(self, path: str, data: bytes) -> Iterator[Path]:
        """A durable temporary file beside `path`; its folder is synced when the body is done."""
        target = self._root / path
        make_folder(target.parent)
        temporary = target.with_name(f"{_TEMPORARY}{target.name}.{secrets.token_hex(4)}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)


class _RangeReader(io.RawIOBase):
    """One file of a `Files`, read forward."""

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        data = self._files.read(self._path, self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_stream(files: Files, path: str, buffer_bytes: int = 1 << 20) -> BinaryIO:
    """A buffered stream over one file, read forward in ranges of `buffer_bytes`."""
    return io.BufferedReader(_RangeReader(files, path), buffer_bytes)


def files_at(url: str) -> LocalFiles:
    """The `Files` for a folder or URL.

    Raises ConfigError for a URL scheme that this version cannot open.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalFiles(Path(url).expanduser())
    if scheme == "file":
        return LocalFiles(rest)
    raise ConfigError(
        f"{scheme}:// is not supported yet ({url.partition('?')[0]}); copy the data to a local or mounted folder"
    )


def make_folder(folder: Path) -> None:
    """Create a folder and its parents where they are missing, and make their names durable."""
    missing = [created for created in (folder, *folder.parents) if not created.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for created in missing:
        sync_folder(created.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file and folder below `folder`, and `folder` itself, durable."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))
