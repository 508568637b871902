"""SplitMix64: numbers that look random, each computed alone, the same on every machine and version.

Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figures 16 and 17.
"""

import hashlib
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


def words(purpose: str, seed: int, epoch: int, rows: "np.ndarray[Any, np.dtype[Any]]") -> Words:
    """A random number for each row (integers [n], from 0) of an epoch, others for each purpose.

    That of the generator that is seeded with the first 8 bytes, little-endian, of sha256("{purpose}/{seed}/{epoch}").
    """
    key = hashlib.sha256(f"{purpose}/{seed}/{epoch}".encode()).digest()[:8]
    return splitmix64(int.from_bytes(key, "little"), rows)


def chosen(words: Words, fraction: float) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which of uint64 [n] are below fraction * 2**64, for a fraction in 0 .. 1."""
    threshold = int(fraction * 2.0**64)  # exact: a power of two moves only the exponent
    return words <= np.uint64(threshold - 1) if threshold else np.zeros(words.shape, bool)
