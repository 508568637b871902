"""`TokenDataset`: a store for whatever picks rows itself, such as the samplers of torch."""

import operator
import reprlib
from collections.abc import Sequence

from torch.utils.data import Dataset

from pipeline.loader.arguments import open_store
from pipeline.loader.epoch_rows import checked_rows
from pipeline.loader.epochs import Rows
from pipeline.store.batch import TokenBatch, TokenSample
from pipeline.store.reader import TokenStore


class TokenDataset(Dataset[TokenSample]):
    """The rows of a store by number, as a map-style dataset.

        DataLoader(TokenDataset(store), batch_size=256, shuffle=True, collate_fn=TokenDataset.collate, num_workers=2)

    gives a TokenBatch each time, read at once. Scattered rows are slow where chunks are compressed, for each row costs
    the decoding of a chunk: where no sampler is needed, TokenLoader is much faster, and it can be resumed.

    Of images with several views it gives the first.

    Args:
        store: an open store.
        rows: int64, sorted, without repeats: only these rows of the store, item i being row `rows[i]`.

    Raises ValueError for rows that are not sorted row numbers of the store.
    """

    def __init__(self, store: TokenStore, rows: Sequence[int] | Rows | None = None) -> None:
        self.store = open_store(store)
        self._rows = None if rows is None else checked_rows(rows, len(store))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store.root}: {len(self):,} rows)"

    def __len__(self) -> int:
        return len(self.store) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> TokenSample:
        """One sample; negative numbers count from the end. Raises IndexError, and TypeError for what is no number."""
        try:
            row = range(len(self))[operator.index(index)]
        except TypeError:
            raise TypeError(
                "dataset[...] is one sample; dataset.__getitems__(range(...)) is a batch of several, and "
                f"TokenDataset(store, rows=...) a data set of some rows: not dataset[{reprlib.repr(index)}]"
            ) from None
        return self.store[row if self._rows is None else int(self._rows[row])]

    def __getitems__(self, indices: list[int]) -> TokenBatch:
        """Samples in the order given, in one read. Raises IndexError."""
        rows = indices if self._rows is None else self._rows[indices]
        return self.store.read(rows)

    @staticmethod
    def collate(batch: TokenBatch) -> TokenBatch:
        """For `DataLoader(collate_fn=...)`: what `__getitems__` gave, as it is.

        Raises TypeError for single samples, which a dataset that wraps this one without `__getitems__` would give.
        """
        if not isinstance(batch, TokenBatch):
            raise TypeError(
                f"TokenDataset.collate takes a TokenBatch, not {type(batch).__name__}: the dataset does not hand on "
                "__getitems__; torch's ConcatDataset does not, Subset does"
            )
        return batch
