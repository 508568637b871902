"""Sizes of JPEG 2000 and JPEG XL images, from their first bytes: their decoders allocate or decode before one can ask.

Both are a bare codestream, or one inside of a box:
https://www.itu.int/rec/T-REC-T.800 (annex A.5.1, I.4), https://www.iso.org/standard/85066.html (18181-2)
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import BadImage
from pipeline.source.images.formats import JPEG2000_BOX, JPEG2000_CODESTREAM, JXL_BOX, JXL_CODESTREAM

_SIZ = struct.Struct(">HHIIIIIIIIH")
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_JXL_BITS = (9, 13, 18, 30)
_MOST_BOXES = 10_000


class Jpeg2000Header(NamedTuple):
    """What the codestream says, which the box around it need not repeat truly."""

    width: int
    height: int
    components: int
    tiles: int


def jpeg2000_header(data: bytes) -> Jpeg2000Header | None:
    """None for what is no JPEG 2000, or a damaged one."""
    start = 0
    if data.startswith(JPEG2000_BOX):
        start = next((start for kind, start, _ in _boxes(data) if kind == b"jp2c"), len(data))
    if data[start : start + 4] != JPEG2000_CODESTREAM or len(data) < start + 4 + _SIZ.size:
        return None
    _, _, x, y, x0, y0, tile_width, tile_height, tile_x0, tile_y0, components = _SIZ.unpack_from(data, start + 4)
    if not tile_width or not tile_height or tile_x0 > x0 or tile_y0 > y0:
        return None
    tiles = -(-max(0, x - tile_x0) // tile_width) * -(-max(0, y - tile_y0) // tile_height)
    return Jpeg2000Header(max(0, x - x0), max(0, y - y0), components, tiles)


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG XL; None for other files, and for one that is cut off."""
    start = 0
    if data.startswith(JXL_BOX):
        parts = ((kind, start) for kind, start, _ in _boxes(data) if kind in (b"jxlc", b"jxlp"))
        kind, start = next(parts, (b"", len(data)))
        start += 4 if kind == b"jxlp" else 0  # behind the number of the part
    head = data[start : start + 16]
    if not head.startswith(JXL_CODESTREAM) or len(head) < 12:
        return None
    bits = _Bits(int.from_bytes(head[2:], "little"))
    small = bits.take(1)
    height = bits.jxl_side(small)
    ratio = bits.take(3)
    if ratio == 0:
        return bits.jxl_side(small), height
    numerator, denominator = _JXL_RATIOS[ratio - 1]
    return height * numerator // denominator, height


class _Bits:
    """Numbers out of a stream of bits, the lowest one first."""

    def __init__(self, value: int) -> None:
        self._value = value

    def take(self, count: int) -> int:
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        return found

    def jxl_side(self, small: int) -> int:
        return 8 * (self.take(5) + 1) if small else self.take(_JXL_BITS[self.take(2)]) + 1


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, stop) of the contents of each box, as far as they can be followed. Raises BadImage for too many."""
    at = 0
    for _ in range(_MOST_BOXES):
        if at + 8 > len(data):
            return
        size, kind, start = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16]), at + 16
        stop = len(data) if size == 0 else at + size
        if stop < start:
            return
        yield kind, start, stop
        at = stop
    raise BadImage(f"an image of more than {_MOST_BOXES:,} boxes: it would take too long to read; write it anew")
