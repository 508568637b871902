"""Disks that are too full to write what training made."""

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import TokenizerError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def in_words(error: BaseException) -> str:
    """Why something could not be written.

    torch raises an error about its own bookkeeping while it deals with that of the operating system, which is the one
    that tells.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def free_bytes(folder: Path) -> int:
    """What is free where `folder` is, or will be."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free


def used_bytes(folder: Path) -> int:
    """What the files in `folder` take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def room(folder: Path, needed: int) -> str:
    """What is free where `folder` is, and what is needed."""
    return f"{_size(free_bytes(folder))} are free there, about {_size(needed)} are needed"


@contextlib.contextmanager
def explaining_a_full_disk(folder: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Raise TokenizerError in place of what the operating system says of a disk without room."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise TokenizerError(
            f"{error.filename or folder}: cannot be written: {error.strerror}; {room(folder, needed())}; "
            "make room, then the same command goes on"
        ) from error


def _size(count: int) -> str:
    unit, size = next(((unit, size) for unit, size in _UNITS if count >= size), _UNITS[-1])
    return f"{count / size:.1f} {unit}"
