"""Tars in which the members of a sample stand apart: their headers are read first, then each sample's members.

Plain `tar cf` writes the files of a folder in the order in which the file system names them.
"""

import functools
from collections.abc import Callable, Iterator
from io import BufferedReader

from pipeline.errors import SourceError
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.containers.limits import DEFAULT, Limits
from pipeline.source.containers.members import Member, add_member, add_problem, note_ignored, split_name
from pipeline.source.containers.tar.strict import StrictTar
from pipeline.source.sample import Sample
from pipeline.source.shards.opening import read_bytes, shard_name, source_errors, source_of
from pipeline.source.shards.raw import RawStream


class RegroupedTar:
    """Iterates over the samples of one local tar, in the order of their first members; see `ShardReader`.

    Memory grows with the number of members, by a few hundred bytes for each.
    """

    def __init__(
        self,
        shard: SourceShard,
        wanted: Callable[[str], bool],
        allow_unterminated: bool,
        digests: bool,
        limits: Limits = DEFAULT,
    ) -> None:
        self._shard = shard
        self._wanted = functools.lru_cache(wanted)
        self._allow_unterminated = allow_unterminated
        self._digests = digests
        self._limits = limits
        self._record: SourceRecord | None = None
        self.bytes = 0
        self.ignored: list[str] = []

    def __iter__(self) -> Iterator[Sample]:
        name = shard_name(self._shard)
        with source_errors(name):
            samples = self._index(name)
            for index, (key, members) in enumerate(samples.items()):
                sample = Sample(index, key, {}, start=members[0][1].start)
                for extension, member in members:
                    problem = self._limits.too_large(member.size) if self._wanted(extension) else ""
                    wanted = self._wanted(extension) and not problem
                    add_member(sample, extension, self._data(member) if wanted else None)
                    if problem:
                        add_problem(sample, extension, problem)
                yield sample

    def sources(self) -> tuple[SourceRecord, ...]:
        assert self._record is not None, "asked for before the last sample"
        return (self._record,)

    def _index(self, name: str) -> dict[str, list[tuple[str, Member]]]:
        """Extensions and members by key. The tar is read through, and its digest made, where that is asked for."""
        samples: dict[str, list[tuple[str, Member]]] = {}
        with source_of(self._shard).open(self._shard.path) as stream:
            jumps = not self._digests and isinstance(stream, BufferedReader)
            raw = RawStream(stream, self._digests)
            tar = StrictTar(
                stream if jumps else raw, name, lambda _: False, self._allow_unterminated, limits=self._limits
            )
            for member in tar:
                split = split_name(member.name) if member.plain else None
                if split is None:
                    note_ignored(self.ignored, member.name)
                else:
                    samples.setdefault(split[0], []).append((split[1], member))
        self.bytes = tar.bytes
        if self._digests:
            shard = self._shard
            self._record = SourceRecord(
                path=shard.path, bytes=tar.bytes, sha256=raw.digest, version=shard.version, head=raw.head
            )
        return samples

    def _data(self, member: Member) -> bytes:
        data = read_bytes(self._shard, member.contents_at, member.size)
        if len(data) != member.size:
            raise SourceError(
                f"{shard_name(self._shard)}: cut off while it was read; run again when nobody writes to it"
            )
        return data
