"""Opening files that a stranger may have put in their places.

Only regular files are read: a FIFO would be waited for, and a device such as /dev/zero has no end. A link to a regular
file is followed when it is read, for snapshots of hubs are made of such. Nothing is written or deleted through links.
"""

import errno
import os
import stat
from typing import BinaryIO


def descriptor_of(path: str | os.PathLike[str]) -> int:
    """A regular file, open for reading, as a descriptor. Raises OSError naming it for anything else."""
    # Without O_NONBLOCK the call would wait for somebody to write into a FIFO. On regular files it changes nothing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.ENXIO, "it is a FIFO or a device, and only regular files are read", str(path))


def open_regular(path: str | os.PathLike[str], buffering: int = -1) -> BinaryIO:
    """A regular file, open for reading. Raises OSError as `descriptor_of` does."""
    return open(path, "rb", buffering, opener=lambda name, flags: descriptor_of(name))


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """All of a regular file. Raises OSError as `descriptor_of` does, and for one that does not fit into memory."""
    with open_regular(path) as file:
        try:
            return file.read()
        except MemoryError:
            size = os.fstat(file.fileno()).st_size
            raise OSError(errno.ENOMEM, f"its {size:,} bytes do not fit into memory", str(path)) from None


def refuse_links(root: str | os.PathLike[str], path: str) -> None:
    """Raise OSError where a folder on the way from `root` to `path` is a link: what is written or deleted lies below.

    The last step may be one: it is replaced or deleted itself, and not followed.
    """
    if path.startswith("/") or ".." in path.split("/"):
        raise OSError(errno.EINVAL, "it leads out of its folder", f"{root}/{path}")
    if link := link_on_the_way(root, path.rpartition("/")[0]):
        raise OSError(
            errno.ELOOP,
            "it is a link, and nothing is written or deleted through one; put the folder itself in its place",
            link,
        )


def link_on_the_way(root: str | os.PathLike[str], folder: str) -> str | None:
    """The first link among the folders below `root`, which may be one, to a folder there; None where there is none."""
    place = f"{root}"
    for step in filter(None, folder.split("/")):
        place = f"{place}/{step}"
        try:
            mode = os.lstat(place).st_mode
        except FileNotFoundError:
            return None  # and so is all that is below it
        if stat.S_ISLNK(mode):
            return place
    return None
