"""Folders of a local or mounted file system."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import StoreError
from pipeline.files.base import Stat

_TEMPORARY = ".tmp-"


class LocalFiles:
    """`Files` in a local folder. Writes are on disk (fsync of the file and its folder) when they return."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = str(root)
        self._root = Path(root)

    def path(self, path: str) -> Path:
        """The operating system's path of a file here."""
        return self._root / path

    def folders(self, folder: str) -> list[str]:
        with self._scan(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def list(self, folder: str) -> list[str]:
        with self._scan(folder) as entries:
            return sorted(e.name for e in entries if e.is_file() and not e.name.startswith(_TEMPORARY))

    def stat(self, path: str) -> Stat:
        return _stat(self._root / path)

    def stats(self, folder: str) -> dict[str, Stat]:
        top = self._root / folder
        found = {}
        for parent, _, names in os.walk(top):
            for name in names:
                path = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    found[path.relative_to(top).as_posix()] = _stat(path)
        return found

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        with (self._root / path).open("rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)

    def open(self, path: str) -> BinaryIO:
        return (self._root / path).open("rb", buffering=1 << 20)

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

    def put_folder(self, folder: str, contents: Mapping[str, bytes], staging: str) -> None:
        target, staged = self._root / folder, self._root / staging
        make_folder(target.parent)
        make_folder(staged.parent)
        staged.mkdir()
        for path, data in contents.items():
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).write_bytes(data)
        sync_tree(staged)
        sync_folder(staged.parent)
        staged.rename(target)
        sync_folder(target.parent)

    def delete(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._root / folder)

    @contextlib.contextmanager
    def _scan(self, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        try:
            scan = os.scandir(self._root / folder)
        except FileNotFoundError:
            yield iter(())
            return
        with scan:
            yield scan

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


def _stat(path: Path) -> Stat:
    found = path.stat()
    return Stat(found.st_size, str(found.st_mtime_ns))


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
