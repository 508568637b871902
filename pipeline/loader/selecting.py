"""Some rows of a store, for `TokenLoader(store, rows=...)`: by label, by metadata, or held out for validation."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.errors import StoreError
from pipeline.loader.arguments import open_store
from pipeline.loader.epoch_rows import checked_rows
from pipeline.loader.epochs import Rows
from pipeline.loader.splitmix import Words, chosen, splitmix64
from pipeline.store.reader import TokenStore
from pipeline.store.requested import whole_number

_LABEL_ROWS = 1 << 20
_RECORD_ROWS = 1 << 12
"""Rows that are read at a time, which bounds the memory."""


@dataclass(frozen=True)
class RowRecord:
    """What is known of one row besides its tokens."""

    row: int
    key: str
    """The WebDataset `__key__`."""
    label: int
    """-1 without a label."""
    source: str
    """Path of the source shard, as the store has it: relative to `source.base`."""
    fields: Mapping[str, bytes | None]
    """The kept members that were asked for, None where the sample had none."""


class _Asked(dict[str, bytes | None]):
    """Members of a row. Raises StoreError for one that was not asked for."""

    def __missing__(self, name: str) -> bytes | None:
        raise StoreError(f"the member {name!r} of a row was not asked for: rows_where(..., fields=[{name!r}])")

    def get(self, name: str, default: object = None) -> bytes | None:
        """As `fields[name]`: nothing else would tell a member that was not asked for from one that a sample lacks."""
        return self[name]


def rows_with_label(store: TokenStore, labels: int | Iterable[int]) -> Rows:
    """Rows whose label is one of these, sorted, int64 [n]; -1 finds those without one."""
    store = open_store(store)
    wanted = np.asarray([labels] if isinstance(labels, int | np.integer) else list(labels), np.int64)
    found = [rows[np.isin(store.labels_of(rows), wanted)] for rows in _stretches(len(store), _LABEL_ROWS)]
    return _together(found)


def rows_where(store: TokenStore, predicate: Callable[[RowRecord], bool], fields: Sequence[str] = ()) -> Rows:
    """Rows of which the predicate is true, sorted, int64 [n].

    The predicate is called once for each row, in order. A few thousand rows are in memory at a time.

    Args:
        predicate: of one row's record.
        fields: kept members that the record shall have; each is one more read.

    Raises StoreError for a field that the store does not have, and where the predicate looks at one that is not among
    `fields`.
    """
    store = open_store(store)
    for name in fields:
        store.field_of(name, np.empty(0, np.int64))
    found = [
        np.asarray([record.row for record in _records(store, rows, fields) if predicate(record)], np.int64)
        for rows in _stretches(len(store), _RECORD_ROWS)
    ]
    return _together(found)


def split_rows(
    store: TokenStore, held_out: float | int, seed: int = 0, rows: Sequence[int] | Rows | None = None
) -> tuple[Rows, Rows]:
    """Rows to train on and rows that are held out, each sorted, int64.

    Which side a row is on depends on the name of its part, its number within the part and the seed, on nothing else:
    no machine, version or selection of `rows` changes it. With a fraction, no row changes sides when the store grows,
    and a larger fraction holds out the same rows and more. With a number, rows may change sides when the store grows.
    It is rows that are split: of an image that lies in two places, each side may have one.

    Args:
        held_out: a float, the fraction of rows to hold out, up to chance; an int, the number of them, exactly.
        seed: another seed holds out other rows.
        rows: int64, sorted, without repeats: split only these rows of the store.

    Raises ValueError for a fraction outside 0 .. 1, or more rows than there are.
    """
    store = open_store(store)
    own = np.arange(len(store)) if rows is None else checked_rows(rows, len(store))
    hashes = _hashes(store, own, seed)
    is_fraction = isinstance(held_out, float | np.floating)
    out = _below(hashes, float(held_out)) if is_fraction else _smallest(hashes, whole_number("held_out", held_out))
    return own[~out], own[out]


def _below(hashes: Words, fraction: float) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    if not 0 <= fraction <= 1:
        raise ValueError(f"held_out must be a fraction in 0 .. 1 or a number of rows, not {fraction}")
    return chosen(hashes, fraction)


def _smallest(hashes: Words, count: int) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    if not 0 <= count <= len(hashes):
        raise ValueError(f"held_out must be a number of rows in 0 .. {len(hashes)}, not {count}")
    smallest = np.zeros(len(hashes), bool)
    if count:
        last = np.partition(hashes, count - 1)[count - 1]
        smallest[hashes < last] = True
        smallest[np.flatnonzero(hashes == last)[: count - int(smallest.sum())]] = True
    return smallest


def _hashes(store: TokenStore, rows: Rows, seed: int) -> Words:
    """uint64 [n] of sorted row numbers: output number (row within its part) of a generator for each part."""
    hashes = np.empty(len(rows), np.uint64)
    part_starts = store.part_starts
    places = pairwise(np.searchsorted(rows, part_starts).tolist())
    for part, start, (first, end) in zip(store.manifest.parts, part_starts.tolist(), places, strict=False):
        if first < end:
            key = hashlib.sha256(f"{seed}/{part.part}".encode()).digest()[:8]
            hashes[first:end] = splitmix64(int.from_bytes(key, "little"), rows[first:end] - start)
    return hashes


def _records(store: TokenStore, rows: Rows, fields: Sequence[str]) -> Iterator[RowRecord]:
    parts = np.searchsorted(store.part_starts, rows, side="right") - 1
    values = [store.field_of(name, rows) for name in fields]
    columns = zip(rows.tolist(), store.keys_of(rows), store.labels_of(rows).tolist(), parts.tolist(), strict=True)
    for number, (row, key, label, part) in enumerate(columns):
        members = _Asked({name: column[number] for name, column in zip(fields, values, strict=True)})
        yield RowRecord(row, key, label, store.manifest.parts[part].sources[0].path, members)


def _stretches(rows: int, size: int) -> Iterator[Rows]:
    for start in range(0, rows, size):
        yield np.arange(start, min(start + size, rows))


def _together(found: list[Rows]) -> Rows:
    return np.concatenate([np.empty(0, np.int64), *found])
