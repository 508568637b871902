"""Compressed tars: told by their first bytes, for names do not tell, and read as streams in bounded memory."""

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from pipeline.errors import SourceError
from pipeline.source.containers.limits import DEFAULT
from pipeline.source.shards.raw import PIECE_BYTES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Peekable(Protocol):
    """A stream whose next bytes can be looked at."""

    def peek(self, size: int, /) -> bytes: ...

    def read(self, size: int = -1, /) -> bytes | None: ...


class _Decompressor(Protocol):
    """Of one stream of bytes; a file may be several, one behind the other."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Compression(NamedTuple):
    name: str
    begins: tuple[bytes, ...]
    open: Callable[[Peekable], "_Readable"]


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Streams:
    """Streams of one compression, one behind the other, up to the end of the file and not only as far as they go."""

    def __init__(self, raw: Peekable, begin: Callable[[], _Decompressor]) -> None:
        self._raw = raw
        self._begin = begin
        self._decompressor = begin()

    def read(self, size: int) -> bytes:
        while True:
            data = b""
            if self._decompressor.eof:
                data = self._decompressor.unused_data or self._raw.read(PIECE_BYTES) or b""
                if not data:
                    return b""
                self._decompressor = self._begin()
            elif self._decompressor.needs_input:
                data = self._raw.read(PIECE_BYTES) or b""
                if not data:
                    raise EOFError("it ends in the middle of a stream")
            if found := self._decompressor.decompress(data, size):
                return found


class _Counted:
    """A stream that knows how much of it was read."""

    def __init__(self, raw: Peekable) -> None:
        self._raw = raw
        self.bytes = 0

    def peek(self, size: int) -> bytes:
        return self._raw.peek(size)

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size) or b""
        self.bytes += len(data)
        return data


def _gzip(raw: Any) -> _Readable:
    return gzip.GzipFile(fileobj=raw, mode="rb")


_FREE_BYTES = 1 << 30
_XZ_MEMORY_BYTES = 256 << 20
_COMPRESSIONS = (
    _Compression("gzip", (b"\x1f\x8b",), _gzip),
    _Compression(
        "zstd",
        # Some writers put a frame of their own, which readers skip, in front of the first.
        (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))),
        lambda raw: _Streams(raw, zstd.ZstdDecompressor),
    ),
    _Compression("bzip2", (b"BZh",), lambda raw: _Streams(raw, bz2.BZ2Decompressor)),
    _Compression(
        "xz", (b"\xfd7zXZ\0",), lambda raw: _Streams(raw, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES))
    ),
)
MAGIC_BYTES = 6
"""At the beginning of a file, which tell."""
_DAMAGE = (EOFError, zlib.error, zstd.ZstdError, lzma.LZMAError, gzip.BadGzipFile)


def compression_name(first: bytes) -> str | None:
    """How a file that begins so is compressed; None for one that is not."""
    found = _compression(first)
    return found.name if found else None


def is_compressed(first: bytes) -> bool:
    """Whether a file that begins so is compressed."""
    return _compression(first) is not None


def decompressed(raw: Peekable, name: str, expansion: int = DEFAULT.expansion) -> "Decompressed | None":
    """What a stream holds compressed; None where it is not compressed, and has still to be read.

    Args:
        expansion: the most bytes that may come of one.
    """
    compression = _compression(raw.peek(MAGIC_BYTES))
    return None if compression is None else Decompressed(raw, compression, name, expansion)


def _compression(first: bytes) -> _Compression | None:
    return next((kind for kind in _COMPRESSIONS if first.startswith(kind.begins)), None)


class Decompressed:
    """A stream decompressed while it is read.

    Reading raises SourceError where the compressed file is damaged, cut off, followed by other data, or a bomb: more
    than a gigabyte out of little.
    """

    def __init__(self, raw: Peekable, compression: _Compression, name: str, expansion: int) -> None:
        self._raw = _Counted(raw)
        self._stream = compression.open(self._raw)
        self._compression = compression.name
        self._name = name
        self._expansion = expansion
        self._bytes = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        data = self._read(size)
        self._bytes += len(data)
        if self._bytes > _FREE_BYTES and self._bytes > self._expansion * self._raw.bytes:
            raise SourceError(
                f"{self._name}: {self._bytes:,} bytes have come of the first {self._raw.bytes:,} of its "
                f"{self._compression} compression, more than source.max_expansion = {self._expansion:,} times as many; "
                "raise it if that is meant"
            )
        return data

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        except OSError as error:
            if error.errno is not None:  # of the file below; that of bzip2 has no number
                raise
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> SourceError:
        return SourceError(
            f"{self._name}: its {self._compression} compression is damaged or cut off ({error}); copy the source shard "
            "again or repack it"
        )
