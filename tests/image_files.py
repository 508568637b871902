"""Image files byte by byte, and what decoding makes of them; for several test modules."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from support import encoded, picture

from pipeline.errors import BadImage
from pipeline.source.images.decoding import decode_rgb
from pipeline.source.images.formats import FORMATS

LIMIT = 10**8


def decoded(data: bytes) -> np.ndarray:
    """Pixels [height, width, 3] of any size."""
    pixels = decode_rgb(data, LIMIT)
    assert pixels.dtype == torch.uint8
    return pixels.permute(1, 2, 0).numpy()


def refused(data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(BadImage) as caught:
        decode_rgb(data, limit)
    assert caught.value.stage == "decode"
    return str(caught.value)


def distance(one: np.ndarray, other: np.ndarray) -> int:
    """Largest difference of two pixels' values."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def png(rows: np.ndarray, depth: int, colour: int, chunks: bytes = b"") -> bytes:
    """A PNG of raw samples [height, width * samples] in big-endian uint8 or uint16: kinds that Pillow cannot write."""
    height, width = rows.shape[0], rows.shape[1] // {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    raw = b"".join(b"\0" + row.tobytes() for row in rows.astype(">u2" if depth == 16 else "u1"))
    return png_of(width, height, depth, colour, zlib.compress(raw), chunks)


def png_of(width: int, height: int, depth: int, colour: int, data: bytes, chunks: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


RGB = picture(40, 56)


GREY = picture(40, 56, 1)[:, :, 0]


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def small_files() -> dict[str, bytes]:
    image = Image.fromarray(RGB)
    files = {format: encoded(image, format) for format in FORMATS}
    return {
        **files,
        "progressive JPEG": encoded(image, "JPEG", progressive=True),
        "grey JPEG": encoded(Image.fromarray(GREY), "JPEG", exif=oriented(6)),
        "CMYK JPEG": encoded(image.convert("CMYK"), "JPEG"),
        "palette PNG": encoded(image.quantize(9), "PNG", transparency=2, exif=oriented(3)),
        "16-bit PNG": encoded(Image.fromarray(GREY.astype(np.uint16) * 200), "PNG"),
        "LZW TIFF": encoded(image, "TIFF", compression="tiff_lzw"),
    }


FILES = small_files()
