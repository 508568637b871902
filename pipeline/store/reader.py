"""`TokenStore`: a store as one long sequence of samples."""

import contextlib
import operator
import os
import reprlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import CorruptStore, IncompleteStore, StoreError
from pipeline.files import Files, files_at
from pipeline.models.rules.embedder import Embedder
from pipeline.models.rules.rule import Rule
from pipeline.records import Geometry, digest_of
from pipeline.storage import Storage, storage_of
from pipeline.store.arrays.claims import refuse_impossible
from pipeline.store.arrays.codebook import check_codebook
from pipeline.store.arrays.located import Located
from pipeline.store.arrays.opening import Opening
from pipeline.store.arrays.parts import Part
from pipeline.store.arrays.row_array import RowArray
from pipeline.store.arrays.row_texts import RowTexts
from pipeline.store.arrays.storage import Views
from pipeline.store.batch import TokenBatch, TokenSample
from pipeline.store.cache.parts import PartCache
from pipeline.store.keys import Keys
from pipeline.store.requested import row_numbers, view_numbers
from pipeline.store.schema import names
from pipeline.store.schema.birth import read_birth
from pipeline.store.schema.commits import committed_parts, read_commits
from pipeline.store.schema.counts import unpack_counts
from pipeline.store.schema.manifest import Manifest, read_manifest
from pipeline.store.schema.snapshot import as_it_was, make_manifest
from pipeline.store.sequence import Sequenced
from pipeline.store.types import Array, Rows
from pipeline.store.var_input import rule_of, var_input_of


