"""Samples from the middle of a source shard: found by an index where one can jump, else by reading up to them.

index_shard ──▶ ShardIndex ──▶ plan_reads ──▶ read_samples_at    a file or an object: only the bytes asked for
                    └────────▶ open_samples                      any: from one sample on, in order
"""

import io
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.files import Readable, files_at
from pipeline.records import SourceShard
from pipeline.source.containers.samples import SampleReader, group_members, source_errors, split_name
from pipeline.source.containers.tar import StrictTar
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection
from pipeline.source.shards.opening import PIPE, shard_name, source_at

Numbers = np.ndarray[Any, np.dtype[np.int64]]

MAX_GAP_BYTES = 256 << 10
"""Bytes between two samples that are read along: another read takes longer."""
MAX_READ_BYTES = 8 << 20
"""A read that has grown to this is not added to."""


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


def index_shard(shard: SourceShard, source: SourceConfig) -> ShardIndex:
    """Walk through a source shard. Raises SourceError as `SampleReader` does."""
    reader = SampleReader(source_at(shard.base), shard.path, lambda _: False, source.allow_unterminated, digests=False)
    starts = [sample.start for sample in reader]
    if shard.base.startswith(PIPE):
        return ShardIndex(len(starts), None)
    return ShardIndex(len(starts), np.array([*starts, reader.bytes], np.int64))


def plan_reads(index: ShardIndex, samples: Numbers) -> list[Read]:
    """Few reads of few bytes that bring `samples`, numbers in rising order. Pure, no I/O.

    The source shard can be jumped into.
    """
    assert index.starts is not None
    reads: list[Read] = []
    for first, end in _runs(samples, index.starts):
        start, stop = int(index.starts[first]), int(index.starts[end])
        last = reads[-1] if reads else None
        if last and start - last.stop <= MAX_GAP_BYTES and stop - last.start <= MAX_READ_BYTES:
            reads[-1] = Read(last.start, stop, (*last.runs, (first, end)))
        else:
            reads.append(Read(start, stop, ((first, end),)))
    return reads


def read_samples_at(shard: SourceShard, source: SourceConfig, index: ShardIndex, read: Read) -> list[Sample]:
    """The samples that `read` asks for, with the members that `source` asks for.

    Raises SourceError, also where the source shard is no longer what was indexed.
    """
    assert index.starts is not None
    name = shard_name(shard)
    with source_errors(name):
        data = memoryview(files_at(shard.base).read(shard.path, read.start, read.stop - read.start))
    if len(data) != read.stop - read.start:
        raise _changed(shard)
    samples: list[Sample] = []
    for first, end in read.runs:
        start, stop = int(index.starts[first]), int(index.starts[end])
        stretch = io.BytesIO(data[start - read.start : stop - read.start])
        found = list(_walk(stretch, name, source, start, first))
        if len(found) != end - first:
            raise _changed(shard)
        samples += found
    return samples


def open_samples(
    shard: SourceShard,
    source: SourceConfig,
    index: ShardIndex,
    from_sample: int = 0,
    opened: Callable[[str], Readable] = source_at,
) -> Generator[Sample, None, None]:
    """The samples from number `from_sample` to the last, with the members that `source` asks for.

    Args:
        opened: gives what is read from beginning to end, such as that of an `Opener`.

    Raises SourceError, also where the source shard is no longer what was indexed.
    """
    if index.starts is None:
        yield from _read_through(shard, source, index.samples, from_sample, opened)
        return
    for read in plan_reads(index, np.arange(from_sample, index.samples)):
        yield from read_samples_at(shard, source, index, read)


def _read_through(
    shard: SourceShard, source: SourceConfig, samples: int, first: int, opened: Callable[[str], Readable]
) -> Iterator[Sample]:
    """All is read; what comes before `first` is discarded."""
    wants = Selection(source).wants
    reader = SampleReader(opened(shard.base), shard.path, wants, source.allow_unterminated, digests=False)
    count = 0
    for count, sample in enumerate(reader, 1):
        if count > samples:
            break
        if count > first:
            yield sample
    if count != samples:
        raise _changed(shard)


def _walk(stream: io.BytesIO, name: str, source: SourceConfig, origin: int, first: int) -> Iterator[Sample]:
    wants = Selection(source).wants

    def wanted(member: str) -> bool:
        split = split_name(member)
        return split is not None and wants(split[1])

    tar = StrictTar(stream, name, wanted, allow_unterminated=True, digests=False, origin=origin)
    return group_members(tar, name, [], first)


def _runs(samples: Numbers, starts: Numbers) -> Iterator[tuple[int, int]]:
    """(first, end) of each run of consecutive numbers, cut where it is longer than a read."""
    for run in np.split(samples, np.flatnonzero(np.diff(samples) != 1) + 1):
        first, end = (int(run[0]), int(run[-1]) + 1) if len(run) else (0, 0)
        while first < end:
            fits = int(np.searchsorted(starts, starts[first] + MAX_READ_BYTES, side="right")) - 1
            stop = min(max(fits, first + 1), end)
            yield first, stop
            first = stop


def _changed(shard: SourceShard) -> SourceError:
    return SourceError(
        f"{shard_name(shard)}: holds other samples than when it was counted; run again when nobody writes to it"
    )
