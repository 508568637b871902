"""Keeps `os.fsync` from waiting for the disk in this process and those that import this module: nobody cuts its power.

The slow tests, and processes started by the operating system, wait as ever.
"""

import os

fsync = os.fsync
"""For those who need the bytes on the disk."""

_VARIABLE = "VQTOK_TESTS_WAIT_FOR_NO_DISK"


def wait_for_no_disk() -> None:
    """From now on."""
    os.environ[_VARIABLE] = "1"
    os.fsync = _fsync  # type: ignore[assignment]


def _fsync(descriptor: int) -> None:
    """Fails for what is no open file, as the real one does."""
    os.fstat(descriptor)


if _VARIABLE in os.environ:
    wait_for_no_disk()
