"""One training at a time in a tokenizer folder."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import TokenizerError
from pipeline.files.locks import try_lock, unlock

# What flock(2) says on a file system that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Make the folder and hold it for this process; the end of the process, whatever it dies of, lets go.

    A file system without locks is trusted to have one user. Raises TokenizerError while another process
    holds the folder, and when it cannot be written.
    """
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
