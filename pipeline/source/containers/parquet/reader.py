"""Samples of a Parquet file: all of them in order, or those of some rows."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.containers.parquet.columns import Columns, find_columns
from pipeline.source.containers.parquet.rows import (
    KeyOf,
    key_by_column,
    key_by_number,
    key_by_path,
    path_key,
    sample_of,
)
from pipeline.source.containers.parquet.table import open_table, table_errors
from pipeline.source.sample import Sample
from pipeline.source.shards.opening import shard_name, source_errors, source_of
from pipeline.source.shards.raw import PIECE_BYTES, RawStream

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 256


class ParquetReader:
    """Iterates over the rows of one Parquet file; see `ShardReader`.

    Memory holds some rows, and a page of each column, whatever the size of a row group. While rows are read, the file
    is read once more for its digest, where that is asked for.

    Iterating raises SourceError for a file that is damaged or lacks a column, ConfigError without pyarrow.
    """

    def __init__(self, shard: SourceShard, source: SourceConfig, wanted: Callable[[str], bool], digests: bool) -> None:
        self._shard = shard
        self._source = source
        self._wanted = wanted
        self._digests = digests
        self._raw: RawStream | None = None
        self.bytes = 0
        self.ignored: list[str] = []

    @cached_property
    def table(self) -> "pq.ParquetFile":
        return open_table(self._shard)

    @cached_property
    def columns(self) -> Columns:
        """Which columns are what. Raises SourceError."""
        return find_columns(self.table.schema_arrow, self._source, shard_name(self._shard))

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the label's values, where the file tells them."""
        return self.columns.classes

    def __iter__(self) -> Iterator[Sample]:
        rows = self.table.metadata.num_rows
        stopped = threading.Event()
        with ThreadPoolExecutor(1, "digest") as hashing, contextlib.ExitStack() as stack:
            digest = hashing.submit(self._read_raw, stopped) if self._digests else None
            stack.callback(stopped.set)  # nobody wants it when this is closed in the middle
            keys: set[str] = set()
            for sample in self.samples(range(self.table.num_row_groups)):
                if sample.key in keys:
                    raise SourceError(
                        f"{shard_name(self._shard)}: row {sample.index}: the key {sample.key!r} of column "
                        f"{self.columns.key} comes again; name a column of unique keys in source.key, or none"
                    )
                keys.add(sample.key)
                self.bytes = self._size * sample.index // max(1, rows)  # roughly: columns lie behind each other
                yield sample
            if digest is not None:
                self._raw = digest.result()
        self.bytes = self._raw.bytes if self._raw else self._size

    def sources(self) -> tuple[SourceRecord, ...]:
        raw, shard = self._raw, self._shard
        assert raw is not None, "asked for before the last sample"
        return (
            SourceRecord(path=shard.path, bytes=raw.bytes, sha256=raw.digest, version=shard.version, head=raw.head),
        )

    def samples(self, groups: range) -> Iterator[Sample]:
        """The samples of some row groups. Raises SourceError."""
        metadata, columns, key_of = self.table.metadata, self.columns, self._key_of
        first = sum(metadata.row_group(group).num_rows for group in range(groups.start))
        for group in groups:
            size = metadata.row_group(group).total_byte_size // max(1, metadata.row_group(group).num_rows)
            batches = self.table.iter_batches(
                max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, size))),
                row_groups=[group],
                columns=columns.read,
                use_threads=False,
            )
            while True:
                with table_errors(self._shard):
                    batch = next(batches, None)
                    cells = [] if batch is None else batch.to_pylist()
                if batch is None:
                    break
                for row, values in enumerate(cells, first):
                    yield sample_of(row, values, key_of(row, values), columns, self._source, self._wanted)
                first += len(cells)

    @cached_property
    def _key_of(self) -> KeyOf:
        stem = PurePosixPath(self._shard.path).stem
        if self.columns.key is not None:
            return key_by_column(self.columns.key, stem)
        return key_by_path(self.columns.image) if self._has_unique_paths() else key_by_number(stem)

    def _has_unique_paths(self) -> bool:
        """Whether each image has a path, and no two have one: all of that column is read, and nothing else."""
        if not self.columns.has_path:
            return False
        counts: Counter[str] = Counter()
        with table_errors(self._shard):
            for batch in self.table.iter_batches(1 << 14, columns=[f"{self.columns.image}.path"], use_threads=False):
                for cell in batch.column(0).to_pylist():
                    if not cell or not cell["path"]:
                        return False
                    counts[path_key(cell["path"])] += 1
        return len(counts) == counts.total()

    @property
    def _size(self) -> int:
        return self._shard.bytes or 0

    def _read_raw(self, stopped: threading.Event) -> RawStream:
        with source_errors(shard_name(self._shard)), source_of(self._shard).open(self._shard.path) as stream:
            raw = RawStream(stream)
            while not stopped.is_set() and raw.read(PIECE_BYTES):
                pass
        return raw
