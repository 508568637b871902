"""What a kind of container must be able to do: whoever adds one writes this, and names it in `registry`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.config import SourceConfig
from pipeline.files import Readable
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.sample import Sample

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class ShardReader(Protocol):
    """Iterates over the samples of one source shard, once and in a fixed order, and knows then what it has read.

    Iterating raises SourceError for a source shard that cannot be read to its end: nothing is left out in silence.
    """

    bytes: int
    """Read so far."""
    ignored: list[str]
    """Names of what belongs to no sample, as far as it has been met."""

    def __iter__(self) -> Iterator[Sample]: ...

    def sources(self) -> tuple[SourceRecord, ...]:
        """The files that were read, with their digests: several where a source shard consists of several.

        To be asked for after the last sample.
        """


@dataclass(frozen=True)
class ShardIndex:
    """How many samples a source shard holds, and where they are."""

    samples: int
    starts: Numbers | None
    """int64 [samples + 1], the byte at which each begins and where the last one ends; None for what can only be read
    from its beginning."""


class Read(NamedTuple):
    """One read of a stretch of a source shard."""

    start: int
    stop: int
    """Bytes."""
    runs: tuple[tuple[int, int], ...]
    """(first, end) of the samples in it that are asked for."""


class Inner(NamedTuple):
    """A source shard that lies in a file beside others."""

    name: str
    """Unique in the file."""
    start: int
    size: int
    """In bytes."""


@dataclass(frozen=True)
class Description:
    """What a source shard says of itself, before its samples are read."""

    kind: str
    """In words."""
    samples: int | None
    """How many there are, where it says so."""
    columns: dict[str, str] = field(default_factory=dict)
    """Names and types of what each sample has, where it says so."""
    image: str | None = None
    """The column that holds the image, where one must be."""
    label: str | None = None
    """The column with the label, where it says which."""
    classes: tuple[str, ...] | None = None
    """Names of the label's values."""


class Container(Protocol):
    """A kind of source shard: how its samples are read, from the beginning or from anywhere."""

    def holds(self, shard: SourceShard) -> bool:
        """Whether a source shard is of this kind."""

    def describe(self, shard: SourceShard, source: SourceConfig) -> Description:
        """What it says of itself. Raises SourceError."""

    def open(
        self,
        shard: SourceShard,
        source: SourceConfig,
        files: Readable,
        wanted: Callable[[str], bool],
        digests: bool,
    ) -> ShardReader:
        """Read a source shard from its beginning.

        Args:
            files: what it is read through.
            wanted: which members are read into memory, by their extensions.
            digests: whether anybody will ask for those of its files.
        """

    def index(self, shard: SourceShard, source: SourceConfig, files: Readable) -> ShardIndex:
        """Count the samples, and say where they are. Raises SourceError as a reader does."""

    def plan_reads(self, index: ShardIndex, samples: Numbers) -> list[Read]:
        """Few reads of few bytes that bring `samples`, numbers in rising order. Pure, no I/O.

        The index has `starts`.
        """

    def read_at(
        self, shard: SourceShard, source: SourceConfig, index: ShardIndex, read: Read, wanted: Callable[[str], bool]
    ) -> list[Sample]:
        """The samples that `read` asks for.

        Raises SourceError, also where the source shard is no longer what was indexed.
        """

    def difference(
        self, shard: SourceShard, source: SourceConfig, record: SourceRecord, check_files: bool
    ) -> str | None:
        """How a source shard differs from what a commit says of it; None if it does not, as far as can be told quickly.

        Args:
            check_files: look at each file, where it consists of many. Else only names are compared.

        Raises SourceError, OSError.
        """

    def class_names(self, shard: SourceShard, source: SourceConfig) -> tuple[str, ...] | None:
        """Names of classes, as far as a source shard tells them without being read; None if it does not.

        Those of a file are in the order of their indices; those of `source.label: folder` are the ones that it has.
        Raises SourceError.
        """
