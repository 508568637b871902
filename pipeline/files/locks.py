"""Files held under flock(2): by one thread of one process at a time.

The kernel lets go of them when the process ends, whatever it dies of, so that no age and no process number needs
to be judged.
"""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:
    raise ImportError("vqtok runs on Linux and macOS; on Windows, use it in WSL") from None

_held: set[int] = set()


def lock(path: Path) -> int:
    """Wait for the lock of a file, which is made if it is missing. Returns its open descriptor, for `unlock`."""
    while True:
        descriptor = _locked(path, fcntl.LOCK_EX)
        if is_at(descriptor, path):
            return descriptor
        unlock(descriptor)  # renamed or deleted while we waited


def try_lock(path: Path) -> int | None:
    """`lock` without the waiting: None where another has it."""
    while True:
        try:
            descriptor = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if is_at(descriptor, path):
            return descriptor
        unlock(descriptor)


def unlock(descriptor: int) -> None:
    """Let go of a lock and close its file."""
    _held.discard(descriptor)
    # Closing alone would leave the lock to a process that was forked meanwhile.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still names an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _locked(path: Path, operation: int) -> int:
    # A link could lead to a file that is not ours, or make one.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        _held.discard(descriptor)
        os.close(descriptor)
        raise
    return descriptor


def _leave_to_parent() -> None:
    # A fork shares the open files, and so the locks: a worker would hold those of its parent after the parent was
    # killed. Closing them here takes nothing from a parent that lives.
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
