"""Labels that are dropped at random, for classifier-free guidance (https://arxiv.org/abs/2207.12598)."""

import hashlib
from dataclasses import dataclass

import numpy as np

from pipeline.loader.epochs import Rows
from pipeline.loader.splitmix import chosen, splitmix64
from pipeline.records import NO_LABEL


@dataclass(frozen=True)
class LabelDropout:
    """Which labels of the rows of a store are dropped, in any epoch.

    Raises ValueError for a probability outside 0 .. 1.
    """

    probability: float
    null_label: int
    """What stands for a label that is dropped, and for none."""
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"label_dropout must be a probability in 0 .. 1, not {self.probability}")

    def at(self, epoch: int) -> "Relabelling | None":
        """What changes the labels of an epoch; None where they stay as they are."""
        return Relabelling(self, epoch) if self.probability or self.null_label != NO_LABEL else None


@dataclass(frozen=True)
class Relabelling:
    """Changes the labels of one epoch."""

    dropout: LabelDropout
    epoch: int

    def __call__(self, rows: Rows, labels: Rows) -> Rows:
        """int64 [n] row numbers and their labels, -1 for none, to the labels that a batch has.

        Which are dropped is the same on every machine: those whose number `row` of the SplitMix64 generator that is
        seeded with the first 8 bytes, little-endian, of sha256("labels/{seed}/{epoch}") is below probability * 2**64.
        """
        key = hashlib.sha256(f"labels/{self.dropout.seed}/{self.epoch}".encode()).digest()[:8]
        dropped = chosen(splitmix64(int.from_bytes(key, "little"), rows), self.dropout.probability)
        return np.where(dropped | (labels == NO_LABEL), self.dropout.null_label, labels)
