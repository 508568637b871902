"""What stands in front of the pixels of an image, counted before Pillow reads it.

Pillow takes a microsecond for each byte that belongs to nothing, and several for each block, so that a file of
some megabytes could keep it busy for minutes. Real files have some dozens of blocks.
"""

import re
from collections.abc import Iterator

from pipeline.errors import BadImage

_JUNK_BYTES = 2**16
_BLOCKS = 100_000

# Of fill bytes in front of a marker the last one counts: a pattern of all of them would be tried from each of them.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_STANDALONE = (0x01, 0xD8)
_SCAN, _END = 0xDA, 0xD9

_PNG = b"\x89PNG\r\n\x1a\n"
_GIF_KIND = re.compile(rb"[!,;]")
_GIF_EXTENSION = ord("!")

_PNM = re.compile(rb"P[0-6fy]")
_PNM_COMMENT = re.compile(rb"#[^\r\n]*")
_PNM_NUMBERS = {b"P1": 2, b"P4": 2}
_PNM_USUAL_BYTES, _PNM_HEADER_BYTES = 2**8, 2**20
_PNM_PLAIN = (b"P1", b"P2", b"P3")
# Each one moves up to a megabyte of text.
_PNM_COMMENTS = 10_000


def check_blocks(data: bytes) -> None:
    """Raise BadImage for a JPEG, PNG, GIF or PNM with much more in front of its pixels than any real one."""
    if data.startswith(b"\xff\xd8"):
        _count("JPEG", _jpeg_blocks(data), 2)
    elif data.startswith(_PNG):
        _count("PNG", _png_chunks(data), len(_PNG))
    elif data.startswith(b"GIF8"):
        _count("GIF", _gif_blocks(data), _gif_start(data))
    elif _PNM.match(data):
        _check_pnm(data)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, slice]]:
    """Codes of the markers up to the end of the image, and where the payload of each lies; what is within segments
    is not looked at."""
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        code, at = found[1][0], found.end()
        if code == _END:
            return
        size = 0 if code in _STANDALONE else max(2, int.from_bytes(data[at : at + 2], "big"))
        yield code, slice(at + 2, at + size)
        at += size


def _jpeg_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Segments up to the first scan."""
    for code, payload in jpeg_segments(data):
        yield payload.start - 4, payload.stop
        if code == _SCAN:
            return
    yield len(data), len(data)


def _png_chunks(data: bytes) -> Iterator[tuple[int, int]]:
    at = len(_PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield at, end
        at = end


def _gif_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Those up to the first image, from behind the palette on."""
    at = _gif_start(data)
    while found := _GIF_KIND.search(data, at):
        at = found.start()
        if data[at] != _GIF_EXTENSION:
            yield at, at
            return
        yield at, at + 2
        at += 2
        while at < len(data) and (size := data[at]):
            yield at, at + 1 + size
            at += 1 + size
        yield at, at + 1
        at += 1
    yield len(data), len(data)


def _gif_start(data: bytes) -> int:
    flags = data[10] if len(data) > 10 else 0
    return 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)


def _count(kind: str, blocks: Iterator[tuple[int, int]], start: int) -> None:
    """Raise BadImage for too many blocks, each from its first byte to behind its last one, or too much between them."""
    junk, end = 0, start
    for count, (first, last) in enumerate(blocks):
        junk += max(0, first - end)
        end = last
        if count > _BLOCKS:
            raise BadImage(f"{kind} of more than {_BLOCKS:,} blocks: it would take too long to read; write it anew")
        if junk > _JUNK_BYTES:
            raise BadImage(f"{kind} with more than {_JUNK_BYTES:,} bytes that belong to nothing; write it anew")


def _check_pnm(data: bytes) -> None:
    # Nearly always a few bytes tell.
    if not any(_has_pnm_header(data, size) for size in (_PNM_USUAL_BYTES, _PNM_HEADER_BYTES)):
        raise BadImage(f"PNM with a header of more than {_PNM_HEADER_BYTES:,} bytes; write it anew")
    comments = data.count(b"#") if data.startswith(_PNM_PLAIN) else 0
    if comments > _PNM_COMMENTS:
        raise BadImage(f"PNM of plain text with {comments:,} comments, more than {_PNM_COMMENTS:,}; remove them")


def _has_pnm_header(data: bytes, size: int) -> bool:
    """Whether all numbers of the header stand in the first bytes, or there are no more bytes."""
    words = _PNM_COMMENT.sub(b"", data[:size]).split(maxsplit=5)
    return len(words) > _PNM_NUMBERS.get(data[:2], 3) or len(data) <= size