class TokenStore(Sequenced):
    """Samples of a token store, ordered by part name, then as in the source shard.

    Args:
        path: folder of the store, or its URL.
        partial: read what is committed, even if source shards are still pending.
        content_digest: read the store as it was when it had this digest, before it grew.
        cache: keep local copies of the parts that are read, for a store that is far away.
        check: compare checksums of tokens the first time that they are read (`once`), or `always`.
        manifest: read the parts of this one, not those of the store's own.
        storage: how a URL is reached, where the environment does not say: endpoint, profile, region, anonymous,
            patience_s.

    Raises StoreError where there is no store, or none of that digest, IncompleteStore while the first job has
    not finished, CorruptStore for a damaged one, and ConfigError for a place or a `storage` that cannot be. A store
    that is being added to reads as it was when last completed. A file that is cut while it is read ends the process
    (SIGBUS): nobody writes to parts.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        partial: bool = False,
        content_digest: str | None = None,
        cache: PartCache | None = None,
        check: Literal["once", "always"] = "once",
        manifest: Manifest | None = None,
        storage: Mapping[str, Any] | Storage | None = None,
    ) -> None:
        if check not in ("once", "always"):
            raise ValueError(f"check must be 'once' or 'always', not {check!r}")
        reached = storage_of(storage)
        self._files: Files = files_at(str(path), reached)
        # They go along with every batch of a worker, so what says nothing is left out.
        told = {"storage": reached} if reached != Storage() else {}
        self._options: dict[str, Any] = {"partial": partial, "cache": cache, "check": check, **told}
        self._birth = read_birth(self._files)
        if manifest is None:
            manifest = self._snapshot() if partial else read_manifest(self._files, self._birth)
        if manifest is None:
            raise IncompleteStore(
                f"{path}: source shards are still pending (no manifest yet); run the same vqtok tokenize again to "
                "finish, or read what is there with TokenStore(path, partial=True)"
            )
        self.manifest = manifest if content_digest is None else as_it_was(manifest, content_digest, self._files.root)
        refuse_impossible(self._files, self._birth, self.manifest.parts)
        self._opening = Opening(self._files, cache, check_always=check == "always")
        self._parts = [Part(self._files, self._birth, part, self._opening) for part in self.manifest.parts]
        self._starts = np.concatenate([[0], np.cumsum([part.rows for part in self._parts])]).astype(np.int64)
        self._tokens = RowArray(
            self._parts,
            "tokens",
            self._birth.token_dtype,
            self._birth.row_shape,
            in_pieces=self._birth.views is not None,
            check_always=check == "always",
            **self._opening.reading,
        )
        self._labels = RowArray(self._parts, "label", "int64", cache_bytes=1 << 26, **self._opening.reading)
        self._views = self._view_arrays(self._birth.views) if self._birth.views is not None else None
        texts = RowTexts(self._parts, "key", self._tokens.chunk_starts, optional=False)
        self._keys = Keys(self._parts, texts, self.__reduce__())
        self._fields = {
            name: RowTexts(self._parts, f"fields/{name}", self._tokens.chunk_starts, optional=True)
            for name in self._birth.fields
        }
        _open_stores[id(self)] = self

    def __repr__(self) -> str:
        views = f" of {self.num_views} views" if self.num_views > 1 else ""
        return (
            f"{type(self).__name__}({self.root}: {len(self):,} rows{views}, {sum(self.block_lengths)} tokens each, "
            f"layout {self.geometry.layout}, {self.vocab_size:,} codes)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # What was committed when it was opened is written nowhere, and workers must have the same rows.
        manifest = self.manifest if self._options["partial"] else None
        return _open_store, (self._files.root, self.content_digest, self._options, manifest)

    def reopening(self) -> tuple[Callable[..., "TokenStore"], tuple[Any, ...]]:
        """What finds this store in another process that has it open, and opens it elsewhere, in a few bytes."""
        return _open_store, (self._files.root, self.content_digest, self._options)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> TokenSample:
        """Sample `index`; negative ones count from the end. Raises IndexError, and TypeError for what is no number."""
        try:
            row = np.array([range(len(self))[operator.index(index)]])
        except TypeError:
            several = reprlib.repr(index)
            raise TypeError(f"store[...] is one sample; store.read({several}) is a batch of several") from None
        tokens = self._tokens.gather(self.locate(row))[0]
        idx_l = torch.from_numpy(tokens.astype(np.int64)).split_with_sizes(self.block_lengths)
        return TokenSample(self.keys_of(row)[0], int(self.labels_of(row)[0]), list(idx_l))

    def read(self, rows: Rows, view: int | Sequence[int] | Array | Literal["all"] = 0) -> TokenBatch:
        """The named rows, in the order given. Whole ranges are much faster than scattered rows.

        Args:
            view: which view of each row, below `num_views`: one number, or one for each row; or `all`, tokens are then
                [B, V, L_total].

        Raises IndexError for a row or view outside the store, TypeError for what is not a sequence of row numbers,
        CorruptStore naming part, chunk and remedy.
        """
        wanted = row_numbers(rows, len(self))
        located = self.locate(wanted)
        if isinstance(view, str):
            if view != "all":
                raise TypeError(f"view must be a number, one for each row, or 'all', not {view!r}")
            return self.batch(located, whole=True)
        return self.batch(self.at_views(located, view_numbers(view, len(wanted), self.num_views)))

    def locate(self, rows: Array) -> Located:
        """Find the tokens of int64 [n] row numbers, all in 0 .. len - 1, without copying them; for loaders."""
        return self._tokens.locate(rows)

    def begin_runs(self, starts: Array, lengths: Array) -> Callable[[], Located]:
        """Begin to map or decode runs of consecutive rows, int64 [runs] each, every one within a chunk.

        Returns at once what waits for them.
        """
        return self._tokens.begin_runs(starts, lengths)

    def fetch(self, rows: Array) -> None:
        """Begin to copy the parts of int64 [n] row numbers into the cache, or to read what was dropped from memory.

        Returns at once.
        """
        self._tokens.read_ahead(rows)
        numbers = np.unique(np.searchsorted(self._starts, rows, side="right") - 1)
        self._opening.fetch([(self._parts[n].name, self._parts[n].attempt) for n in numbers], "tokens")

    def at_views(self, located: Located, views: int | Array) -> Located:
        """Rows that have been located, each at one of its views: a number below `num_views`, or int64 [n]."""
        return self._tokens.at_pieces(located, views)

    def batch(self, located: Located, whole: bool = False) -> TokenBatch:
        """Rows that have been located, as a batch: the view of each that it is at, by default the first.

        Args:
            whole: all views of rows that are at their first, tokens are then [B, V, L_total].
        """
        return TokenBatch(torch.from_numpy(self._gather(located, whole)), located.rows, self)

    def batches_of(self, located: Located, batch_size: int, whole: bool = False) -> Iterator[TokenBatch]:
        """The same in several batches, gathered in one go; of no rows, one batch."""
        tokens, rows = self._gather(located, whole), located.rows
        for first in range(0, max(len(rows), 1), batch_size):
            end = first + batch_size
            yield TokenBatch(torch.from_numpy(tokens[first:end]), rows[first:end], self)

    def _gather(self, located: Located, whole: bool) -> Array:
        if not whole:
            return self._tokens.gather(located)
        return self._tokens.gather_whole(located).reshape(len(located), self.num_views, sum(self.block_lengths))

    def batches(self, batch_size: int) -> Iterator[TokenBatch]:
        """All samples in order, in batches of at most `batch_size`."""
        for start in range(0, len(self), batch_size):
            yield self.read(slice(start, start + batch_size))

    def keys_of(self, rows: Rows) -> list[str]:
        """WebDataset keys of the named rows. Raises as `read` does."""
        return self._keys.read(row_numbers(rows, len(self)))

    def labels_of(self, rows: Rows) -> Array:
        """int64 [n] of the named rows, -1 without a label. Raises as `read` does."""
        return self._labels.gather(self._labels.locate(row_numbers(rows, len(self))))

    def field_of(self, name: str, rows: Rows) -> list[bytes | None]:
        """A kept member of the named rows, None where a sample had none.

        Raises as `read` does, and StoreError for a member that the store does not have.
        """
        if name not in self._fields:
            known = ", ".join(self._fields) or "none: name them in source.keep before the store is begun"
            raise StoreError(f"{self._files.root}: no field {name!r}; there is {known}")
        return self._fields[name].read(row_numbers(rows, len(self)))

    @property
    def geometry(self) -> Geometry:
        """Image size, grid, block layout and block lengths."""
        return self._birth.geometry

    @property
    def num_views(self) -> int:
        """V, the views of each row: crops of its image, mirrored or not, each with tokens of its own; 1 by default."""
        return self._birth.views or 1

    def views_of(self, rows: Rows) -> Views:
        """Which parts of their images the views of the named rows are.

        Raises as `read` does, and StoreError for a store without views.
        """
        if self._views is None:
            raise StoreError(f"{self._files.root}: has no views: each row is its image as the store's settings crop it")
        box, flip = self._views
        rows = row_numbers(rows, len(self))
        return Views(box.gather(box.locate(rows)), flip.gather(flip.locate(rows)))

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
    def vocabulary(self) -> str:
        """Digest of what the tokens stand for: a token means the same in stores where this is equal.

        Of the codebook and the rule that makes embeddings of it; of the whole tokenizer, where there is no table.
        """
        codebook, arrays = self._birth.codebook, self._birth.rule_digest
        return digest_of(
            {
                "codebook": codebook.tree(),
                "var_input": self._birth.var_input,
                "tokenizer": None if codebook.kind == "table" else self._birth.identity.get("tokenizer"),
                **({} if arrays is None else {"rule_digest": arrays}),
            }
        )

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
    def keys(self) -> Keys:
        """The WebDataset keys of all samples, in order: a sequence of str that is read on demand, and searched by
        `keys.find(key)`, int64 rows of all occurrences. It equals no list: `list(store.keys)` makes one."""
        return self._keys

    @property
    def labels(self) -> Tensor:
        """int64 [len(store)], -1 without a label."""
        return torch.from_numpy(self.labels_of(np.arange(len(self))))

    @property
    def root(self) -> str:
        """Folder or URL of the store."""
        return self._files.root

    @property
    def content_digest(self) -> str:
        """Digest of all arrays of all parts: equal digests mean equal stores."""
        return self.manifest.content_digest

    @property
    def cache(self) -> PartCache | None:
        """Where local copies of the parts are kept."""
        return self._opening.cache

    @property
    def part_starts(self) -> Array:
        """int64 [parts + 1]: part i holds the rows part_starts[i] to part_starts[i + 1]."""
        return self._starts.copy()

    @property
    def chunk_starts(self) -> Array:
        """int64 [chunks + 1]: chunk i, which is stored and read as one, holds the rows chunk_starts[i] to
        chunk_starts[i + 1]; none crosses parts."""
        return self._tokens.chunk_starts.copy()

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the kept members."""
        return self._birth.fields

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the labels, that of label i at i; None where the collection tells none."""
        return self._birth.classes

    def idxBl_to_var_input(self, idx_Bl: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """Blocks of [B, L_i] as the embedding sequence x_BLC, [B, L_rule, C] of `dtype` on their device; blocks of all
        views, [B, V, L_i], as [B, V, L_rule, C].

        L_rule is L_total where each token is looked up in the codebook; another rule may give another length.
        Indices are compared with the vocabulary first, in one pass over them that never waits for a GPU.

        Raises StoreError as `rule` does, CorruptStore where what the rule needs is missing or damaged, TokenizerError
        for an index outside the codebook; on a GPU an assertion fails instead, which ends the process.
        """
        return self._var_input(idx_Bl, dtype)

    @property
    def rule(self) -> Rule:
        """How block index lists become embedding sequences.

        Raises StoreError for one that this version does not know.
        """
        return rule_of(self._files, self._birth)

    @cached_property
    def _var_input(self) -> Embedder:
        return var_input_of(self._files, self._birth, lambda: self.codebook)

    def _view_arrays(self, views: int) -> tuple[RowArray, RowArray]:
        reading = self._opening.reading
        box = RowArray(self._parts, "view/box", "int32", (views, 4), cache_bytes=1 << 26, **reading)
        return box, RowArray(self._parts, "view/flip", "uint8", (views,), cache_bytes=1 << 24, **reading)

    def _snapshot(self) -> Manifest:
        known: list[str] = []  # which a list that lags behind may lack
        with contextlib.suppress(CorruptStore):
            finished = read_manifest(self._files, self._birth)
            known = [record.part for record in finished.parts] if finished else []
        parts = sorted(committed_parts(self._files, known))
        return make_manifest(read_commits(self._files, parts), (), self.vocab_size, generation=0)


# Each one by itself: when one of two alike is closed, the other must still be found.
_open_stores: "weakref.WeakValueDictionary[int, TokenStore]" = weakref.WeakValueDictionary()


def _open_store(
    root: str, content_digest: str, options: dict[str, Any], manifest: Manifest | None = None
) -> TokenStore:
    """The store that this process has open already, for batches that come from its workers; else open it."""
    for reference in _open_stores.valuerefs():  # a list made at once, whatever other threads open
        store = reference()
        if store is not None and (store._files.root, store.content_digest) == (root, content_digest):
            return store
    return TokenStore(root, content_digest=content_digest, manifest=manifest, **options)
