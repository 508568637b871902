"""Samples of a tar from its beginning: members grouped by their WebDataset key."""

import functools
from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import BinaryIO

from pipeline.files import Readable
from pipeline.printing import printable
from pipeline.records import SourceRecord
from pipeline.source.containers.limits import DEFAULT, Limits
from pipeline.source.containers.members import Member, group_members, split_name
from pipeline.source.containers.tar.compression import decompressed
from pipeline.source.containers.tar.strict import StrictTar
from pipeline.source.sample import Sample
from pipeline.source.shards.opening import source_errors
from pipeline.source.shards.raw import RawStream


class TarReader:
    """Iterates over the samples of one tar, once, in order; see `ShardReader`.

    Reading is strict (see `StrictTar`), and the members of a sample must stand together. After the last
    sample `digest` is the sha256 of the tar, `head` that of its first 64 KiB, and `ignored` names the members
    that belong to no sample; `bytes` counts up to the size of the tar.

    Args:
        wanted: which extensions are read into memory; all by default.
        digests: whether `digest` and `head` are asked for. Without them, large members that are not wanted are not
            read from a local file.
        version: of the file, for `sources`.
        limits: of what is read into memory.

    Iterating raises SourceError.
    """

    def __init__(
        self,
        files: Readable,
        path: str,
        wanted: Callable[[str], bool] = lambda _: True,
        allow_unterminated: bool = False,
        digests: bool = True,
        version: str = "",
        limits: Limits = DEFAULT,
    ) -> None:
        self._files = files
        self._path = path
        self._wanted = functools.lru_cache(wanted)
        self._allow_unterminated = allow_unterminated
        self._digests = digests
        self._version = version
        self._limits = limits
        self.digest = ""
        self.head = ""
        self.bytes = 0
        self.is_compressed = False
        """Known after the first member."""
        self.ignored: list[str] = []

    def __iter__(self) -> Iterator[Sample]:
        location = printable(f"{self._files.root}/{self._path}")
        with source_errors(location), self._files.open(self._path) as stream:
            raw = self._raw(stream)
            content = decompressed(raw, location, self._limits.expansion)
            self.is_compressed = content is not None
            tar = StrictTar(content or raw, location, self._wants, self._allow_unterminated, limits=self._limits)
            yield from group_members(self._counted(tar, raw), location, self.ignored, is_compressed=self.is_compressed)
            self._count(tar, raw)
            if self._digests and isinstance(raw, RawStream):
                self.digest, self.head = raw.digest, raw.head

    def _raw(self, stream: BinaryIO) -> BufferedReader | RawStream:
        """The file as it lies there."""
        if not self._digests and isinstance(stream, BufferedReader):
            return stream  # one can jump in it
        return RawStream(stream, self._digests)

    def sources(self) -> tuple[SourceRecord, ...]:
        """The tar, as it was read."""
        return (
            SourceRecord(path=self._path, bytes=self.bytes, sha256=self.digest, version=self._version, head=self.head),
        )

    def _wants(self, name: str) -> bool:
        split = split_name(name)
        return split is not None and self._wanted(split[1])

    def _counted(self, tar: StrictTar, raw: BufferedReader | RawStream) -> Iterator[Member]:
        for member in tar:
            self._count(tar, raw)
            yield member

    def _count(self, tar: StrictTar, raw: BufferedReader | RawStream) -> None:
        """`bytes` is of the file as it lies there."""
        if not self.is_compressed:
            self.bytes = tar.bytes
        elif isinstance(raw, RawStream):
            self.bytes = raw.bytes
