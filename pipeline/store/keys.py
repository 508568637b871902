"""The keys of a store: read where they are asked for, and searched as the bytes that they are stored as."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Any, overload

import numpy as np

from pipeline.overlap import ordered_map
from pipeline.store.arrays.parts import Part
from pipeline.store.arrays.row_texts import RowTexts
from pipeline.store.arrays.storage import Texts, chunk_rows
from pipeline.store.types import Array

# Object stores answer each read after tens of milliseconds; on a local disk it changes little.
SEARCH_THREADS = 16

# Where a part holds the bytes of a key more often, as those of a short key, the lengths of all its keys are compared
# first.
_MOST_PLACES = 1024

# Rows of which the keys are in memory at a time, where many are read or compared.
_BLOCK_ROWS = 1 << 16

# Up to so many keys in a row are read in the pieces that are kept for the next read.
_FEW_ROWS = 1 << 10

# Compared in all keys at once before those that are left are compared whole: keys differ at their ends more often than
# where they begin.
_LAST_BYTES = 16


class Keys(Sequence[str]):
    """The WebDataset keys of all rows of a store, in order, of which no more is in memory than is being read.

    Indexing, slices (lists of str), iteration, `in`, `index`, `count` and `reversed` are as those of a list. Like
    a `range`, it equals no list: compare `list(keys)`. Threads and forks may share it, and it can be pickled.

    `find`, `in`, `index` and `count` go through the keys of the store from the beginning each time: make a dict
    to look for many. All of it raises CorruptStore for a damaged part, and StoreError where a file cannot be had.

    Args:
        parts: the parts, in order.
        texts: the same keys as byte strings, for few rows.
        reopening: a function and its arguments that give the store in another process.
    """

    def __init__(
        self, parts: Sequence[Part], texts: RowTexts, reopening: tuple[Callable[..., Any], tuple[Any, ...]]
    ) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(part.rows for part in parts)], dtype=np.int64)
        self._texts = texts
        self._reopening = reopening

    def __reduce__(self) -> tuple[Any, ...]:
        return _keys_of, self._reopening

    def __repr__(self) -> str:
        return f"<{len(self):,} keys of {len(self._parts):,} parts>"

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Key `index`, or a list of those of a slice; negative ones count from the end. Raises IndexError."""
        rows = range(len(self))[index]
        if isinstance(rows, int):
            return self.read(np.array([rows]))[0]
        if len(rows) <= _FEW_ROWS or rows.step not in (1, -1):
            return self.read(np.arange(rows.start, rows.stop, rows.step))
        if rows.step == -1:
            return list(self._run(rows[-1], rows[0] + 1))[::-1]
        return list(self._run(rows.start, rows.stop))

    def __iter__(self) -> Iterator[str]:
        return self._run(0, len(self))

    def __reversed__(self) -> Iterator[str]:
        blocks = reversed(self._blocks(0, len(self)))
        return chain.from_iterable(reversed(_decoded(part.texts("key", *rows))) for part, rows in blocks)

    def __contains__(self, key: object) -> bool:
        return self._first(key, range(len(self))) is not None

    def index(self, key: Any, start: int = 0, stop: int | None = None) -> int:
        """The first row from `start` on, before `stop`, that has the key. Raises ValueError where none has."""
        row = self._first(key, range(len(self))[start:stop])
        if row is None:
            raise ValueError(f"no row has the key {key!r}")
        return row

    def count(self, key: Any) -> int:
        """How many rows have the key."""
        return len(self.find(key)) if isinstance(key, str) else 0

    def find(self, key: str) -> Array:
        """All rows that have the key, int64 [n] in increasing order. Keys repeat where source shards have the same.

        Raises TypeError for a key that is no str.
        """
        if not isinstance(key, str):
            raise TypeError(f"a key is a str, not {key!r}")
        return np.concatenate([np.empty(0, np.int64), *self._found(key)])

    def read(self, rows: Array) -> list[str]:
        """The keys of int64 [n] row numbers, all in 0 .. len - 1, in the order given."""
        if len(rows) > _FEW_ROWS and (np.diff(rows) == 1).all():
            return list(self._run(int(rows[0]), int(rows[-1]) + 1))
        return [(key or b"").decode() for key in self._texts.read(rows)]

    def _first(self, key: object, within: range) -> int | None:
        if isinstance(key, str):
            with contextlib.closing(self._found(key)) as found:
                for rows in found:
                    for row in rows.tolist():
                        if row in within:
                            return int(row)
        return None

    def _found(self, key: str) -> Generator[Array, None, None]:
        """Rows that have the key, part by part."""
        wanted = encoded(key)
        if wanted is None:
            return
        with ThreadPoolExecutor(SEARCH_THREADS, "vqtok-keys") as threads:
            looks = ordered_map(lambda part: rows_with(part, wanted), self._parts, threads, ahead=2 * SEARCH_THREADS)
            with contextlib.closing(looks):
                for start, rows in zip(self._starts[:-1].tolist(), looks, strict=True):
                    yield rows + start

    def _run(self, first: int, stop: int) -> Iterator[str]:
        """The keys of rows first to stop."""
        return chain.from_iterable(_decoded(part.texts("key", *rows)) for part, rows in self._blocks(first, stop))

    def _blocks(self, first: int, stop: int) -> list[tuple[Part, tuple[int, int]]]:
        """Rows first to stop in pieces of at most a block: their part, and where they begin and end in it."""
        blocks = []
        for part, start in zip(self._parts, self._starts[:-1].tolist(), strict=True):
            low, high = max(first - start, 0), min(stop - start, part.rows)
            blocks += [(part, (at, min(at + _BLOCK_ROWS, high))) for at in range(low, high, _BLOCK_ROWS)]
        return blocks


