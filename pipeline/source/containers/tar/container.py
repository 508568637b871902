"""Tars as source shards."""

from collections.abc import Callable

from pipeline.config import SourceConfig
from pipeline.files import Readable
from pipeline.records import SourceShard
from pipeline.source.containers.container import Numbers, Read, ShardIndex
from pipeline.source.containers.tar.access import index_tar, plan_reads, read_samples_at
from pipeline.source.containers.tar.reader import TarReader
from pipeline.source.sample import Sample


class Tar:
    """See `Container`."""

    def holds(self, path: str) -> bool:
        """Any: what is named is taken for a tar, and reading it tells."""
        return True

    def open(
        self, shard: SourceShard, source: SourceConfig, files: Readable, wanted: Callable[[str], bool], digests: bool
    ) -> TarReader:
        return TarReader(files, shard.path, wanted, source.allow_unterminated, digests, shard.version)

    def index(self, shard: SourceShard, source: SourceConfig, files: Readable) -> ShardIndex:
        return index_tar(shard, files, source.allow_unterminated)

    def plan_reads(self, index: ShardIndex, samples: Numbers) -> list[Read]:
        return plan_reads(index, samples)

    def read_at(
        self, shard: SourceShard, source: SourceConfig, index: ShardIndex, read: Read, wanted: Callable[[str], bool]
    ) -> list[Sample]:
        return read_samples_at(shard, index, read, wanted)
