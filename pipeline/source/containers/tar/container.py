"""Tars as source shards."""

from collections.abc import Callable

from pipeline.config import SourceConfig
from pipeline.files import Readable, is_url
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.containers.container import Description, Numbers, Read, ShardIndex
from pipeline.source.containers.limits import Limits
from pipeline.source.containers.tar.access import index_tar, plan_reads, read_samples_at
from pipeline.source.containers.tar.compression import MAGIC_BYTES, compression_name, is_compressed
from pipeline.source.containers.tar.reader import TarReader
from pipeline.source.containers.tar.regrouped import RegroupedTar
from pipeline.source.sample import Sample
from pipeline.source.shards.identity import file_difference
from pipeline.source.shards.opening import can_jump, read_bytes, shard_name, source_errors


class Tar:
    """See `Container`."""

    def holds(self, shard: SourceShard) -> bool:
        """Any: what is named is taken for a tar, and reading it tells."""
        return True

    def describe(self, shard: SourceShard, source: SourceConfig) -> Description:
        if not can_jump(shard):
            return Description("tar from a command", None)
        with source_errors(shard_name(shard)):
            name = compression_name(read_bytes(shard, 0, MAGIC_BYTES))
        return Description(f"tar compressed with {name}" if name else "tar", None)

    def open(
        self, shard: SourceShard, source: SourceConfig, files: Readable, wanted: Callable[[str], bool], digests: bool
    ) -> TarReader | RegroupedTar:
        if source.regroup and self._can_regroup(shard):
            return RegroupedTar(shard, wanted, source.allow_unterminated, digests, Limits.of(source))
        return TarReader(
            files, shard.path, wanted, source.allow_unterminated, digests, shard.version, Limits.of(source)
        )

    def index(self, shard: SourceShard, source: SourceConfig, files: Readable) -> ShardIndex:
        if source.regroup and self._can_regroup(shard):
            samples = RegroupedTar(shard, lambda _: False, source.allow_unterminated, False, Limits.of(source))
            return ShardIndex(sum(1 for _ in samples), None)
        return index_tar(shard, files, source.allow_unterminated, Limits.of(source))

    def plan_reads(self, index: ShardIndex, samples: Numbers) -> list[Read]:
        return plan_reads(index, samples)

    def read_at(
        self, shard: SourceShard, source: SourceConfig, index: ShardIndex, read: Read, wanted: Callable[[str], bool]
    ) -> list[Sample]:
        return read_samples_at(shard, index, read, wanted, Limits.of(source))

    def class_names(self, shard: SourceShard, source: SourceConfig) -> None:
        return None

    def difference(
        self, shard: SourceShard, source: SourceConfig, record: SourceRecord, check_files: bool
    ) -> str | None:
        return file_difference(shard, record)

    def _can_regroup(self, shard: SourceShard) -> bool:
        """Whether one can jump in it at no cost; what one cannot is read as it stands, strictly."""
        if is_url(shard.base) or not can_jump(shard):
            return False
        with source_errors(shard_name(shard)):
            return not is_compressed(read_bytes(shard, 0, MAGIC_BYTES))
