"""A command in a process of its own: how long it takes, of which CPU time, and how much memory it has at most."""

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
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)
sys.exit(status)
"""


@dataclass(frozen=True)
class Measured:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    """Of all its threads and processes."""
    peak_mib: float
    """Largest resident memory."""


def run_measured(command: Sequence[str]) -> Measured:
    """Run a command without its output. Raises CalledProcessError where it fails."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _LAUNCHER, *command], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.monotonic() - started
    peak_kib, cpu_seconds = map(float, done.stdout.split())
    return Measured(seconds, cpu_seconds, peak_kib / 1024)
