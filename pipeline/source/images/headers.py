"""What the header of an image file asks of a decoder, looked at before a decoder believes it.

Decoders allocate and loop by what headers say. Most of it can wait until Pillow has opened the file and tells its
size; here is what costs memory or time earlier, or in spite of a small size: the canvas of a WebP, the tiles of a
TIFF, the scans of a JPEG, the tiles of a JPEG 2000, the size of a JPEG XL, and whatever stands in front of pixels.
"""

import struct
from collections.abc import Iterator
from typing import Literal

from pipeline.errors import BadImage
from pipeline.source.images.blocks import check_blocks, jpeg_segments
from pipeline.source.images.boxes import jpeg2000_header, jxl_size

# Pillow counts the bits of a row in 32 bits, up to 64 for a pixel, and calls more a lack of memory.
_MAX_SIDE = 30_000_000

# As in libtiff. Every scan goes over all pixels and may take a dozen bytes of the file.
_MAX_SCANS = 100

# Pillow takes microseconds for each of them; 16x16 pixels are the smallest tile, but a strip may be one row.
_PIXELS_PER_TILE = 200
_SMALL_TILES = 2**16
_SMALL_TILE_PIXELS = 2**24

# Pillow reads no more; OpenJPEG takes some kilobytes for each component of each tile, before it decodes any.
_JPEG2000_COMPONENTS = 4
_JPEG2000_FEW_TILES = 2**10
_JPEG2000_PIXELS_PER_TILE = 2**12

# Values of EXIF tags may lie over one another, and Pillow before 13 copies each of them when it opens a file. Within
# one segment of 64 KiB that is bounded; several segments are one block of tags.
_EXIF = b"Exif\0\0"
_EXIF_COPIES = 16
# Pillow copies what it has of several segments for each further one.
_EXIF_BYTES = 2**24

# Bytes of a number by TIFF type: BYTE, SHORT, LONG, signed ones, IFD, and those of 8 bytes.
_TIFF_NUMBERS = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
_STRIP_OFFSETS, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 273, 322, 323, 324


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise BadImage for more than `max_pixels`, or a side that Pillow cannot handle."""
    if width * height > max_pixels:
        raise BadImage(f"{width}x{height} pixels are more than image.max_pixels = {max_pixels:,}")
    if max(width, height) > _MAX_SIDE:
        raise BadImage(f"{width}x{height} pixels: no side may be longer than {_MAX_SIDE:,}")


def check_header(data: bytes, max_pixels: int) -> None:
    """Raise BadImage where opening or decoding would take memory or time out of all proportion.

    Says nothing of files that are damaged in other ways, or of no known format.
    """
    check_blocks(data)
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith((b"II", b"MM")):
        _check_tiff(data, max_pixels)
    elif size := webp_size(data) or jxl_size(data):
        check_size(*size, max_pixels)
    else:
        _check_jpeg2000(data, max_pixels)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP's canvas, for which memory is allocated when it is opened; None for other files.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _check_jpeg(data: bytes) -> None:
    if data.count(b"\xff\xda") > _MAX_SCANS:
        scans = sum(code == 0xDA for code, _ in jpeg_segments(data))
        if scans > _MAX_SCANS:
            raise BadImage(f"JPEG of {scans:,} scans, more than {_MAX_SCANS}: it would take too long to decode")
    if data.count(_EXIF) > 1:
        payloads = (data[payload] for code, payload in jpeg_segments(data) if code == 0xE1)
        exif = b"".join(payload.removeprefix(_EXIF) for payload in payloads if payload.startswith(_EXIF))
        if len(exif) > _EXIF_BYTES:
            raise BadImage(f"JPEG with {len(exif):,} bytes of EXIF, more than {_EXIF_BYTES:,}; remove its EXIF")
        if sum(count for _, count, _ in _tiff_tags(exif)) > _EXIF_COPIES * len(exif):
            raise BadImage("JPEG with EXIF tags that lie over one another; remove its EXIF")


def _check_tiff(data: bytes, max_pixels: int) -> None:
    if data.startswith(b"MM\0\x2b"):
        raise BadImage("a big-endian BigTIFF, which Pillow does not read; convert it")
    tile = {_TILE_WIDTH: 1, _TILE_LENGTH: 1}
    most = max(_SMALL_TILES, max_pixels // _PIXELS_PER_TILE)
    for tag, count, value in _tiff_tags(data):
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and count > most:
            raise BadImage(f"TIFF of {count:,} strips or tiles, more than {most:,}: it would take too long to decode")
        if tag in tile:
            tile[tag] = max(tile[tag], value)
    width, height = tile[_TILE_WIDTH], tile[_TILE_LENGTH]
    if width * height > max(_SMALL_TILE_PIXELS, max_pixels):
        raise BadImage(f"TIFF with tiles of {width}x{height} pixels, more than image.max_pixels = {max_pixels:,}")


def _tiff_tags(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Tag, count and first value (0 for what is no number) of the first directory, as far as it can be read.

    https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf, section 2; BigTIFF has the same in 64 bits.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:3] == b"\x2b"
    first, number, entry, inline = (8, "Q", "HHQ", 8) if big else (4, "L", "HHL", 4)
    byteorder: Literal["little", "big"] = "little" if order == "<" else "big"
    try:
        (directory,) = struct.unpack_from(order + number, data, first)
        (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, directory)
        at = directory + (8 if big else 2)
        for _ in range(min(entries, 2**16)):
            tag, kind, count = struct.unpack_from(order + entry, data, at)
            at += struct.calcsize(order + entry)
            size = _TIFF_NUMBERS.get(kind, 0)
            where = at if size * count <= inline else struct.unpack_from(order + number, data, at)[0]
            yield tag, count, int.from_bytes(data[where : where + size], byteorder)
            at += inline
    except (struct.error, OverflowError):
        return


def _check_jpeg2000(data: bytes, max_pixels: int) -> None:
    header = jpeg2000_header(data)
    if header is None:
        return
    if not header.width or not header.height:
        raise BadImage("JPEG 2000 without pixels")
    check_size(header.width, header.height, max_pixels)
    if header.components > _JPEG2000_COMPONENTS:
        raise BadImage(f"JPEG 2000 of {header.components:,} components, more than {_JPEG2000_COMPONENTS}; convert it")
    most = max(_JPEG2000_FEW_TILES, header.width * header.height // _JPEG2000_PIXELS_PER_TILE)
    if header.tiles > most:
        raise BadImage(f"JPEG 2000 of {header.tiles:,} tiles, more than {most:,}: it would take too much memory")
