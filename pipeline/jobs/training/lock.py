"""One training at a time in a tokenizer folder."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import TokenizerError

_HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN)


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Make the folder and hold it for this process; the end of the process, whatever it dies of, lets go.

    A file system without locks is trusted to have one user. Raises TokenizerError while another process
    holds the folder, and when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("wb")
    except OSError as error:
        raise TokenizerError(f"{folder}: cannot be written as the tokenizer folder: {error}") from error
    with file:
        try:
            # Not `flock`: worker processes would inherit it and outlive a killed parent with it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD_ELSEWHERE:
                raise TokenizerError(f"{folder}: another process is training there; wait for it, or end it") from error
        yield
