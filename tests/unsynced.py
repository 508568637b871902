"""Imported, it keeps `os.fsync` from waiting for the disk in this process and its forks: nobody cuts a test's power.

The slow tests, and processes started by the operating system, wait as ever.
"""

import os

VARIABLE = "VQTOK_TESTS_WAIT_FOR_NO_DISK"
"""Set where it is to be kept."""

fsync = os.fsync
"""For those who need the bytes on the disk."""


def _fsync(descriptor: int) -> None:
    """Fails for what is no open file, as the real one does."""
    os.fstat(descriptor)


if VARIABLE in os.environ:
    os.fsync = _fsync  # type: ignore[assignment]
