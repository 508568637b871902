"""A strict reader of tar files: every member once, or an error.

The standard library and WebDataset both end quietly where a tar is cut off, where a header is damaged, and
where a second tar is appended. For a job that must not lose a sample those three are errors, so the blocks
are walked here. The format is that of POSIX pax and GNU tar:
https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06
"""

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Protocol

from pipeline.errors import SourceError
from pipeline.source.containers.limits import DEFAULT, Limits
from pipeline.source.containers.members import Member
from pipeline.source.containers.tar.header import Header, parse_header, sparse_goes_on
from pipeline.source.shards.raw import PIECE_BYTES

BLOCK_BYTES = 512
_REPACK = "copy the source shard again or repack it"
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_AS_FOLDER = "name the folder that it lies in, without wildcards"
_NO_TARS = {
    b"\xff\xd8\xff": f"it is a JPEG image; {_AS_FOLDER}",
    b"\x89PNG": f"it is a PNG image; {_AS_FOLDER}",
    b"GIF8": f"it is a GIF image; {_AS_FOLDER}",
    b"RIFF": f"it is a WebP image; {_AS_FOLDER}",
    b"PK\x03\x04": "it is a zip archive; unpack it, and name the folder",
}
"""What people name by mistake, by its first bytes."""
_PAX_DIGITS = 20
# Nothing follows their headers, whatever size these claim.
_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


class Stream(Protocol):
    """What a tar is read from, forward."""

    def read(self, size: int, /) -> bytes | None: ...


