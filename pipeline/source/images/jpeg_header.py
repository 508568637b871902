"""What a JPEG says of itself in front of its pixels, for files in which nothing is unusual.

Asking Pillow for size and mode takes as long as decoding a small picture. So the common kind of file is recognised
here, and every doubt ends in None: such a file goes to Pillow first, which knows many more kinds and damages.
A header that is returned is one that Pillow opens as a JPEG of this size and of mode RGB or L.

https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B
"""

import functools
import struct
from typing import NamedTuple

_SEGMENT = struct.Struct(">HH")
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = (_BASELINE, _EXTENDED, _PROGRESSIVE)
_HUFFMAN_TABLES, _SCAN, _QUANTIZATION_TABLES, _RESTART_INTERVAL = 0xC4, 0xDA, 0xDB, 0xDD
_APPLICATION, _EXIF, _PROFILE, _PHOTOSHOP, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_PLAIN = frozenset({_HUFFMAN_TABLES, _RESTART_INTERVAL, _COMMENT})

# Bytes of a quantization table of 8 bits, with its number.
_TABLE_BYTES = 65

# Images that one program has written in one size begin alike, with some 600 bytes.
_ALIKE_BYTES = 2048
_KINDS = 256


class JpegHeader(NamedTuple):
    """Frame of a JPEG with 8 bits in 1 or 3 components and without EXIF, which might turn it."""

    width: int
    height: int
    one_scan: bool
    """Whether all components come in one sequential scan: libjpeg then refuses any further one."""
    rgb: bool
    """Whether the file may hold RGB and not the usual YCbCr."""


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the header of a JPEG up to its first scan; None for files that need a closer look, or are none."""
    scan = data.find(b"\xff\xda", 0, _ALIKE_BYTES)
    if scan > 0:
        # If that is the scan and no part of a segment before it, nothing behind it is looked at.
        header = _known_header(data[: scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")])
        if header is not None:
            return header
    return _read_header(data)


def _read_header(data: bytes) -> JpegHeader | None:
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, frame, kind, adobe = 2, b"", 0, b""
    while at + 4 <= len(data):
        code, length = _SEGMENT.unpack_from(data, at)
        start, at = at + 4, at + 2 + length
        marker = code - 0xFF00
        if at < start or at > len(data) or marker < 0:
            return None
        if marker in _PLAIN:
            continue
        if marker == _SCAN:
            return _header(frame, kind, adobe, components=data[start] if start < at else 0)
        if marker in _FRAMES and not frame:
            frame, kind = data[start:at], marker
        elif marker == _ADOBE:
            adobe = data[start:at]
        elif not _is_harmless(marker, data[start:at]):
            return None
    return None


_known_header = functools.lru_cache(maxsize=_KINDS)(_read_header)


def _header(frame: bytes, kind: int, adobe: bytes, components: int) -> JpegHeader | None:
    if len(frame) not in (9, 15) or frame[0] != 8 or len(frame) != 6 + 3 * frame[5]:
        return None
    height, width = frame[1] << 8 | frame[2], frame[3] << 8 | frame[4]
    if not height or not width or 0 < len(adobe) < 12:
        return None
    return JpegHeader(
        width,
        height,
        one_scan=kind != _PROGRESSIVE and components == frame[5],
        rgb=frame[6::3] == b"RGB" or adobe[11:12] == b"\0",
    )


def _is_harmless(marker: int, payload: bytes) -> bool:
    """Whether Pillow takes this segment, and makes nothing of it that matters."""
    if marker == _QUANTIZATION_TABLES:
        return len(payload) % _TABLE_BYTES == 0 and max(payload[::_TABLE_BYTES], default=16) < 16
    if marker == _APPLICATION:
        return len(payload) >= 7 or not payload.startswith(b"JFIF")
    if marker == _EXIF:
        return not payload.startswith(b"Exif")
    if marker == _PROFILE:  # here also lies the index of a file of several pictures
        return len(payload) >= 14 and payload.startswith(b"ICC_PROFILE\0")
    if marker == _PHOTOSHOP:  # Pillow fails on a resource that ends right behind its code
        return payload[-6:-2] != b"8BIM"
    return _APPLICATION < marker < _APPLICATION + 16
