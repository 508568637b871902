"""SplitMix64: numbers that look random, each computed alone, the same on every machine and version.

Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figures 16 and 17.
"""

from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint64]]

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio, odd."""


def splitmix64(key: int, places: "np.ndarray[Any, np.dtype[Any]]") -> Words:
    """Outputs number `places` (integers [n], from 0) of the generator that was seeded with `key`."""
    state = np.uint64(key) + (places.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN_GAMMA)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
