"""The time between looks at what other processes do."""

import time

_LONGEST_SECONDS = 5.0
# A look costs many requests in a large store elsewhere; most of the time nothing is asked for.
_TIMES_THE_LOOK = 5


class Pauses:
    """Pauses that become longer, so that thousands who wait do not keep a store busy.

    Args:
        shortest_s: seconds of the first one.
    """

    def __init__(self, shortest_s: float) -> None:
        self._next_s = shortest_s

    def next_s(self, looked: float) -> float:
        """Seconds to the next look; `looked` is when the last one began, by time.monotonic()."""
        pause_s = max(self._next_s, _TIMES_THE_LOOK * (time.monotonic() - looked))
        self._next_s = min(1.5 * self._next_s, _LONGEST_SECONDS)
        return pause_s
