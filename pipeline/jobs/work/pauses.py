"""The time between looks at what other processes do."""

import random
import time

_LONGEST_SECONDS = 5.0
_GROWTH = 1.5
_JITTER = 0.2
# A look costs many requests in a large store elsewhere; most of the time nothing is asked for.
_TIMES_THE_LOOK = 5


class Pauses:
    """Pauses that become longer, and no two alike, so that thousands who wait do not keep a store busy.

    Args:
        shortest_s: seconds of the first one.
        longest_s: which they grow to, unless a look takes long.
    """

    def __init__(self, shortest_s: float, longest_s: float = _LONGEST_SECONDS) -> None:
        self._next_s = shortest_s
        self._longest_s = longest_s

    def next_s(self, looked: float) -> float:
        """Seconds to the next look; `looked` is when the last one began, by time.monotonic()."""
        pause_s = max(self._next_s, _TIMES_THE_LOOK * (time.monotonic() - looked))
        self._next_s = min(_GROWTH * self._next_s, self._longest_s)
        return pause_s * random.uniform(1 - _JITTER, 1 + _JITTER)
