"""A tar of tars: where in it each of them lies, from its headers alone."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.errors import SourceError
from pipeline.files import Files, files_at
from pipeline.records import SourceShard
from pipeline.source.containers.container import Inner
from pipeline.source.containers.tar.compression import decompressed
from pipeline.source.containers.tar.strict import StrictTar
from pipeline.source.shards.opening import shard_name, source_errors

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# Of each member little more than its header is read.
_PIECE_BYTES = 4 << 10
_REQUEST_BYTES = 16 << 10


def inner_tars(shard: SourceShard) -> Iterator[Inner]:
    """The tars in a tar. Raises SourceError for one that is damaged, compressed, or has none."""
    name = shard_name(shard)
    found = 0
    with source_errors(name):
        stream = io.BufferedReader(_Ranges(files_at(shard.base), shard), _REQUEST_BYTES)
        if decompressed(stream, name):
            raise SourceError(
                f"{name}: source.nested: it is compressed, so that the tars in it cannot be read where they lie; "
                "decompress it"
            )
        for member in StrictTar(stream, name, lambda _: False, piece_bytes=_PIECE_BYTES):
            if member.plain and member.name.lower().endswith(_TARS):
                found += 1
                yield Inner(member.name.removeprefix("./"), member.contents_at, member.size)
    if not found:
        raise SourceError(f"{name}: source.nested: there is no tar in it; leave source.nested out for this source")


class _Ranges(io.RawIOBase):
    """A file or object of which only some is read."""

    def __init__(self, files: Files, shard: SourceShard) -> None:
        assert shard.bytes is not None
        self._files = files
        self._path = shard.file
        self._size = shard.bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data = self._files.read(self._path, self._at, min(len(view), max(0, self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
