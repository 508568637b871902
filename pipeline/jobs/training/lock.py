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
    """Hold the folder for this process; its end by whatever means lets go.

    A file system without locks is trusted to have one user. Raises TokenizerError while another process
    holds the folder.
    """
    with (folder / ".lock").open("wb") as file:
        try:
            # Not `flock`: worker processes would inherit it and outlive a killed parent with it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD_ELSEWHERE:
                raise TokenizerError(f"{folder}: another process is training there; wait for it, or end it") from error
        yield
