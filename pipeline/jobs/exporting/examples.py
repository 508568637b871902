"""Rows of a store as they are exported.

Shape letters: n examples, V views, L tokens of a view.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.jobs.exporting.contents import Contents
from pipeline.records import NO_LABEL
from pipeline.store.reader import TokenStore
from pipeline.store.types import Array

_BATCH_BYTES = 1 << 22
_BATCH_ROWS = 1 << 13


@dataclass(frozen=True)
class Examples:
    """Some examples, one behind the other."""

    first: int
    """The number of the first one in the export."""
    tokens: Array
    """[n, L], or [n, V, L] with all views, in the store's dtype."""
    label: Array
    """int64 [n], -1 for none."""
    row: Array
    """int64 [n], row numbers in the store."""
    store: TokenStore

    def __len__(self) -> int:
        return len(self.row)

    @property
    def unlabelled(self) -> int:
        """How many have no label."""
        return int((self.label == NO_LABEL).sum())

    @property
    def keys(self) -> list[str]:
        """WebDataset keys."""
        return self.store.keys_of(self.row)

    def field(self, name: str) -> list[bytes | None]:
        """A kept member of each, None where a sample had none."""
        return self.store.field_of(name, self.row)


def read_examples(store: TokenStore, contents: Contents, start: int, stop: int) -> Iterator[Examples]:
    """The examples that rows start to stop of the store become, in batches of a few megabytes.

    Raises CorruptStore.
    """
    row_bytes = contents.bytes * contents.per_row
    step = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
    for first in range(start, stop, step):
        yield _examples(store, contents, np.arange(first, min(first + step, stop)))


def _examples(store: TokenStore, contents: Contents, rows: Array) -> Examples:
    view = contents.view
    tokens = store.read(rows, view="all" if view == "rows" else view).stored.numpy()
    if contents.cells is not None:
        tokens = np.take(
            tokens, contents.cells, axis=-1
        )  # by an index the result would lie in memory the other way round
    row = rows.repeat(contents.per_row)
    return Examples(
        first=int(rows[0]) * contents.per_row,
        tokens=tokens.reshape(len(row), *contents.shape),
        label=store.labels_of(rows).repeat(contents.per_row),
        row=row,
        store=store,
    )
