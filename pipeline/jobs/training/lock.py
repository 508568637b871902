"""One training at a time in a tokenizer folder."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import TokenizerError
from pipeline.files.locks import try_lock, unlock

_FOLDERS = ("checkpoints", "holdout", "listings", "reconstructions", "tensorboard")

# What flock(2) says on a file system that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Make the folder and hold it for this process; the end of the process, whatever it dies of, lets go.

    A file system without locks is trusted to have one user. Raises TokenizerError while another process
    holds the folder, when it cannot be written, and where a folder in it is a link: training would write and delete
    where that leads.
    """
    for name in _FOLDERS:
        if (folder / name).is_symlink():
            raise TokenizerError(
                f"{folder / name}: is a link, and training writes and deletes in it; put the folder itself in its "
                "place, or name a tokenizer.path on the other disk"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = try_lock(folder / ".lock")
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise TokenizerError(f"{folder}: cannot be written as the tokenizer folder: {error}") from error
        yield
        return
    if held is None:
        raise TokenizerError(f"{folder}: another process is training there; wait for it, or end it")
    try:
        yield
    finally:
        unlock(held)
