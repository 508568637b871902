"""Several processes of one job on this machine.

Tokenizing processes share nothing but the store, so they need no rendezvous: unlike under torchrun, one that
dies does not take the others with it. `torchrun` and `accelerate launch` work as well.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pipeline
from pipeline.world import available_cores

_POLL_SECONDS = 1.0


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `vqtok arguments` in `processes` processes; returns the largest exit status.

    Each process finds its rank where torchrun would put it. Ctrl-C reaches all of them through the
    terminal; SIGTERM is passed on.
    """
    threads = max(1, available_cores() // processes)
    children: list[subprocess.Popen[bytes]] = []
    passed_on: list[int] = []

    def pass_on(signum: int, frame: object) -> None:
        passed_on.append(signum)
        for child in children:
            child.send_signal(signum)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    for rank in range(processes):
        environment = {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
        }
        children.append(subprocess.Popen([*_command(), *arguments], env=environment))
        for signum in passed_on:  # while this one began
            children[-1].send_signal(signum)
    statuses = [_wait(child) for child in children]
    return max(status if status >= 0 else 128 - status for status in statuses)


def _command() -> list[str]:
    """What starts `vqtok` of this very package. `-m pipeline` would prefer what lies in the working folder."""
    return [sys.executable, "-P", str(Path(pipeline.__file__).with_name("__main__.py"))]


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Its exit status; in short waits, for a signal in the moment before a wait does not end it."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_POLL_SECONDS)
