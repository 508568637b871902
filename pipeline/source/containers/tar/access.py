"""Samples from anywhere in a tar: an index says where they are, and only the bytes that are asked for are read.

index_tar ──▶ ShardIndex ──▶ plan_reads ──▶ read_samples_at
"""

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

import numpy as np

from pipeline.files import Readable
from pipeline.records import SourceShard
from pipeline.source.containers.container import Numbers, Read, ShardIndex
from pipeline.source.containers.limits import DEFAULT, Limits
from pipeline.source.containers.members import group_members, split_name
from pipeline.source.containers.tar.reader import TarReader
from pipeline.source.containers.tar.strict import StrictTar
from pipeline.source.sample import Sample
from pipeline.source.shards.opening import (
    can_jump,
    changed_since_counted,
    read_bytes,
    read_forward,
    shard_name,
    source_errors,
)

MAX_GAP_BYTES = 256 << 10
"""A gap of so many bytes between two samples is read along with them: another read would take longer."""
MAX_READ_BYTES = 8 << 20
"""A read stops growing at this size."""


def index_tar(
    shard: SourceShard, files: Readable, allow_unterminated: bool = False, limits: Limits = DEFAULT
) -> ShardIndex:
    """Walk through a tar. Raises SourceError as `TarReader` does."""
    reader = TarReader(files, shard.path, lambda _: False, allow_unterminated, digests=False, limits=limits)
    starts = [sample.start for sample in reader]
    jumps = can_jump(shard) and not reader.is_compressed
    return ShardIndex(len(starts), np.array([*starts, reader.bytes], np.int64) if jumps else None)


def plan_reads(index: ShardIndex, samples: Numbers) -> list[Read]:
    """Few reads of few bytes that bring `samples`, numbers in rising order. Pure, no I/O."""
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


def read_samples_at(
    shard: SourceShard, index: ShardIndex, read: Read, wanted: Callable[[str], bool], limits: Limits = DEFAULT
) -> list[Sample]:
    """The samples that `read` asks for, with the members whose extensions are wanted.

    Raises SourceError, also where the source shard is no longer what was indexed.
    """
    assert index.starts is not None
    name = shard_name(shard)
    walk = partial(_walk, name=name, wants=wanted, limits=limits)
    if read.stop - read.start > MAX_READ_BYTES:  # one large sample, of which not all may be wanted
        ((first, end),) = read.runs
        with source_errors(name), read_forward(shard, read.start, read.stop - read.start) as stream:
            samples = list(walk(stream, origin=read.start, first=first))
        if len(samples) != end - first:
            raise changed_since_counted(shard)
        return samples
    with source_errors(name):
        data = memoryview(read_bytes(shard, read.start, read.stop - read.start))
    if len(data) != read.stop - read.start:
        raise changed_since_counted(shard)
    samples = []
    for first, end in read.runs:
        start, stop = int(index.starts[first]), int(index.starts[end])
        found = list(walk(io.BytesIO(data[start - read.start : stop - read.start]), origin=start, first=first))
        if len(found) != end - first:
            raise changed_since_counted(shard)
        samples += found
    return samples


def _walk(
    stream: BinaryIO, name: str, wants: Callable[[str], bool], limits: Limits, origin: int, first: int
) -> Iterator[Sample]:
    def wanted(member: str) -> bool:
        split = split_name(member)
        return split is not None and wants(split[1])

    tar = StrictTar(stream, name, wanted, allow_unterminated=True, origin=origin, limits=limits)
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
