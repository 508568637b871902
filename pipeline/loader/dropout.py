"""Labels and texts that are dropped at random, for classifier-free guidance (https://arxiv.org/abs/2207.12598).

Which are dropped is the same on every machine: those of rows whose number `row` of the SplitMix64 generator for
"labels" or "texts", the seed and the epoch (`splitmix.words`) is below probability * 2**64.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from pipeline.loader.epochs import Rows
from pipeline.loader.splitmix import chosen, words
from pipeline.records import NO_LABEL
from pipeline.store.types import Array


@dataclass(frozen=True)
class LabelDropout:
    """Which labels of the rows of a store are dropped, in any epoch."""

    probability: float
    null_label: int
    """What stands for a label that is dropped, and for none."""
    seed: int

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

        Warns of a class that has the number of the label that is none: a model could not tell them apart.
        """
        null = self.dropout.null_label
        if null != NO_LABEL and (labels == null).any():
            warnings.warn(
                f"null_label={null} is also the label of row {rows[labels == null][0]}: a model cannot tell that class "
                "from a label that was dropped; take a number above all labels, such as the number of classes",
                stacklevel=2,
            )
        dropped = chosen(words("labels", self.dropout.seed, self.epoch, rows), self.dropout.probability)
        return np.where(dropped | (labels == NO_LABEL), null, labels)


@dataclass(frozen=True)
class TextDropout:
    """Which texts of the rows of a store are dropped, in any epoch; independent of the labels that are."""

    probability: float
    seed: int

    def at(self, epoch: int, rows: Rows) -> Array | None:
        """bool [n] of int64 [n] row numbers, True where the text is dropped; None where none ever is."""
        return chosen(words("texts", self.seed, epoch, rows), self.probability) if self.probability else None
