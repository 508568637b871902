"""The rows of an epoch as the batches of one rank."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.loader.dropout import LabelDropout, TextDropout
from pipeline.loader.epoch_rows import OrderedRows, in_batches
from pipeline.loader.epochs import cut, lanes
from pipeline.loader.position import Position, Steps
from pipeline.store.arrays.located import Located
from pipeline.store.batch import TokenBatch
from pipeline.store.reader import TokenStore

# Numpy releases the interpreter's lock, for which threads that decode wait, only when it gathers 500 rows or more.
_GATHERED_ROWS = 1024


@dataclass(frozen=True)
class Batching:
    """What one rank is given, from any position on."""

    store: TokenStore
    ordered: OrderedRows
    steps: Steps
    rank: int
    label_dropout: LabelDropout
    text_dropout: TextDropout

    def batches(self, position: Position) -> Iterator[TokenBatch]:
        """All batches from a position to the end of its epoch."""
        several = max(_GATHERED_ROWS // self.steps.batch_size, 1)
        drops = self.label_dropout.at(position.epoch) is not None or self.text_dropout.probability > 0
        stay = self.steps.remainder != "pad" and not drops
        for rows in self.located(position, several * self.steps.batch_size):
            batches = self.store.batches_of(rows, self.steps.batch_size, self.ordered.views.whole)
            yield from batches if stay else (self._completed(position, batch) for batch in batches)

    def batch(self, position: Position, rows: Located) -> TokenBatch:
        """Rows of the epoch of a position as one batch."""
        return self._completed(position, self.store.batch(rows, self.ordered.views.whole))

    def located(self, position: Position, size: int) -> Iterator[Located]:
        """The rows of all batches to the end of the epoch, so many at a time, which are whole batches."""
        steps, stages, batch_size = self.steps.left(position, self.rank), position.stages, self.steps.batch_size
        lane = lanes(len(self.ordered), stages)[self.rank]
        segments = cut(lane, stages[-1].taken, len(self.ordered))
        windows = self.ordered.windows(position.epoch, stages[0].world_size, segments)
        for rows in in_batches(windows, size) if steps else ():
            wanted = rows[: steps * batch_size]
            steps -= -(-len(wanted) // batch_size)
            yield wanted
            if not steps:
                return
        for _ in range(steps):  # with `pad`: this rank has no row for the batch that others fill
            yield self.ordered.locate(np.empty(0, np.int64))

    def _completed(self, position: Position, batch: TokenBatch) -> TokenBatch:
        """A batch without the labels and texts that the epoch drops; with `pad` always of the full size."""
        whole = self._filled(position, batch) if self.steps.remainder == "pad" else batch
        relabel = self.label_dropout.at(position.epoch)
        return replace(whole, relabel=relabel, dropped_texts=self.text_dropout.at(position.epoch, whole.row))

    def _filled(self, position: Position, batch: TokenBatch) -> TokenBatch:
        """A batch of the full size, with rows that have come already, and its mask."""
        count, size = len(batch), self.steps.batch_size
        rows = batch.row if count else self.ordered.locate(np.zeros(1, np.int64)).rows
        places = np.arange(size)
        full = batch
        if count < size:
            filling = self.store.locate(rows[places.clip(max=len(rows) - 1)])
            full = self.store.batch(self.ordered.at_views(position.epoch, filling), self.ordered.views.whole)
        return replace(full, mask=torch.from_numpy(places < count))
