"""The header block of a tar member: the common form read at once, every other one by `tarfile`.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06
"""

import re
import tarfile
import zlib
from typing import NamedTuple

# A plain file, or the pax header that WebDataset's writer puts in front of each, as today's writers put them: octal
# numbers of full length, no link, nothing in front of the name.
_COMMON = re.compile(
    rb"(.{100})"  # name
    rb"(?:[0-7]{7}[\0 ]){3}"  # mode, uid, gid
    rb"([0-7]{11})[\0 ]"  # size
    rb"[0-7]{11}[\0 ]"  # mtime
    rb"([0-7]{6,7})[\0 ]{1,2}"  # checksum
    rb"([0x])\0{100}"  # type, name of a link
    rb"ustar(?:\x0000|  \0)"  # POSIX or GNU
    rb".{64}"  # names of user and group
    rb"(?:[0-7]{7}\0|\0{8}){2}"  # device
    rb"\0{155}.{12}",  # prefix
    re.DOTALL,
)


class Header(NamedTuple):
    """What a header block says of the member behind it."""

    name: str
    size: int
    """In bytes; what a damaged header says may be negative."""
    type: bytes
    """One of tarfile's types."""


def parse_header(block: bytes) -> Header:
    """Read a block of 512 bytes. Raises tarfile.HeaderError for a damaged one.

    Names that are not UTF-8 are decoded with backslashes.
    """
    match = _COMMON.fullmatch(block)
    if match is not None and int(match[3], 8) == _checksum(block):
        return Header(_text(match[1]), int(match[2], 8), match[4])
    info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
    return Header(info.name, info.size, info.type)


def sparse_goes_on(block: bytes, first: bool) -> bool:
    """Whether another block of a sparse file's map follows: the header itself, or one that came behind it, says so.

    https://www.gnu.org/software/tar/manual/html_node/Standard.html
    """
    return block[482 if first else 504] != 0


def _checksum(block: bytes) -> int:
    """Sum of the bytes of a common header, its own field taken as 8 spaces.

    The lower half of Adler-32 is that sum from 1, modulo 65521, which bytes before and behind the field cannot
    reach: there are 148, and 101 where there must not be zeros.
    """
    return (zlib.adler32(block[:148]) & 0xFFFF) + (zlib.adler32(block[156:]) & 0xFFFF) - 2 + 8 * 32


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")
