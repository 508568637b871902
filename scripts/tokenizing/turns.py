"""Contestants that take turns: where others use the machine too, the best of several rounds means most."""

from collections.abc import Callable, Mapping

Contestant = Callable[[], float]
"""Does all its work once and gives its rate."""


def best_of(contestants: Mapping[str, Contestant], rounds: int, say: Callable[[str], None]) -> dict[str, float]:
    """The best rate of each, after a turn that does not count; forwards and backwards in turn."""
    best = dict.fromkeys(contestants, 0.0)
    names = list(contestants)
    for number in range(rounds + 1):
        for name in reversed(names) if number % 2 else names:
            rate = contestants[name]()
            say(f"  {name}: {rate:,.1f}{'' if number else ' (warm-up)'}")
            if number:
                best[name] = max(best[name], rate)
    return best
