"""Contestants that take turns: where others use the machine too, the best of several rounds means most."""

import math
import time
from collections.abc import Callable, Mapping

Contestant = Callable[[], float]
"""Does all its work once and gives its rate."""


def best_of(
    contestants: Mapping[str, Contestant], rounds: int, say: Callable[[str], None], seconds: float = math.inf
) -> dict[str, float]:
    """The best rate of each, after a turn that does not count; forwards and backwards in turn.

    Args:
        seconds: no round begins that would end later than this, if it took as long as the longest so far; but for the
            first that counts.
    """
    best = dict.fromkeys(contestants, 0.0)
    names = list(contestants)
    started = begun = time.monotonic()
    longest = 0.0
    for number in range(rounds + 1):
        now = time.monotonic()
        longest, begun = max(longest, now - begun), now
        if number > 1 and now - started + longest > seconds:
            say(f"  {number - 1} of {rounds} rounds: the time is over")
            break
        for name in reversed(names) if number % 2 else names:
            rate = contestants[name]()
            say(f"  {name}: {rate:,.1f}{'' if number else ' (warm-up)'}")
            if number:
                best[name] = max(best[name], rate)
    return best