class StrictTar:
    """Iterates over the files of one tar, once, from front to back; of those that are not plain, over the names alone.

    After the last member `bytes` is the size of the whole tar.

    Iterating raises SourceError for a tar that is cut off, damaged, or followed by other data, naming the tar, the
    offset in bytes and the remedy.

    Args:
        stream: large members that are not wanted are skipped where it can seek.
        wanted: names of the members whose contents are read.
        origin: where in the tar the stream begins, at a member; offsets are those in the tar.
        piece_bytes: read at once.
        limits: of what is read into memory.
    """

    def __init__(
        self,
        stream: Stream,
        name: str,
        wanted: Callable[[str], bool] = lambda _: True,
        allow_unterminated: bool = False,
        origin: int = 0,
        piece_bytes: int = PIECE_BYTES,
        limits: Limits = DEFAULT,
    ) -> None:
        self._stream = stream
        self._name = name
        self._wanted = wanted
        self._allow_unterminated = allow_unterminated
        self._seekable = stream if isinstance(stream, io.IOBase) and stream.seekable() else None
        self._origin = origin
        self._piece_bytes = piece_bytes
        self._limits = limits
        self._piece = b""
        self._at = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[Member]:
        long_name: str | None = None
        pax: dict[str, str] = {}
        start = self._origin
        while (header := self._header()) is not None:
            offset = self.bytes - BLOCK_BYTES
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long_name = (
                    self._before_member(header.size, offset).split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
                )
            elif header.type == tarfile.XHDTYPE:
                pax = self._pax_records(self._before_member(header.size, offset), offset)
            elif header.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                self._skip(header.size)
            else:
                name, size, sparse = long_name or header.name, header.size, False
                if pax:
                    name, size = pax.get("path") or name, int(pax.get("size", size))
                    sparse = any(keyword.startswith("GNU.sparse.") for keyword in pax)
                long_name, pax = None, {}
                if header.type == tarfile.DIRTYPE:
                    start = self._origin + self.bytes
                    continue
                plain = header.type in _PLAIN and not sparse
                contents, contents_at = None, self._origin + self.bytes
                wanted = plain and self._wanted(name)
                problem = self._limits.too_large(size) if wanted and size > self._limits.member_bytes else ""
                if wanted and not problem:
                    contents = self._data(size)
                elif header.type not in _WITHOUT_DATA:
                    self._skip(size)
                yield Member(name, self._origin + offset, contents, start, plain, contents_at, size, problem)
                start = self._origin + self.bytes
        if long_name is not None or pax:
            raise self._error(self.bytes, f"cut off between the long name of a member and the member; {_REPACK}")

    def _header(self) -> Header | None:
        """The next header, or None behind a good end of the archive."""
        offset = self.bytes
        block = self._read(BLOCK_BYTES)
        if not block:
            if self._allow_unterminated and offset > 0:
                return None
            if offset == 0:
                raise self._error(offset, f"the file is empty; {_REPACK}")
            raise self._error(
                offset,
                "it ends without the end-of-archive marker: it was cut off; "
                f"{_REPACK}, or set source.allow_unterminated to accept it",
            )
        if offset == self._origin == 0 and block.startswith(b"PAR1"):
            raise self._error(offset, "it is a Parquet file; give it a name that ends in .parquet")
        if len(block) < BLOCK_BYTES:
            raise self._error(offset, self._not_a_tar(block) or f"cut off inside a header; {_REPACK}")
        if not any(block):
            self._expect_only_zeros()
            return None
        try:
            header = parse_header(block)
        except tarfile.HeaderError as error:
            reason = self._not_a_tar(block) or f"damaged header ({error}) or not a tar at all; {_REPACK}"
            raise self._error(offset, reason) from None
        if header.size < 0:
            raise self._error(offset, f"damaged header (size {header.size}); {_REPACK}")
        self._skip_sparse_map(block, header)
        return header

    def _not_a_tar(self, block: bytes) -> str | None:
        """What a file is instead, as far as its first bytes, which are no header, tell."""
        if self._origin or self.bytes > BLOCK_BYTES:
            return None
        return next((kind for first, kind in _NO_TARS.items() if block.startswith(first)), None)

    def _skip_sparse_map(self, block: bytes, header: Header) -> None:
        """The further blocks of the header of a sparse file in GNU tar's old format."""
        first = True
        while header.type == tarfile.GNUTYPE_SPARSE and sparse_goes_on(block, first):
            offset, first = self.bytes, False
            block = self._read(BLOCK_BYTES)
            if len(block) < BLOCK_BYTES:
                raise self._error(offset, f"cut off inside a header; {_REPACK}")

    def _expect_only_zeros(self) -> None:
        while block := self._read(self._piece_bytes):
            if block.count(0) != len(block):
                raise self._error(
                    self.bytes - len(block),
                    "more data follows the end-of-archive marker, such as a second tar appended with cat; "
                    "split it, or join tars with `tar --concatenate`",
                )

    def _data(self, size: int) -> bytes:
        padded = size + -size % BLOCK_BYTES
        if self._at + padded <= len(self._piece):  # the common case, and cheap
            data = self._piece[self._at : self._at + size]
            self._at += padded
            self.bytes += padded
            return data
        return b"".join(self._pieces(size))

    def _skip(self, size: int) -> None:
        if self._seekable is not None and self._at + size - len(self._piece) >= 4 * self._piece_bytes:
            # Below that, reading on costs less than a seek, after which a disk or a network file system starts anew.
            self._seek(self._seekable, size)
            return
        for _ in self._pieces(size):
            pass

    def _seek(self, stream: io.IOBase, size: int) -> None:
        """Skip a member of which most has not been read."""
        padding = -size % BLOCK_BYTES
        target = stream.tell() + self._at + size + padding - len(self._piece)
        # A seek behind the end of a file raises nothing; one to where no file ends, almost anything.
        end = stream.seek(0, io.SEEK_END)
        if target > end:
            raise self._cut_off(self.bytes, max(0, target - padding - end))
        stream.seek(target)
        self._piece, self._at = b"", 0
        self.bytes += size + padding

    def _pieces(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, a piece at a time: a damaged header may claim any size."""
        offset = self.bytes
        padding = -size % BLOCK_BYTES
        while size:
            data = self._read(min(size, self._piece_bytes))
            if not data:
                break
            yield data
            size -= len(data)
        if size or len(self._read(padding)) < padding:
            raise self._cut_off(offset, size)

    def _before_member(self, size: int, offset: int) -> bytes:
        """What a header at `offset` is followed by, where that tells of the member behind it."""
        if size > self._limits.header_bytes:
            raise self._error(
                offset,
                f"a long name, or extended attributes, of {size:,} bytes, more than source.max_header_bytes = "
                f"{self._limits.header_bytes:,}; raise it if that is meant",
            )
        return self._data(size)

    def _pax_records(self, data: bytes, offset: int) -> dict[str, str]:
        """Records `length key=value\\n` of a pax extended header."""
        records, at, end = {}, 0, len(data.rstrip(b"\0"))
        while at < end:
            space = data.find(b" ", at, at + _PAX_DIGITS)
            digits = data[at:space] if space > 0 else b""
            length = int(digits) if digits.isdigit() else 0
            keyword, equals, value = data[space + 1 : at + length].partition(b"=")
            if not equals or not value.endswith(b"\n") or at + length > len(data):
                raise self._error(offset, f"damaged pax header; {_REPACK}")
            records[keyword.decode("utf-8", "backslashreplace")] = value[:-1].decode("utf-8", "backslashreplace")
            at += length
        if not re.fullmatch("[0-9]{1,20}", records.get("size", "0")):
            raise self._error(offset, f"damaged pax header (size {records['size']!r}); {_REPACK}")
        return records

    def _read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of the file."""
        data = self._piece[self._at : self._at + size]
        self._at += len(data)
        while len(data) < size and self._next_piece():
            rest = self._piece[: size - len(data)]
            self._at = len(rest)
            data += rest
        self.bytes += len(data)
        return data

    def _next_piece(self) -> bool:
        """Read on, once all of a piece has been walked; False at the end of the file."""
        self._piece = self._stream.read(self._piece_bytes) or b""
        self._at = 0
        return bool(self._piece)

    def _cut_off(self, offset: int, missing: int) -> SourceError:
        return self._error(offset, f"cut off inside a member, {missing:,} bytes before its end; {_REPACK}")

    def _error(self, offset: int, what: str) -> SourceError:
        return SourceError(f"{self._name}: at byte {self._origin + offset:,}: {what}")
