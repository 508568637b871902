"""Becomes a command that is told to end (SIGTERM) when whoever started it is gone: `leash.py PARENT COMMAND...`.

PARENT is the number of that process. A child of Ray's worker would outlive it otherwise: the worker is killed without
having a say. Only Linux knows this; elsewhere the command outlives a worker that is killed.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""prctl(2). It outlives execv, and not a fork."""


def main(parent: int, command: list[str]) -> None:
    # Whatever the worker does with signals, its child is to end by this one.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it was killed meanwhile
        sys.exit(128 + signal.SIGTERM)
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"vqtok: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
