"""Folders of a local or mounted file system."""

import contextlib
import errno
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.errors import StoreError
from pipeline.files.base import Stat, TooLarge
from pipeline.files.regular import descriptor_of, open_regular, read_regular, refuse_links

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_TEMPORARY = ".tmp-"
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# Far from what a process may have open.
_OPEN_AT_ONCE = 64
_BUFFER_BYTES = 1 << 20


class LocalFiles:
    """`Files` in a local folder. Writes are on disk (fsync of the file and its folder) when they return.

    What is read must be a regular file. Links are followed to read, and never to write or to delete: the folder itself
    may be one, but none below it.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = str(root)
        self._root = Path(root)

    def path(self, path: str) -> Path:
        """The operating system's path of a file here."""
        return self._root / path

    def folders(self, folder: str) -> list[str]:
        with self._scan(folder) as entries:
            return sorted(entry.name for entry in entries if _is(entry.is_dir, in_a_circle=False))

    def names(self, folder: str) -> list[str]:
        with self._scan(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(_TEMPORARY))

    def list(self, folder: str) -> list[str]:
        with self._scan(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if _is(entry.is_file, in_a_circle=True) and not entry.name.startswith(_TEMPORARY)
            )

    def level(self, folder: str, beginning: str = "") -> dict[str, Stat]:
        return _stats(self._root / folder, (name for name in self.list(folder) if name.startswith(beginning)))

    def stat(self, path: str) -> Stat:
        return _stat(f"{self.root}/{path}")

    def stats(self, folder: str) -> dict[str, Stat]:
        top = self._root / folder
        inside = (Path(parent, name).relative_to(top) for parent, _, names in os.walk(top) for name in names)
        return _stats(top, (path.as_posix() for path in inside))

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if not start and length is None:
            return read_regular(self._root / path)
        with open_regular(self._root / path) as file:
            file.seek(start)
            return file.read(-1 if length is None else length)

    def read_end(self, path: str, length: int) -> tuple[bytes, int]:
        with (self._root / path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - length, 0))
            return file.read(length), size

    def open(self, path: str, start: int = 0, length: int | None = None) -> BinaryIO:
        if not start and length is None:
            return open_regular(self._root / path, _BUFFER_BYTES)
        file: Any = open_regular(self._root / path, 0)
        size = os.fstat(file.fileno()).st_size
        stop = size if length is None else min(start + length, size)
        return io.BufferedReader(_Stretch(file, start, max(start, stop)), _BUFFER_BYTES)

    def fetch(self, path: str, most: int | None = None) -> tuple[bytes, Stat]:
        # Without a file object: collections of millions of small files are read by this.
        descriptor = descriptor_of(f"{self.root}/{path}")
        try:
            before = _stat_of(os.fstat(descriptor))
            if most is not None and before.bytes > most:
                raise TooLarge(before, most, f"{self.root}/{path}")
            data = os.read(descriptor, before.bytes + 1)
            while 0 < len(data) < before.bytes and (more := os.read(descriptor, before.bytes + 1 - len(data))):
                data += more
            if len(data) != before.bytes:
                raise OSError(errno.EBUSY, "it was written while it was read", f"{self.root}/{path}")
        finally:
            os.close(descriptor)
        return data, before

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        with self._written_beside(path, data, durable) as temporary:
            temporary.replace(self._root / path)

    def put_if_absent(self, path: str, data: bytes, durable: bool = True) -> bool:
        with self._written_beside(path, data, durable) as temporary:
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
            finally:
                temporary.unlink(missing_ok=True)
            return True

    def put_folder(self, folder: str, contents: Mapping[str, bytes], staging: str) -> dict[str, Stat]:
        target, staged = self._ours(folder), self._ours(staging)
        make_folder(target.parent)
        make_folder(staged.parent)
        _write_tree(staged, contents)
        # The name in `staging` needs no fsync: nothing speaks of it, and the rename gives it up.
        staged.rename(target)
        sync_folder(target.parent)
        return _stats(target, contents)

    def delete(self, path: str) -> None:
        self._ours(path).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._ours(folder))

    def _ours(self, path: str) -> Path:
        """Where a file or folder is written or deleted. Raises OSError where a link leads there."""
        refuse_links(self.root, path)
        return self._root / path

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
    def _written_beside(self, path: str, data: bytes, durable: bool) -> Iterator[Path]:
        """A temporary file beside `path`, durable if wanted; then so are the names in its folder after the body."""
        target = self._ours(path)
        make_folder(target.parent)
        temporary = target.with_name(f"{_TEMPORARY}{target.name}.{secrets.token_hex(4)}")
        try:
            with _created(temporary) as descriptor:
                _write(descriptor, data)
                if durable:
                    os.fsync(descriptor)
            yield temporary
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(target.parent)


def _is(kind: Callable[[], bool], in_a_circle: bool) -> bool:
    """Whether an entry of a folder is of a kind. Links in a circle count as a file: who reads it is told."""
    try:
        return kind()
    except OSError:
        return in_a_circle


class _Stretch(io.RawIOBase):
    """Some bytes of an open file, as if they were all."""

    def __init__(self, file: io.FileIO, start: int, stop: int) -> None:
        self._file = file
        self._start = start
        self._stop = stop
        self._at = start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: self._start, io.SEEK_CUR: self._at, io.SEEK_END: self._stop}[whence]
        self._at = origin + offset
        return self._at - self._start

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        count = os.preadv(self._file.fileno(), [view[: max(0, self._stop - self._at)]], self._at)
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _stat(path: str | Path) -> Stat:
    try:
        return _stat_of(os.stat(path))  # noqa: PTH116 - asked of millions of files
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return _stat_of(os.lstat(path))  # links in a circle: of the first one


def _stat_of(found: os.stat_result) -> Stat:
    return Stat(found.st_size, str(found.st_mtime_ns))


def _stats(folder: Path, paths: Iterable[str]) -> dict[str, Stat]:
    """What is known of files in a folder, by path; nothing of one that is not there."""
    found = {}
    for path in paths:
        try:
            found[path] = _stat(folder / path)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
    return found


@contextlib.contextmanager
def _created(path: Path) -> Iterator[int]:
    """The descriptor of a new file. `open` would ask the system four things about it that nobody needs to know."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _write_tree(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Create a folder with files at their paths, in that order; all of it is durable but the folder's own name."""
    inside = sorted({parent for path in contents for parent in PurePosixPath(path).parents})  # parents come first
    folder.mkdir()
    for path in inside[1:]:
        (folder / path).mkdir()
    names = list(contents)
    for start in range(0, len(names), _OPEN_AT_ONCE):
        _write_files(folder, {name: contents[name] for name in names[start : start + _OPEN_AT_ONCE]})
    for path in reversed(inside):
        sync_folder(folder / path)


def _write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    with contextlib.ExitStack() as opened:
        descriptors = []
        for name, data in contents.items():
            descriptors.append(opened.enter_context(_created(folder / name)))
            _write(descriptors[-1], data)
        # Only now: a journal takes all of them to the disk at once.
        for descriptor in descriptors:
            os.fsync(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents where they are missing, and make their names durable."""
    if folder.is_dir():
        return
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
