"""`TextTokens`: the texts of a store, such as captions, as ids of a tokenizer that the user brings."""

import inspect
import os
import re
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import is_url
from pipeline.loader.arguments import open_store
from pipeline.loader.epochs import Rows, ranges
from pipeline.loader.texts.folder import Ids, stored_ids
from pipeline.records import JSON, digest_of
from pipeline.store.reader import TokenStore

Encode = Callable[[str], Any]
"""Gives the ids of a text: whole numbers from 0 on, as a list, an array or a tensor."""

_ROWS_AT_ONCE = 1024
_MOST = 1 << 32


class TextTokens:
    """The ids of the texts of a store: made once, kept in a folder, and read from mapped files from then on.

        captions = TextTokens(store, tokenizer.encode, name="gpt2")
        captions[7]                                     # int64 [n], those of row 7

    Any number of processes may ask for the same ids at once: one makes them, and the others wait. A process that is
    killed leaves nothing that passes for whole.

    Args:
        store: an open store.
        encode: gives the ids of a text, whole numbers from 0 to 2**32 - 1: called once for each text of the store, and
            where the ids are there for one, to warn of another tokenizer's. None to read those that are.
        name: of the tokenizer, under which its ids are found again: another tokenizer needs another name. Together with
            the store's content digest and the field it decides which ids these are.
        field: the kept member with the texts, in UTF-8. A row without it has no ids.
        folder: where ids are kept; by default `STORE.texts`, beside the store.

    Raises ValueError for what are no ids, naming the row, and without a folder for a store that is not on a local file
    system; StoreError for a field that the store does not have or that is no text, for a folder that cannot be written,
    and for ids that are damaged; and what `encode` raises.
    """

    def __init__(
        self,
        store: TokenStore,
        encode: Encode | None,
        name: str,
        field: str = "txt",
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be that of the tokenizer, such as 'gpt2', not {name!r}")
        open_store(store).field_of(field, np.empty(0, np.int64))  # raises where there is no such field
        self.content_digest = store.content_digest
        """Of the store."""
        self._folder = _folder_for(store, folder)
        self._of: JSON = {"content_digest": self.content_digest, "field": field, "tokenizer": name}
        texts = None if encode is None else _encoded(store, encode, field)
        self._stored = stored_ids(self._folder, _name_for(self._of), self._of, texts)
        if encode is not None and texts is not None and inspect.getgeneratorstate(texts) == inspect.GEN_CREATED:
            self._warn_of_other_ids(store, encode, field)

    def _warn_of_other_ids(self, store: TokenStore, encode: Encode, field: str) -> None:
        """Of one text, the first that has ids."""
        some = np.flatnonzero(self.lengths(np.arange(min(len(self), _ROWS_AT_ONCE))))[:1]
        for row, text in zip(some.tolist(), store.read(some).text(field), strict=True):
            if text is None or not np.array_equal(_checked(encode(text), store, row), self[row]):
                warnings.warn(
                    f"encode gives other ids for the text of row {row}, {store.keys[row]!r}, than {self._folder} has "
                    f"by the name {self._of['tokenizer']!r}, and those are used: give another tokenizer another name",
                    stacklevel=3,
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._folder, self._of)

    def __repr__(self) -> str:
        of = self._of
        return f"<ids of {len(self):,} texts: field {of['field']!r}, tokenizer {of['tokenizer']!r}, in {self._folder}>"

    def __len__(self) -> int:
        """Rows of the store."""
        return len(self._stored.offsets) - 1

    def __getitem__(self, row: int) -> Rows:
        """int64 [n], the ids of a row; negative numbers count from the end. Raises IndexError, TypeError of slices."""
        if isinstance(row, slice):
            raise TypeError(
                f"texts[...] is one text; texts.take(np.arange(...)) has the ids of several: not texts[{row}]"
            )
        return self.take(np.array([range(len(self))[row]]))[0]

    def take(self, rows: Rows, most: int | Rows | None = None) -> tuple[Rows, Rows]:
        """The ids of int64 [n] row numbers, one text behind the other, and how many each has: int64 [total], int64 [n].

        Args:
            most: of each text no more than its first so many; one number, or int64 [n].
        """
        starts, lengths = self._extents(rows)
        if most is not None:
            lengths = np.minimum(lengths, most)
        return self._stored.ids[ranges(starts, lengths)].astype(np.int64), lengths

    def lengths(self, rows: Rows) -> Rows:
        """int64 [n], the number of ids of int64 [n] row numbers."""
        return self._extents(rows)[1]

    @property
    def longest(self) -> int:
        """The most ids that a text has."""
        return self._stored.longest

    @property
    def vocab_size(self) -> int:
        """Every id is below it: the largest one that there is, and 1."""
        return self._stored.vocab_size

    def _extents(self, rows: Rows) -> tuple[Rows, Rows]:
        offsets = self._stored.offsets
        starts = offsets[rows].astype(np.int64)
        return starts, offsets[rows + 1].astype(np.int64) - starts


def _reopened(folder: Path, of: JSON) -> TextTokens:
    """The same ids in another process."""
    texts = TextTokens.__new__(TextTokens)
    texts._folder, texts._of, texts.content_digest = folder, of, of["content_digest"]
    texts._stored = stored_ids(folder, _name_for(of), of, None)
    return texts


def _folder_for(store: TokenStore, folder: str | os.PathLike[str] | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser().absolute()
    if is_url(store.root):
        raise ValueError(f"{store.root}: ids of texts are kept on a local file system; name a folder with folder=")
    root = Path(store.root).absolute()
    return root.with_name(f"{root.name}.texts")


def _name_for(of: JSON) -> str:
    """A name for people, and a digest that tells all apart."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", f"{of['tokenizer']}-{of['field']}").strip("-.")[:60]
    return f"{words}-{digest_of(of)[:12]}"


def _encoded(store: TokenStore, encode: Encode, field: str) -> Generator[Ids, None, None]:
    """The ids of each row, of those without a text none."""
    for first in range(0, len(store), _ROWS_AT_ONCE):
        texts = store.read(slice(first, first + _ROWS_AT_ONCE)).text(field)
        for row, text in enumerate(texts, start=first):
            yield np.empty(0, np.uint32) if text is None else _checked(encode(text), store, row)


def _checked(ids: Sequence[int] | Any, store: TokenStore, row: int) -> Ids:
    found = np.asarray(ids)
    wrong = found.ndim != 1 or (
        found.size and (found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= _MOST)
    )
    if wrong:
        raise ValueError(
            f"encode gave {ids!r:.200} for the text of row {row}, {store.keys[row]!r}: it must give a sequence of "
            f"whole numbers in 0 .. {_MOST - 1}, such as tokenizer.encode(text)"
        )
    return found.astype(np.uint32)
