"""Parquet files as source shards."""

from collections.abc import Callable

import numpy as np

from pipeline.config import SourceConfig
from pipeline.files import Readable
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.containers.container import Description, Numbers, Read, ShardIndex
from pipeline.source.containers.parquet.reader import ParquetReader
from pipeline.source.containers.parquet.table import open_table
from pipeline.source.sample import Sample
from pipeline.source.shards.identity import file_difference
from pipeline.source.shards.opening import changed_since_counted

_SUFFIXES = (".parquet", ".parq", ".pq")
# A row group is read from its beginning. Files of larger ones are read from theirs, window after window.
_JUMP_BYTES = 64 << 20


class Parquet:
    """See `Container`. The "bytes" of its index are numbers of row groups."""

    def holds(self, shard: SourceShard) -> bool:
        return shard.inside is None and shard.path.lower().endswith(_SUFFIXES)

    def describe(self, shard: SourceShard, source: SourceConfig) -> Description:
        reader = ParquetReader(shard, source, lambda _: False, digests=False)
        found = reader.columns
        types = {column.name: str(column.type) for column in reader.table.schema_arrow}
        rows = reader.table.metadata.num_rows
        return Description("Parquet", rows, types, found.image, found.label, found.classes)

    def open(
        self, shard: SourceShard, source: SourceConfig, files: Readable, wanted: Callable[[str], bool], digests: bool
    ) -> ParquetReader:
        return ParquetReader(shard, source, wanted, digests)

    def index(self, shard: SourceShard, source: SourceConfig, files: Readable) -> ShardIndex:
        metadata = open_table(shard).metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        if any(group.total_byte_size > _JUMP_BYTES for group in groups):
            return ShardIndex(metadata.num_rows, None)
        of_rows = np.repeat(np.arange(len(groups)), [group.num_rows for group in groups])
        return ShardIndex(metadata.num_rows, np.append(of_rows, len(groups)).astype(np.int64))

    def plan_reads(self, index: ShardIndex, samples: Numbers) -> list[Read]:
        assert index.starts is not None
        reads: list[Read] = []
        for sample in samples.tolist():
            group = int(index.starts[sample])
            last = reads[-1] if reads and reads[-1].start == group else None
            if last is None:
                reads.append(Read(group, group + 1, ((sample, sample + 1),)))
            elif last.runs[-1][1] == sample:
                reads[-1] = last._replace(runs=(*last.runs[:-1], (last.runs[-1][0], sample + 1)))
            else:
                reads[-1] = last._replace(runs=(*last.runs, (sample, sample + 1)))
        return reads

    def read_at(
        self, shard: SourceShard, source: SourceConfig, index: ShardIndex, read: Read, wanted: Callable[[str], bool]
    ) -> list[Sample]:
        reader = ParquetReader(shard, source, wanted, digests=False)
        if reader.table.metadata.num_rows != index.samples or reader.table.num_row_groups < read.stop:
            raise changed_since_counted(shard)
        asked = {sample for first, end in read.runs for sample in range(first, end)}
        found = [sample for sample in reader.samples(range(read.start, read.stop)) if sample.index in asked]
        if len(found) != len(asked):
            raise changed_since_counted(shard)
        return found

    def class_names(self, shard: SourceShard, source: SourceConfig) -> tuple[str, ...] | None:
        rule = source.label_rule
        if rule is None or rule.kind != "member":
            return None
        return ParquetReader(shard, source, lambda _: False, digests=False).columns.classes

    def difference(
        self, shard: SourceShard, source: SourceConfig, record: SourceRecord, check_files: bool
    ) -> str | None:
        return file_difference(shard, record)
