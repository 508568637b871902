"""`TokenStore`: a store as one long sequence of samples."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import IncompleteStore, StoreError
from pipeline.files import Files, files_at
from pipeline.models.lookup import lookup
from pipeline.records import Geometry
from pipeline.store import names
from pipeline.store.arrays import Array
from pipeline.store.birth import read_birth
from pipeline.store.commits import committed_parts, read_commits
from pipeline.store.counts import unpack_counts
from pipeline.store.hierarchy import check_codebook
from pipeline.store.manifest import Manifest, read_manifest
from pipeline.store.parts import Part
from pipeline.store.snapshot import make_manifest


@dataclass(frozen=True)
class TokenSample:
    """One image of the store."""

    key: str
    label: int
    """-1 without a label."""
    idx_l: list[Tensor]
    """Block i as int64 [L_i]."""


@dataclass(frozen=True)
class TokenBatch:
    """B images of the store."""

    key: list[str]
    label: Tensor
    """int64 [B], -1 without a label."""
    idx_Bl: list[Tensor]
    """Block i as int64 [B, L_i]."""

    def __len__(self) -> int:
        return len(self.key)

    def __getitem__(self, rows: slice) -> "TokenBatch":
        """A range of the rows; tensors are views."""
        return TokenBatch(self.key[rows], self.label[rows], [idx_BL[rows] for idx_BL in self.idx_Bl])

    @staticmethod
    def concatenate(batches: "Sequence[TokenBatch]") -> "TokenBatch":
        """The rows of several batches of one store, in order."""
        if len(batches) == 1:
            return batches[0]
        return TokenBatch(
            [key for batch in batches for key in batch.key],
            torch.cat([batch.label for batch in batches]),
            [torch.cat(blocks) for blocks in zip(*(batch.idx_Bl for batch in batches), strict=True)],
        )

    def to(self, device: str | torch.device, non_blocking: bool = False) -> "TokenBatch":
        """The batch with its tensors on `device`."""
        return replace(
            self,
            label=self.label.to(device, non_blocking=non_blocking),
            idx_Bl=[idx_BL.to(device, non_blocking=non_blocking) for idx_BL in self.idx_Bl],
        )


class TokenStore:
    """Samples of a token store, ordered by part name, then as in the source shard.

    Args:
        path: folder of the store.
        partial: read what is committed, even if source shards are still pending.

    Raises StoreError where there is no store, IncompleteStore while the first job has not finished, and
    CorruptStore for a damaged one. A store that is being added to reads as it was when last completed.
    """

    def __init__(self, path: str | os.PathLike[str], partial: bool = False) -> None:
        self._files: Files = files_at(str(path))
        self._birth = read_birth(self._files)
        manifest = self._snapshot() if partial else read_manifest(self._files)
        if manifest is None:
            raise IncompleteStore(
                f"{path}: source shards are still pending (no manifest yet); run the same vqtok tokenize again to "
                "finish, or read what is there with TokenStore(path, partial=True)"
            )
        self.manifest = manifest
        self._parts = [Part(self._files, self._birth, part.part, part.attempt, part.written) for part in manifest.parts]
        self._starts = np.concatenate([[0], np.cumsum([part.rows for part in self._parts])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> TokenSample:
        """Sample `index`; negative ones count from the end. Raises IndexError."""
        row = range(len(self))[index]
        batch = self.read([row])
        return TokenSample(batch.key[0], int(batch.label[0]), [idx_BL[0] for idx_BL in batch.idx_Bl])

    def read(self, rows: slice | Sequence[int] | Array) -> TokenBatch:
        """The named rows, in the order given. Whole ranges are much faster than scattered rows.

        Raises IndexError for a row outside the store, TypeError for what is not a sequence of row numbers.
        """
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else _row_numbers(rows)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of a store of {len(self)} samples")
        tokens = np.empty((len(wanted), self.geometry.num_tokens), self._birth.token_dtype)
        labels = np.empty(len(wanted), np.int64)
        keys = [""] * len(wanted)
        part_of_row = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(part_of_row):
            part, places = self._parts[number], np.flatnonzero(part_of_row == number)
            local = wanted[places] - self._starts[number]
            first, last = int(local.min()), int(local.max()) + 1
            tokens[places] = part.tokens(slice(first, last))[local - first]
            labels[places] = part.labels[local]
            for place, row in zip(places, local, strict=True):
                keys[place] = part.keys[row]
        return TokenBatch(keys, torch.from_numpy(labels), self._blocks(tokens))

    def batches(self, batch_size: int) -> Iterator[TokenBatch]:
        """All samples in order, in batches of at most `batch_size`."""
        for start in range(0, len(self), batch_size):
            yield self.read(slice(start, start + batch_size))

    @property
    def geometry(self) -> Geometry:
        """Image size, grid, block layout and block lengths."""
        return self._birth.geometry

    @property
    def block_lengths(self) -> tuple[int, ...]:
        """L_i, the number of tokens in block i."""
        return self._birth.geometry.block_lengths

    @property
    def vocab_size(self) -> int:
        """K; every token is below it."""
        return self._birth.codebook.vocab_size

    @property
    def embedding_dim(self) -> int:
        """C, the length of an embedding."""
        return self._birth.codebook.embedding_dim

    @cached_property
    def codebook(self) -> Tensor:
        """float32 [K, C], the table that the tokenizer itself looks up.

        Raises StoreError where the tokenizer has none, CorruptStore for a damaged one.
        """
        table = check_codebook(self._files, self._birth)
        if table is None:
            raise StoreError(f"{self._files.root}: a codebook of kind {self._birth.codebook.kind} has no table")
        return torch.from_numpy(table)

    @property
    def code_counts(self) -> Array:
        """int64 [K]: how often each code occurs in the store. Raises CorruptStore for a damaged manifest."""
        return unpack_counts(self.manifest.code_counts, self.vocab_size, names.MANIFEST)

    @property
    def keys(self) -> list[str]:
        """The WebDataset keys of all samples, in order."""
        return [key for part in self._parts for key in part.keys]

    @property
    def labels(self) -> Tensor:
        """int64 [len(store)], -1 without a label."""
        return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *(part.labels for part in self._parts)]))

    @property
    def content_digest(self) -> str:
        """Digest of all arrays of all parts: equal digests mean equal stores."""
        return self.manifest.content_digest

    @property
    def part_starts(self) -> Array:
        """int64 [parts + 1]: part i holds the rows part_starts[i] to part_starts[i + 1]."""
        return self._starts.copy()

    def idxBl_to_var_input(self, idx_Bl: Sequence[Tensor]) -> Tensor:
        """Blocks of [B, L_i] as the embedding sequence x_BLC, float32 [B, L_total, C] on their device.

        Raises StoreError for a tokenizer whose rule is not a table lookup, TokenizerError for an index
        outside the codebook.
        """
        if self._birth.var_input != "lookup":
            raise StoreError(
                f"{self._files.root}: embeddings of this store follow the rule {self._birth.var_input!r}, not a "
                "lookup in its codebook; use the tokenizer itself"
            )
        idx_BL = torch.cat(list(idx_Bl), dim=1)
        return lookup(idx_BL, self.codebook.to(idx_BL.device))

    def _blocks(self, tokens_BL: Array) -> list[Tensor]:
        idx_BL = torch.from_numpy(tokens_BL.astype(np.int64))
        return list(idx_BL.split(list(self.block_lengths), dim=1))

    def _snapshot(self) -> Manifest:
        parts = sorted(committed_parts(self._files))
        return make_manifest(read_commits(self._files, parts), (), self.vocab_size, generation=0)


def _row_numbers(rows: Sequence[int] | Array) -> Array:
    """Integers of any kind as int64 [n]. A mask is refused: its values would pass for the rows 0 and 1."""
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise TypeError(f"rows must be a slice or a sequence of row numbers, not {rows!r}")
    return numbers.astype(np.int64)
