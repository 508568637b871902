"""Which view of each image a loader gives."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.loader.epochs import Rows
from pipeline.loader.splitmix import words
from pipeline.store.reader import TokenStore

Views = int | Literal["random", "all"]


@dataclass(frozen=True)
class ChosenViews:
    """The views of the rows of a store, in any epoch."""

    which: Views
    count: int
    """V, how many views each image has."""
    seed: int

    @classmethod
    def of(cls, store: TokenStore, which: Views, seed: int) -> "ChosenViews":
        """Raises ValueError for what is no choice, or a view that the store does not have."""
        is_number = isinstance(which, int | np.integer) and not isinstance(which, bool)
        if is_number:
            which = int(which)
        if which not in ("random", "all") and not (is_number and 0 <= int(which) < store.num_views):
            raise ValueError(
                f"views must be 'random', 'all' or a number in 0 .. {store.num_views - 1}, for {store.root} has "
                f"{store.num_views} views of each image; not {which!r}"
            )
        return cls(which, store.num_views, seed)

    @property
    def whole(self) -> bool:
        """Whether batches have all views of each image."""
        return self.which == "all"

    def at(self, epoch: int, rows: Rows) -> int | Rows:
        """The view of int64 [n] row numbers: one for all, or int64 [n].

        A random one is the same on every machine: number `row` of the SplitMix64 generator for "views", the seed and
        the epoch (`splitmix.words`), its upper 32 bits times V // 2**32.
        """
        if isinstance(self.which, int):
            return self.which
        if self.whole or self.count == 1:
            return 0
        halves = words("views", self.seed, epoch, rows) >> np.uint64(32)
        return (halves * np.uint64(self.count) >> np.uint64(32)).astype(np.int64)
