"""How jobs read a source shard, whatever kind it is: from its beginning, or any of its samples."""

from collections.abc import Generator

from pipeline.config import SourceConfig
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.containers.container import Description, Numbers, Read, ShardIndex, ShardReader
from pipeline.source.containers.registry import container_of
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection
from pipeline.source.shards.command import Command
from pipeline.source.shards.opening import changed_since_counted, source_of


class Opener:
    """Opens source shards one after the other, until another thread wants an end of it."""

    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        self._wants = Selection(source).wants
        self._command: Command | None = None
        self._stopped = False

    def open(self, shard: SourceShard, *, contents: bool = True, digests: bool = True) -> ShardReader:
        """Read a source shard from its beginning.

        Args:
            contents: whether the members that the configuration asks for are read into memory; without, samples
                have their keys, and the names of their members.
            digests: whether `sources` will be asked for. Without, less is read where that is possible.
        """
        files = source_of(shard)
        self._command = files if isinstance(files, Command) else None
        if self._stopped and self._command is not None:  # by a thread that saw the one before
            self._command.stop()
        wanted = self._wants if contents else _nothing
        return container_of(shard).open(shard, self._source, files, wanted, digests)

    def stop(self) -> None:
        """End a wait for the output of a command, which may last for ever. Any thread may do so, at any time."""
        self._stopped = True
        if (command := self._command) is not None:
            command.stop()

    def read_on(self, shard: SourceShard, index: ShardIndex, first: int) -> Generator[Sample, None, None]:
        """The samples from number `first` to the last, of a source shard that can only be read from its beginning.

        Raises SourceError, also where the source shard is no longer what was indexed.
        """
        count = 0
        for count, sample in enumerate(self.open(shard, digests=False), 1):
            if count > index.samples:
                break
            if count > first:
                yield sample
        if count != index.samples:
            raise changed_since_counted(shard)


def open_shard(shard: SourceShard, source: SourceConfig, *, contents: bool = True, digests: bool = True) -> ShardReader:
    """See `Opener.open`."""
    return Opener(source).open(shard, contents=contents, digests=digests)


def describe_shard(shard: SourceShard, source: SourceConfig) -> Description:
    """What a source shard says of itself before its samples are read. Raises SourceError, ConfigError."""
    return container_of(shard).describe(shard, source)


def index_shard(shard: SourceShard, source: SourceConfig) -> ShardIndex:
    """Count the samples of a source shard, and say where they are. Raises SourceError as reading it does."""
    return container_of(shard).index(shard, source, source_of(shard))


def plan_reads(shard: SourceShard, index: ShardIndex, samples: Numbers) -> list[Read]:
    """Few reads of few bytes that bring `samples`, numbers in rising order; the index has `starts`. Pure, no I/O."""
    return container_of(shard).plan_reads(index, samples)


def read_samples_at(shard: SourceShard, source: SourceConfig, index: ShardIndex, read: Read) -> list[Sample]:
    """The samples that `read` asks for, with the members that `source` asks for.

    Raises SourceError, also where the source shard is no longer what was indexed.
    """
    return container_of(shard).read_at(shard, source, index, read, Selection(source).wants)


def class_names(shard: SourceShard, source: SourceConfig) -> tuple[str, ...] | None:
    """The classes that a source shard tells without being read; see `Container.class_names`."""
    return container_of(shard).class_names(shard, source)


def difference(shard: SourceShard, source: SourceConfig, record: SourceRecord, check_files: bool = False) -> str | None:
    """How a source shard differs from what a commit says of it; see `Container.difference`."""
    return container_of(shard).difference(shard, source, record, check_files)


def _nothing(extension: str) -> bool:
    return False