def encoded(key: str) -> bytes | None:
    """The bytes that a key is stored as; None for a str that no key can be, as file names that are not UTF-8 give."""
    try:
        return key.encode()
    except UnicodeEncodeError:
        return None


def rows_with(part: Part, key: bytes) -> Array:
    """Rows of a part that have the key, int64 [n] in increasing order. Raises CorruptStore and StoreError.

    Most parts do not hold its bytes anywhere; only of those that do, keys are told apart.
    """
    places = _places(part, key) if part.rows and key else None
    if places is not None:
        return _rows_at(part, places, len(key)) if places else np.empty(0, np.int64)
    blocks = range(0, part.rows, _BLOCK_ROWS)
    found = [at + _rows_with(part, key, at, min(at + _BLOCK_ROWS, part.rows)) for at in blocks]
    return np.concatenate([np.empty(0, np.int64), *found])


def _places(part: Part, key: bytes) -> list[int] | None:
    """Where the keys of a part, one behind the other, hold these bytes, be it across several keys; None for many."""
    data = part.array("key/data")
    end, tail, places = data.shape[0], b"", []
    step = chunk_rows(end, 1)  # reads whole chunks
    for start in range(0, end, step):
        piece = tail + part.read_range("key/data", data, start, min(start + step, end)).tobytes()
        begin = start - len(tail)
        place = piece.find(key)
        while place >= 0:
            places.append(begin + place)
            if len(places) > _MOST_PLACES:
                return None
            place = piece.find(key, place + 1)
        tail = piece[max(len(piece) - len(key) + 1, 0) :]
    return places


def _rows_at(part: Part, places: list[int], length: int) -> Array:
    """The rows of a part whose keys begin at one of these bytes and have this length, not 0."""
    starts, rows = np.asarray(places), []
    for first in range(0, part.rows, _BLOCK_ROWS):
        offsets = part.read("key/offsets", slice(first, min(first + _BLOCK_ROWS, part.rows) + 1)).astype(np.int64)
        row = offsets.searchsorted(starts, side="right") - 1  # behind the empty keys that begin there too
        inside = (row >= 0) & (row < len(offsets) - 1)
        row, wanted = row[inside], starts[inside]
        rows.append(first + row[(offsets[row] == wanted) & (offsets[row + 1] - wanted == length)])
    return np.concatenate(rows)


def _rows_with(part: Part, key: bytes, start: int, stop: int) -> Array:
    """Which of the rows start to stop of a part have the key, counted from start."""
    offsets = part.read("key/offsets", slice(start, stop + 1)).astype(np.int64)
    rows = np.flatnonzero(np.diff(offsets) == len(key))
    if not rows.size or not key:
        return rows
    data = part.read("key/data", slice(int(offsets[0]), int(offsets[-1])))
    starts = offsets[rows] - offsets[0]
    for place in reversed(range(len(key))[-_LAST_BYTES:]):
        same = data[starts + place] == key[place]
        rows, starts = rows[same], starts[same]
    whole = [data[start : start + len(key)].tobytes() == key for start in starts.tolist()]
    return rows[np.array(whole, np.bool_)]


def _decoded(texts: Texts) -> list[str]:
    data, bounds = texts.data.tobytes(), pairwise(texts.offsets.tolist())
    if data.isascii():  # to cut one text is faster than to decode many
        text = data.decode()
        return [text[start:stop] for start, stop in bounds]
    return [data[start:stop].decode() for start, stop in bounds]


def _keys_of(reopen: Callable[..., Any], arguments: tuple[Any, ...]) -> Keys:
    keys: Keys = reopen(*arguments).keys
    return keys
