"""How much CPU time was left over while something ran."""

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")


class IdleCores:
    """Begins to count when it is made.

    Args:
        cores: those of this process alone.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._started = time.monotonic()
        self._own = _own_seconds()
        self._machine = _machine_ticks()

    def share(self) -> float:
        """Of the CPU time, what nobody used so far: full is the machine, or the part of it that this process has."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        own = 1 - (_own_seconds() - self._own) / (seconds * self._cores)
        ticks = _machine_ticks()
        if ticks is None or self._machine is None or ticks[1] <= self._machine[1]:
            return max(own, 0.0)
        machine = (ticks[0] - self._machine[0]) / (ticks[1] - self._machine[1])
        return max(min(own, machine), 0.0)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _machine_ticks() -> tuple[int, int] | None:
    """Idle and all clock ticks of all cores, proc_stat(5); None elsewhere than on Linux."""
    try:
        ticks = [int(word) for word in _STAT.read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return ticks[3] + ticks[4], sum(ticks)
