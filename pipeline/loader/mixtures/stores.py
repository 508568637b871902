"""Several stores as one: their rows behind each other, their vocabularies shared or stacked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.models.rules.embedder import Embedder
from pipeline.models.rules.lookup import LOOKUP
from pipeline.records import Geometry
from pipeline.store.arrays.located import Located
from pipeline.store.batch import TokenBatch
from pipeline.store.reader import TokenStore
from pipeline.store.requested import row_numbers
from pipeline.store.schema.birth import smallest_token_dtype
from pipeline.store.sequence import Sequenced
from pipeline.store.types import Array, Rows

Offsets = Literal["stack"] | Sequence[int] | None


@dataclass(frozen=True, repr=False)
class MixedBatch(TokenBatch):
    """B images of several stores. `row` counts through all of them: those of the second follow those of the first."""

    @cached_property
    def source(self) -> Tensor:
        """int64 [B], number of the store that each row is from, on the device of the tokens."""
        return torch.from_numpy(self.mixed.source_of(self.row)).to(self.stored.device)

    @property
    def row_in_source(self) -> Array:
        """int64 [B], row numbers in the stores that they are from."""
        return cast("Array", self.row - self.mixed.starts[self.mixed.source_of(self.row)])

    def _of_own_kind(self) -> dict[str, Tensor]:
        return {"source": self.source}

    @property
    def mixed(self) -> "MixedStores":
        """The stores."""
        assert isinstance(self.store, MixedStores)
        return self.store


class MixedStores(Sequenced):
    """What batches of several stores ask for keys, labels, kept members and embeddings.

    Args:
        stores: open stores of equal block lengths.
        offsets: None where all have one vocabulary. `stack` gives each vocabulary a range of its own, in the order
            of the stores, and stores of one vocabulary the same. Or what to add to the tokens of each store.

    Raises StoreError where block lengths differ, or vocabularies without offsets; ValueError for offsets that make
    tokens of two vocabularies equal.
    """

    def __init__(self, stores: Sequence[TokenStore], offsets: Offsets = None) -> None:
        self.stores = tuple(stores)
        _check_lengths(self.stores)
        if offsets is None:
            _check_vocabularies(self.stores)
        self.offsets = _resolved(self.stores, offsets)
        """What is added to the tokens of each store."""
        self.starts = np.concatenate([[0], np.cumsum([len(store) for store in self.stores])]).astype(np.int64)
        """int64 [stores + 1]: store i has the rows starts[i] to starts[i + 1]."""
        self._shifts = np.asarray(self.offsets, smallest_token_dtype(self.vocab_size))
        self._one_size = len({smallest_token_dtype(store.vocab_size) for store in self.stores}) == 1

    def __reduce__(self) -> tuple[Any, ...]:
        return MixedStores, (self.stores, self.offsets)

    def reopening(self) -> "tuple[Callable[..., MixedStores], tuple[Any, ...]]":
        """What finds these stores in another process that has them open, and opens them elsewhere, in a few bytes."""
        return _reopened, ([store.reopening() for store in self.stores], self.offsets)

    @property
    def block_lengths(self) -> tuple[int, ...]:
        """L_i."""
        return self.stores[0].block_lengths

    @property
    def geometry(self) -> Geometry:
        """Grid, block layout and block lengths. Raises StoreError where the stores differ in grid or layout."""
        first = self.stores[0]
        for store in self.stores:
            ours, theirs = first.geometry, store.geometry
            if (ours.grid, ours.layout) != (theirs.grid, theirs.layout):
                raise StoreError(
                    f"{first.root} has layout {ours.layout!r} on a grid of {ours.grid}, {store.root} {theirs.layout!r} "
                    f"on {theirs.grid}: a batch of both has no one grid; batch.idx_Bl has its blocks"
                )
        return first.geometry

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the labels, where all stores have the same."""
        named = {store.classes for store in self.stores}
        return named.pop() if len(named) == 1 else None

    @property
    def vocab_size(self) -> int:
        """Every token is below it."""
        return max(offset + store.vocab_size for store, offset in zip(self.stores, self.offsets, strict=True))

    @cached_property
    def codebook(self) -> Tensor:
        """float32 [vocab_size, C]: each store's own codebook from its offset on, and NaN where no token can be.

        Raises StoreError where embeddings are of different lengths, or of another rule than a lookup.
        """
        first = self.stores[0]
        for store in self.stores:
            if store.embedding_dim != first.embedding_dim:
                raise StoreError(
                    f"{first.root} has embeddings of length {first.embedding_dim}, {store.root} of "
                    f"{store.embedding_dim}: one table cannot hold both; train embeddings of the mixture's own"
                )
            if not store.rule.picks_rows:
                raise StoreError(
                    f"{store.root}: its embeddings follow the rule {store.rule.name!r}, and are not rows of one table "
                    "that another codebook could be put behind; train embeddings of the mixture's own"
                )
        table = torch.full((self.vocab_size, first.embedding_dim), torch.nan)
        for store, offset in zip(self.stores, self.offsets, strict=True):
            table[offset : offset + store.vocab_size] = store.codebook
        return table

    def idxBl_to_var_input(self, idx_Bl: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """Blocks of [B, L_i] as the embedding sequence x_BLC, [B, L_rule, C] of `dtype` on their device.

        Stores of one vocabulary have the rule of each of them; else each token is looked up in `codebook`.

        Raises StoreError as `codebook` and `TokenStore.rule` do, TokenizerError for an index outside the vocabulary.
        """
        return self._embed(idx_Bl, dtype)

    @cached_property
    def _embed(self) -> Callable[[Sequence[Tensor], torch.dtype], Tensor]:
        first = self.stores[0]
        if not any(self.offsets) and all(store.vocabulary == first.vocabulary for store in self.stores):
            return first.idxBl_to_var_input
        return Embedder(LOOKUP, self.codebook, {})

    def source_of(self, rows: Array) -> Array:
        """int64 [n], number of the store of each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def batch(self, located: Located, whole: bool = False) -> MixedBatch:
        """Rows that have been located in their stores, numbered through all of them.

        Args:
            whole: all views of each row, of which all stores then have equally many; else the one that it is at.
        """
        if not any(self.offsets):  # one vocabulary: rows of all stores have one size and one dtype
            tokens = self.stores[0].batch(located, whole).stored
        else:
            tokens = torch.from_numpy(self._shifted(located, whole))
        return MixedBatch(tokens, located.rows, self)

    def keys_of(self, rows: Rows) -> list[str]:
        """WebDataset keys of rows numbered through all stores. Raises as `TokenStore.read` does."""
        return cast("list[str]", self._of_each(rows, lambda store, own: store.keys_of(own)).tolist())

    def labels_of(self, rows: Rows) -> Array:
        """int64 [n], -1 without a label: as each store numbers its classes. Raises as `TokenStore.read` does."""
        return self._of_each(rows, lambda store, own: store.labels_of(own)).astype(np.int64)

    def field_of(self, name: str, rows: Rows) -> list[bytes | None]:
        """A kept member, None where a sample had none.

        Raises as `TokenStore.read` does, and StoreError where one of the rows' stores has no such member.
        """
        return cast("list[bytes | None]", self._of_each(rows, lambda store, own: store.field_of(name, own)).tolist())

    def _of_each(self, rows: Rows, ask: Any) -> Array:
        """Answers of the stores, each for its own rows, as objects [n]."""
        rows = row_numbers(rows, int(self.starts[-1]))
        found = np.empty(len(rows), object)
        source = self.source_of(rows)
        for number in np.unique(source).tolist():
            places = np.flatnonzero(source == number)
            found[places] = ask(self.stores[number], rows[places] - self.starts[number])
        return found

    def _shifted(self, located: Located, whole: bool) -> Array:
        """unsigned [n, L_total] or [n, V, L_total], the smallest dtype that holds all tokens of the mixture."""
        dtype = self._shifts.dtype
        source = self.source_of(located.rows)
        if self._one_size:
            tokens = self.stores[0].batch(located, whole).stored.numpy().astype(dtype, copy=False)
        else:
            views = (self.stores[0].num_views,) if whole else ()
            tokens = np.empty((len(located), *views, sum(self.block_lengths)), dtype)
            for number in np.unique(source).tolist():
                places = np.flatnonzero(source == number)
                tokens[places] = self.stores[number].batch(located[places], whole).stored.numpy()
        tokens += self._shifts[source].reshape(-1, *[1] * (tokens.ndim - 1))
        return tokens


def _reopened(
    reopenings: Sequence[tuple[Callable[..., TokenStore], tuple[Any, ...]]], offsets: tuple[int, ...]
) -> MixedStores:
    return MixedStores([reopen(*arguments) for reopen, arguments in reopenings], offsets)


def _check_lengths(stores: Sequence[TokenStore]) -> None:
    if not stores:
        raise ValueError("a mixture needs at least one store")
    first = stores[0]
    for store in stores:
        if store.block_lengths != first.block_lengths:
            raise StoreError(
                f"{first.root} has blocks of {first.block_lengths} tokens, {store.root} of {store.block_lengths}: a "
                "batch holds images of one kind; tokenize both with one image size and layout"
            )


def _check_vocabularies(stores: Sequence[TokenStore]) -> None:
    first = stores[0]
    for store in stores:
        if store.vocabulary != first.vocabulary:
            raise StoreError(
                f"{first.root} (vocabulary {first.vocabulary[:12]}, {first.vocab_size} codes) and {store.root} "
                f"({store.vocabulary[:12]}, {store.vocab_size} codes) have different codebooks, so that a token means "
                "different things in them; offsets='stack' gives each a range of its own"
            )


def _resolved(stores: Sequence[TokenStore], offsets: Offsets) -> tuple[int, ...]:
    if offsets is None:
        return (0,) * len(stores)
    if isinstance(offsets, str):
        if offsets != "stack":
            raise ValueError(f"offsets must be 'stack' or a number for each store, not {offsets!r}")
        ranges: dict[str, int] = {}
        end = 0
        for store in stores:
            if store.vocabulary not in ranges:
                ranges[store.vocabulary] = end
                end += store.vocab_size
        return tuple(ranges[store.vocabulary] for store in stores)
    if len(offsets) != len(stores) or any(offset < 0 for offset in offsets):
        raise ValueError(f"offsets must be a number of at least 0 for each of {len(stores)} stores, not {offsets!r}")
    for (one, start), (other, other_start) in combinations(zip(stores, offsets, strict=True), 2):
        same = one.vocabulary == other.vocabulary and start == other_start
        if not same and max(start, other_start) < min(start + one.vocab_size, other_start + other.vocab_size):
            raise ValueError(
                f"offsets {list(offsets)} make tokens of {one.root} ({start} .. {start + one.vocab_size - 1}) equal to "
                f"those of {other.root} ({other_start} .. {other_start + other.vocab_size - 1})"
            )
    return tuple(int(offset) for offset in offsets)
