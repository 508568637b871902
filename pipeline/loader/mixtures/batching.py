"""The rows of a mixture as the batches of one rank.

schedule: which store (seed, position) ──▶ 0 1 0 0 2 ...
                                           │ │ │ │ │      each store in the order of its own loader,
store 0 ──▶ this rank's share of a pass ───┴─│─┴─┘ │      pass after pass, all ranks in step
store 1 ──▶ this rank's share of a pass ─────┘     │
store 2 ──▶ this rank's share of a pass ───────────┘ ──▶ MixedBatch
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch

from pipeline.loader.dropout import LabelDropout, TextDropout
from pipeline.loader.epoch_rows import in_batches
from pipeline.loader.loader import TokenLoader
from pipeline.loader.mixtures.dealt import Dealt
from pipeline.loader.mixtures.dropout import change_labels, dropped_texts, labels_of
from pipeline.loader.mixtures.merging import mixed_blocks
from pipeline.loader.mixtures.passes import Progress, share, whole_share
from pipeline.loader.mixtures.position import Position
from pipeline.loader.mixtures.schedule import Schedule
from pipeline.loader.mixtures.stores import MixedBatch, MixedStores
from pipeline.overlap import prefetch

_BLOCKS_AHEAD = 8


@dataclass(frozen=True)
class MixedBatching:
    """What one rank is given, from any place on."""

    loaders: Sequence[TokenLoader]
    stores: MixedStores
    schedule: Schedule
    batch_size: int
    rank: int
    world_size: int
    whole: bool
    """Whether batches have all views of each image."""

    def located(self, place: Position) -> Generator[Dealt, None, None]:
        """The rows of all batches, without end; blocks of them are located ahead in a thread."""
        windows = [self._windows(number, own) for number, own in enumerate(place.stores)]
        blocks = mixed_blocks(windows, self.stores.starts, self.schedule, place.position)
        with closing(prefetch(blocks, _BLOCKS_AHEAD)) as ahead:
            yield from cast("Iterator[Dealt]", in_batches(ahead, self.batch_size))

    def batch(self, dealt: Dealt) -> MixedBatch:
        """Some rows as one batch, without the labels and texts that the loaders of the stores drop."""
        batch = self.stores.batch(dealt, self.whole)
        if (texts := dropped_texts(dealt, self.stores, self._text_dropouts)) is not None:
            batch = replace(batch, dropped_texts=texts)
        if self._relabels:
            batch.with_label(torch.from_numpy(labels_of(dealt, self.stores, self._label_dropouts)))
        return batch

    def _windows(self, number: int, progress: Progress) -> Iterator[Dealt]:
        """This rank's rows of one store, pass after pass."""
        ordered = self.loaders[number].ordered
        own, first = share(progress, self.rank, len(ordered))
        while True:
            for window in ordered.windows(own.number, own.world_size, own.segments):
                yield Dealt.of(window, own.number)
            own, first = whole_share(own.number + 1, self.world_size, self.rank, first, len(ordered))

    @cached_property
    def _label_dropouts(self) -> list[LabelDropout]:
        return [loader.label_dropout for loader in self.loaders]

    @cached_property
    def _text_dropouts(self) -> list[TextDropout]:
        return [loader.text_dropout for loader in self.loaders]

    @cached_property
    def _relabels(self) -> bool:
        return change_labels(self._label_dropouts)
