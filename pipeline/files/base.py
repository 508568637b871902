"""What a place for files must be able to do, whether it is a folder or a bucket."""

import errno
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple, Protocol


class Stat(NamedTuple):
    """What is known of a file without reading it."""

    bytes: int
    modified: str
    """When it was last written, in the clock and format of its place: only equality means anything."""
    etag: str | None = None
    """An object store's own name for these contents."""

    @property
    def version(self) -> str:
        """Another text whenever the file has been written anew."""
        return self.etag or self.modified


class TooLarge(OSError):
    """A file has more bytes than are wanted."""

    def __init__(self, stat: Stat, most: int, name: str) -> None:
        super().__init__(errno.EFBIG, f"{stat.bytes:,} bytes, more than {most:,}", name)
        self.stat = stat


class Readable(Protocol):
    """Files that can at least be read from front to back, named by POSIX paths relative to a root."""

    root: str

    def open(self, path: str) -> BinaryIO:
        """A file to be read once, forward. Raises FileNotFoundError, at the latest when it is read."""


class Files(Readable, Protocol):
    """All that a store and its source need: files below one root.

    Every method raises OSError where the place refuses or cannot be reached.
    """

    def open(self, path: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """A file, or `length` bytes of it from `start` on, to be read once, forward. Raises FileNotFoundError, at the
        latest when it is read."""

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly inside `folder`, sorted; empty when there is no folder."""

    def names(self, folder: str) -> list[str]:
        """Names of all that is directly inside `folder`, sorted: finished files, and on a file system folders, too.

        For records that are known by their names alone: one that cannot be read must not pass for a missing one.
        """

    def list(self, folder: str) -> list[str]:
        """Names of the finished files directly inside `folder`, sorted; empty when there is no folder."""

    def level(self, folder: str, beginning: str = "") -> dict[str, Stat]:
        """The finished files directly inside `folder` whose names begin so, by name; empty when there is no folder."""

    def stat(self, path: str) -> Stat:
        """Size and version of a file. Raises FileNotFoundError."""

    def stats(self, folder: str) -> dict[str, Stat]:
        """All files below `folder`, at any depth, by their path relative to it; empty when there is no folder."""

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes from `start` (to the end without `length`); fewer only where the file ends.

        Raises FileNotFoundError.
        """

    def read_end(self, path: str, length: int) -> tuple[bytes, int]:
        """The last `length` bytes, all of a shorter file, and the size of the file. Raises FileNotFoundError."""

    def fetch(self, path: str, most: int | None = None) -> tuple[bytes, Stat]:
        """All of a file, and what is known of just these contents.

        Raises FileNotFoundError, and TooLarge for one of more than `most` bytes, of which nothing is kept.
        """

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        """Write or replace a file: readers see the old bytes or the new ones, and the new ones last.

        Args:
            durable: whether the file must survive a power cut once this has returned. Without, all processes see it
                just the same, and after a power cut it may be missing, empty or the old one.
        """

    def put_if_absent(self, path: str, data: bytes, durable: bool = True) -> bool:
        """Create a file, atomically and only if there is none. Returns whether it now holds our `data`.

        `durable` as in `put`.
        """

    def put_folder(self, folder: str, contents: Mapping[str, bytes], staging: str) -> dict[str, Stat]:
        """Create a folder with all its files; durable when this returns.

        Returns what the place says of them then, by their path in the folder.

        Where a place can, the folder appears at once and complete: until then its files lie in `staging`, a
        path of which the caller makes no other use. Elsewhere the files are written at the same time, and appear in
        any order.
        """

    def delete(self, path: str) -> None:
        """Remove a file; a missing one is fine."""

    def delete_folder(self, folder: str) -> None:
        """Remove a folder and all below it; a missing one is fine."""
