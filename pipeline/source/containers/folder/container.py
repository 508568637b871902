"""Files of a folder as source shards."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from pipeline.config import SourceConfig
from pipeline.files import Readable
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.containers.container import Description, Numbers, Read, ShardIndex
from pipeline.source.containers.folder.reader import FolderFiles, FolderReader, difference
from pipeline.source.containers.limits import Limits
from pipeline.source.folders.names import key_of
from pipeline.source.sample import Sample
from pipeline.source.shards.patterns import expand_braces

_READ_SAMPLES = 16


class Folder:
    """See `Container`. The "bytes" of its index are numbers of samples: each is read from files of its own."""

    def holds(self, shard: SourceShard) -> bool:
        return shard.listing is not None

    def describe(self, shard: SourceShard, source: SourceConfig) -> Description:
        return Description("files of a folder", len(_content(shard, source, _nothing, digests=False).samples()))

    def open(
        self, shard: SourceShard, source: SourceConfig, files: Readable, wanted: Callable[[str], bool], digests: bool
    ) -> FolderReader:
        return FolderReader(_content(shard, source, wanted, digests))

    def index(self, shard: SourceShard, source: SourceConfig, files: Readable) -> ShardIndex:
        samples = len(_content(shard, source, _nothing, digests=False).samples())
        return ShardIndex(samples, np.arange(samples + 1))

    def plan_reads(self, index: ShardIndex, samples: Numbers) -> list[Read]:
        reads: list[Read] = []
        for sample in samples.tolist():
            last = reads[-1] if reads else None
            if last and last.stop == sample and last.stop - last.start < _READ_SAMPLES:
                reads[-1] = Read(last.start, sample + 1, ((last.start, sample + 1),))
            else:
                reads.append(Read(sample, sample + 1, ((sample, sample + 1),)))
        return reads

    def read_at(
        self, shard: SourceShard, source: SourceConfig, index: ShardIndex, read: Read, wanted: Callable[[str], bool]
    ) -> list[Sample]:
        content = _content(shard, source, wanted, digests=False)
        samples = content.samples()[read.start : read.stop]
        return [content.read(read.start + number, sample).sample for number, sample in enumerate(samples)]

    def class_names(self, shard: SourceShard, source: SourceConfig) -> tuple[str, ...] | None:
        if source.label_rule is None or source.label_rule.kind != "folder" or shard.listing is None:
            return None
        content = _content(shard, source, _nothing, digests=False)
        there = (folder for folder in shard.listing.files if folder and content.has_files_in(folder))
        return tuple(sorted({key_of(folder.partition("/")[0]) for folder in there}))

    def difference(
        self, shard: SourceShard, source: SourceConfig, record: SourceRecord, check_files: bool
    ) -> str | None:
        assert shard.listing is not None
        if missing := shard.listing.missing:
            return f"{len(missing):,} files are gone, such as {missing[0]!r}"
        return difference(_content(shard, source, _nothing, digests=True), record) if check_files else None


def _content(shard: SourceShard, source: SourceConfig, wanted: Callable[[str], bool], digests: bool) -> FolderFiles:
    assert shard.listing is not None
    excluded = [name for pattern in source.exclude for name in expand_braces(pattern, "source.exclude")]
    return FolderFiles(shard, shard.listing, excluded, lru_cache(wanted), digests, Limits.of(source))


def _nothing(extension: str) -> bool:
    return False
