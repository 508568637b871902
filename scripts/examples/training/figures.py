"""Bits per token: what a model costs, beside what it would cost to know no more than how often each code occurs."""

import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.store import TokenStore
from pipeline.store.types import Array

ENTROPY_ROWS = 1 << 16
"""Images, at most, that tell how often each code occurs in a block."""


def entropy_bits(counts_K: Array) -> float:
    """Zero-order entropy: bits per token for a model that knows only how often each code occurs."""
    share_K = counts_K[counts_K > 0] / counts_K.sum()
    return float(-(share_K * np.log2(share_K)).sum())


def block_entropies(store: TokenStore) -> list[float]:
    """Zero-order entropy of each block by itself, of the first images of the store."""
    counts = [np.zeros(store.vocab_size, np.int64) for _ in store.block_lengths]
    size = 1 << 12
    for batch in itertools.islice(store.batches(size), ENTROPY_ROWS // size):
        for counts_K, block in zip(counts, batch.idx_Bl, strict=True):
            counts_K += np.bincount(block.flatten().numpy(), minlength=store.vocab_size)
    return [entropy_bits(counts_K) for counts_K in counts]


def block_names(store: TokenStore) -> list[str]:
    """Blocks as their sides, `4x4`, where they are squares; else by number."""
    sides = [math.isqrt(length) for length in store.block_lengths]
    squares = [side * side for side in sides] == list(store.block_lengths)
    return [f"{side}x{side}" if squares else f"block {number}" for number, side in enumerate(sides)]


def heading(names: Iterable[str]) -> str:
    """The line above the figures."""
    return "    step   epoch " + " ".join(name.replace("_", " ").rjust(_width(name)) for name in names) + "  images/s"


def line(step: int, epoch: float, bits: Mapping[str, float], images_per_s: float) -> str:
    """A line of figures."""
    columns = " ".join(f"{value:{_width(name)}.3f}" for name, value in bits.items())
    return f"{step:>8} {epoch:7.2f} {columns} {images_per_s:9,.0f}"


def _width(name: str) -> int:
    return max(len(name) + 1, 9) if "x" not in name else 7
