"""Errors for files of a store that are not as they must be."""

import contextlib
import errno
from collections.abc import Iterator, Sequence

from pipeline.errors import CorruptStore
from pipeline.files.base import Files
from pipeline.printing import printable

_NAMED = 5
_NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)


def damaged(files: Files, path: str, what: str) -> CorruptStore:
    """The error to raise; `what` says what is wrong with the file at `path` of a store."""
    return CorruptStore(f"{files.root}/{printable(path)}: {what}")


@contextlib.contextmanager
def naming_no_file(files: Files, path: str, what: str = "no file") -> Iterator[None]:
    """Raise CorruptStore where a folder, a loop of links, a FIFO or a device is in the place of a file, or a file in
    that of a folder.

    Other errors of the place go on as they are: the next try may not meet them.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise damaged(files, path, f"{what} ({error.strerror})") from None


def together(damage: Sequence[CorruptStore]) -> CorruptStore:
    """One error to raise for several, of which the first few are named."""
    more = f"; and {len(damage) - _NAMED:,} more files" if len(damage) > _NAMED else ""
    return CorruptStore("; ".join(map(str, damage[:_NAMED])) + more) if len(damage) > 1 else damage[0]
