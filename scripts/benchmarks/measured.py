"""A command in a process of its own: how long it takes, and how much memory it has at most."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

# What the kernel calls the peak of a process begins with the size of the one that started it, up to the moment at
# which the new program takes over: so a little one starts it.
_LAUNCHER = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


@dataclass(frozen=True)
class Measured:
    """What a command took."""

    seconds: float
    peak_mib: float
    """Largest resident memory."""


def run_measured(command: Sequence[str]) -> Measured:
    """Run a command without its output. Raises CalledProcessError where it fails."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _LAUNCHER, *command], stdout=subprocess.PIPE, text=True, check=True
    )
    return Measured(time.monotonic() - started, int(done.stdout) / 1024)
