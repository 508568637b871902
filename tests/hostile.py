"""Image files that are broken, lying, hostile or merely unusual: named, deterministic, built from small things.

Each case says what must come of it: the documented pixels, a reject, or either of the two, where what is cut off may
or may not be needed. Third parties' files are not needed, nor kept: all is made with Pillow and by moving bytes.
"""

import base64
import itertools
import pickle
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageCms
from support import encoded, picture, tar_bytes

ZSTANDARD = (50000,) if int(PIL.__version__.split(".")[0]) >= 12 else ()
"""This compression of TIFF, where Pillow knows it."""

MAX_PIXELS = 1_000_000
"""The limit that the cases are made for: what claims more is a bomb."""

HEIGHT, WIDTH = 24, 32
RGB = picture(HEIGHT, WIDTH)
GREY = picture(HEIGHT, WIDTH, 1)[:, :, 0]

# A lossy file may be off by so much in a smooth picture; another decoder of the same file, by less.
LOSSY = 24
WHITE = 255


@dataclass(frozen=True)
class Case:
    """An image file and what must come of it."""

    name: str
    data: bytes
    pixels: np.ndarray | None = None
    """uint8 [height, width, 3] of the row, if it becomes one; None where any will do."""
    tolerance: int = 0
    """Largest difference of two pixels' values."""
    row: bool = True
    """Whether it may become a row."""
    reject: bool = False
    """Whether it may be rejected."""
    reason: str = ""
    """Part of the reason of a reject."""

    def __str__(self) -> str:
        return self.name


def row(name: str, data: bytes, pixels: np.ndarray | None, tolerance: int = 0) -> Case:
    return Case(name, data, pixels, tolerance)


def reject(name: str, data: bytes, reason: str = "") -> Case:
    return Case(name, data, row=False, reject=True, reason=reason)


def either(name: str, data: bytes, pixels: np.ndarray | None = None, tolerance: int = 0) -> Case:
    return Case(name, data, pixels, tolerance, reject=True)


def cases() -> list[Case]:
    """All of them, always the same."""
    return [replace(case, name=f"{family.__name__}: {case.name}") for family in FAMILIES for case in family()]


# --- parts of files ---------------------------------------------------------------------------------------


def rgb3(grey: np.ndarray) -> np.ndarray:
    """Grey [height, width] as three equal channels."""
    return grey[:, :, None].repeat(3, 2)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    data: bytes,
    before: bytes = b"",
    after: bytes = b"",
    lace: int = 0,
) -> bytes:
    """A PNG of compressed `data` with further chunks before and after it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, lace))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def packed(samples: np.ndarray, depth: int) -> bytes:
    """Rows [height, n] of samples in PNG's bytes, uncompressed, each behind its filter byte."""
    rows = []
    for values in samples.astype(np.uint32):
        if depth == 16:
            rows.append(values.astype(">u2").tobytes())
        else:
            bits = (values[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            rows.append(np.packbits(bits.astype(np.uint8).ravel()).tobytes())
    return b"".join(b"\0" + row for row in rows)


# First row and column, and steps, of the seven passes: https://www.w3.org/TR/png-3/#8Interlace
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png_samples(samples: np.ndarray, depth: int, colour: int, lace: bool, before: bytes = b"") -> bytes:
    """A PNG of samples [height, width, channels]."""
    height, width = samples.shape[:2]
    passes = ADAM7 if lace else [(0, 0, 1, 1)]
    parts = [samples[top::down, left::right] for top, left, down, right in passes]
    raw = b"".join(packed(part.reshape(part.shape[0], -1), depth) for part in parts if part.size)
    return png(width, height, depth, colour, zlib.compress(raw), before, lace=int(lace))


def tiff(entries: dict[int, tuple[int, int, int | bytes]], data: bytes, bigtiff: bool = False) -> bytes:
    """A little-endian TIFF: (type, count, value) by tag, and the data that follows; the value -1 is its offset."""
    number, inline = ("<Q", 8) if bigtiff else ("<I", 4)
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if bigtiff else struct.pack("<2sHI", b"II", 42, 8)
    head += struct.pack("<Q" if bigtiff else "<H", len(entries))
    extra_at = len(head) + len(entries) * (20 if bigtiff else 12) + inline
    data_at = extra_at + sum(
        len(value) for _, _, value in entries.values() if isinstance(value, bytes) and len(value) > inline
    )
    directory, extra = b"", b""
    for tag, (kind, count, value) in sorted(entries.items()):
        if isinstance(value, int):
            word = struct.pack(number, data_at if value == -1 else value)
        elif len(value) <= inline:
            word = value.ljust(inline, b"\0")
        else:
            word = struct.pack(number, extra_at + len(extra))
            extra += value
        directory += struct.pack("<HHQ" if bigtiff else "<HHI", tag, kind, count) + word
    return head + directory + bytes(inline) + extra + data


def grey_tiff(
    width: int, height: int, data: bytes, bits: int = 8, compression: int = 1, photometric: int = 1, **tags: Any
) -> bytes:
    """A grey TIFF of one strip, or of what `tags` (`t322=...`) say."""
    entries: dict[int, tuple[int, int, int | bytes]] = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, bits),
        259: (3, 1, compression),
        262: (3, 1, photometric),
        277: (3, 1, 1),
        273: (4, 1, -1),
        278: (4, 1, height),
        279: (4, 1, len(data)),
    }
    for name, entry in tags.items():
        entries[int(name[1:])] = entry
    if 324 in entries:
        for tag in (273, 278, 279):
            del entries[tag]
    return tiff(entries, data)


def tiled(width: int, height: int, tile: tuple[int, int], data: bytes) -> bytes:
    """A grey TIFF of one deflated tile of (width, height)."""
    return grey_tiff(
        width,
        height,
        data,
        compression=8,
        t322=(4, 1, tile[0]),
        t323=(4, 1, tile[1]),
        t324=(4, 1, -1),
        t325=(4, 1, len(data)),
    )


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP of chunks."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    """The header chunk of an extended WebP."""
    return b"VP8X", struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def webp_frame() -> bytes:
    """The VP8 data of a small WebP."""
    data = encoded(Image.fromarray(RGB), "WEBP")
    return data[20 : 20 + int.from_bytes(data[16:20], "little")]


def animated_webp(width: int, height: int) -> bytes:
    """One small frame on a canvas of any size."""
    vp8 = webp_frame()
    size = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    frame = bytes(6) + size + b"\x64\0\0\0" + b"VP8 " + struct.pack("<I", len(vp8)) + vp8
    return riff(canvas(width, height, 2), (b"ANIM", bytes(6)), (b"ANMF", frame))


def bmp(width: int, height: int, data: bytes, bits: int = 8, compression: int = 0, colours: int = 0) -> bytes:
    """A BMP with a palette of greys."""
    palette = b"".join(bytes([shade, shade, shade, 0]) for shade in range(256)) if bits == 8 else b""
    at = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + info + palette + data


def rle_rows() -> bytes:
    """GREY in run-length form, bottom row first."""
    out = b""
    for values in GREY[::-1]:
        for value, run in itertools.groupby(values.tolist()):
            out += bytes([len(list(run)), value])
        out += b"\0\0"
    return out + b"\0\1"


def segment(code: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, code]) + struct.pack(">H", len(data) + 2) + data


def behind_start(data: bytes, inserted: bytes) -> bytes:
    """A JPEG with something put behind its first marker."""
    return data[:2] + inserted + data[2:]


def frame_header(data: bytes) -> int:
    """Where the frame header of a JPEG is."""
    found = re.search(rb"\xff[\xc0-\xc3\xc9\xca]\x00[\x0b\x11\x14]", data)
    assert found
    return found.start()


def sized_jpeg(data: bytes, width: int, height: int) -> bytes:
    at = frame_header(data)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def frame_kind(data: bytes, code: int) -> bytes:
    at = frame_header(data) + 1
    return data[:at] + bytes([code]) + data[at + 1 :]


# Arithmetic coding, which Pillow cannot write: RGB by `cjpeg -arithmetic -quality 95 -sample 1x1 [-progressive]`.
_TABLES = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoK
CgoKBggLDAsKDAkKCgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoK
CgoKCgoKCgr/
"""
_SEQUENTIAL = """
yQARCAAYACADAREAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwDS3yZwe202e6D/ANoPT2MTLsfq+nSV
cEgbV+h3XZEdINNuZaWlDM2aMDzAd/y3ex4HeGbokeS/3JQDiWI1bsgQmIvlyv8AaDh5oDw1C4xi9R5Z/hFLDreKTdiKkj670Wu3
msbeopncsKi9tLZp8SEr7uny/KfB7mFJvfT2EEY1wEg5l+W/sLm5eJSKOtU4c+VG8x/7xol1x9OtrjFnXNp4P2V+Mk+dHruk8+7/
AGBtr8zB8+Mk9191ZXQNEDteyyISDCty8j+RFwi6vRIKKxdRuRH2UyG7+H0R1r0GC4iHaZd8wMWjbEb5ALtCj3syVBaJ1W6tmmP1
UOcekmEBaTEd16uJnkQyqr1xm/UWsi2G+bU/pgCiKrXYDcfaI3nHMramSkyNSEtybiPlo2tVk7ZqrNxuFvdEyDrmpqFQ4hHJPA/K
UYBa++E6so7K2f/Z
"""
_PROGRESSIVE = """
ygARCAAYACADAREAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAdLMuWiIWzs1u7DNkLagyZ+FczXoOpTciShg
Me4S/vA1cOROj4Qau7hqtjWvkjkx0OVw/8wABBAF/9oACAEBAAEFAhY0lBMlrXY+8zDdpL/8larK8bNy35iv8mc2akYW3f3ePoxN
5sd+ehx7IpzM/8wABBEF/9oACAEDAQE/ARYwhcXlziWTqMQ4H6mufbcxMwxsOv0RI4pYDdLrHbwJyKtvICio4mfno8yoUkptHOyB
HsqJ7XUhGTCL/8wABBEF/9oACAECAQE/ATtxeNgAzAeSRaF3XzDDzPClUBhl5hzEZ+PRFIdBQRWYkWVbOICx25zCHjDQ/YqY1jrD
/q9A/8wABBAF/9oACAEBAAY/Ago8OqgJnEoPS4D/zAAEEAX/2gAIAQEAAT8hLunFVLurNtV8K1fVkz+3pvb+p9chE+KEJ//aAAwD
AQACAAMAAAAQnCx3aED/zAAEEQX/2gAIAQMBAT8Qs7DJ+VPhfu58iSE22Wjh2UKdLKXSG09Q/8wABBEF/9oACAECAQE/EH/+CrSC
1icKIagD1W0fI0Gul7ld3DLd5P/MAAQQBf/aAAgBAQABPxCIPk3L3WVa5VVjtcR2v3409j3SzhtQ8l8blfJvXx11nHLW/9k=
"""
ARITHMETIC = base64.b64decode(_TABLES + _SEQUENTIAL)
ARITHMETIC_PROGRESSIVE = base64.b64decode(_TABLES + _PROGRESSIVE)


@dataclass(frozen=True)
class Valid:
    """A good file, its pixels, and where its parts end."""

    data: bytes
    pixels: np.ndarray
    boundaries: tuple[int, ...]
    tolerance: int = 0


def jpeg_boundaries(data: bytes) -> tuple[int, ...]:
    """Where markers begin, and where the data of their segments does."""
    return tuple(
        sorted({at for found in re.finditer(rb"\xff[\xc0-\xfe]", data) for at in (found.start(), found.start() + 4)})
    )


def png_boundaries(data: bytes) -> tuple[int, ...]:
    found, at = [8], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found += [at + 8, at + 8 + size, at + 12 + size]
        at = found[-1]
    return tuple(found)


def riff_boundaries(data: bytes) -> tuple[int, ...]:
    found, at = [4, 8, 12], 12
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        found += [at + 8, at + 8 + size + size % 2]
        at = found[-1]
    return tuple(found)


def gif_boundaries(data: bytes) -> tuple[int, ...]:
    def colours(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    at = 13 + colours(data[10])
    found = [6, 13, at]
    while data[at] != 0x3B:
        at = at + 2 if data[at] == 0x21 else at + 11 + colours(data[at + 9])
        found.append(at)
        while data[at]:
            at += data[at] + 1
            found.append(at)
        at += 1
        found.append(at)
    return tuple(found)


def tiff_boundaries(data: bytes) -> tuple[int, ...]:
    directory = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[directory : directory + 2], "little")
    ends = [directory + 2 + 12 * number for number in range(entries + 1)]
    return (2, 4, 8, directory, *ends, ends[-1] + 4)


def box_boundaries(data: bytes) -> tuple[int, ...]:
    """Where the outermost boxes of a JPEG 2000 or AVIF begin."""
    found, at = [4, 8], 0
    while (at := at + max(8, int.from_bytes(data[at : at + 4]))) < len(data):
        found += [at, at + 4, at + 8]
    return tuple(found)


def siz(width: int, height: int, tile: tuple[int, int], components: int) -> bytes:
    """The beginning of a JPEG 2000 codestream."""
    sizes = struct.pack(">IIIIIIIIH", width, height, 0, 0, *tile, 0, 0, components)
    body = b"\0\0" + sizes + b"\7\1\1" * components
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(body) + 2) + body


def valid_files() -> dict[str, Valid]:
    """Good files of every format, small enough to be cut in many places."""
    colour, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    jpegs = {
        "JPEG": encoded(colour, "JPEG", quality=95, subsampling=0),
        "subsampled JPEG": encoded(colour, "JPEG", quality=95, subsampling=2, comment=b"a comment"),
        "grey JPEG": encoded(grey, "JPEG", quality=95),
        "progressive JPEG": encoded(colour, "JPEG", quality=95, subsampling=0, progressive=True),
        "JPEG with restarts": encoded(colour, "JPEG", quality=95, subsampling=0, restart_marker_rows=1),
        "CMYK JPEG": encoded(colour.convert("CMYK"), "JPEG", quality=95),
        "arithmetic JPEG": ARITHMETIC,
    }
    files = {name: Valid(data, RGB, jpeg_boundaries(data), LOSSY) for name, data in jpegs.items()}
    files["grey JPEG"] = Valid(jpegs["grey JPEG"], rgb3(GREY), jpeg_boundaries(jpegs["grey JPEG"]), LOSSY)
    for name, data, pixels in (
        ("PNG", encoded(colour, "PNG"), RGB),
        ("interlaced PNG", png_samples(RGB, 8, 2, True), RGB),
        ("PNG with a profile", encoded(grey, "PNG", icc_profile=bytes(200), dpi=(72, 72)), rgb3(GREY)),
    ):
        files[name] = Valid(data, pixels, png_boundaries(data))
    files["WebP"] = Valid(data := encoded(colour, "WEBP", quality=95), RGB, riff_boundaries(data), LOSSY)
    files["lossless WebP"] = Valid(data := encoded(colour, "WEBP", lossless=True), RGB, riff_boundaries(data))
    exif = oriented(1)
    data = encoded(colour, "WEBP", lossless=True, exif=exif, icc_profile=bytes(40))
    files["extended WebP"] = Valid(data, RGB, riff_boundaries(data))
    files["GIF"] = Valid(data := encoded(grey, "GIF"), rgb3(GREY), gif_boundaries(data))
    data = encoded(grey, "GIF", save_all=True, append_images=[grey.rotate(180)], loop=0)
    files["animated GIF"] = Valid(data, rgb3(GREY), gif_boundaries(data))
    files["BMP"] = Valid(data := encoded(colour, "BMP"), RGB, (2, 10, 14, 18, 26, 34, 54, 54 + WIDTH * 3))
    data = bmp(WIDTH, HEIGHT, rle_rows(), compression=1)
    files["run-length BMP"] = Valid(data, rgb3(GREY), (2, 14, 18, 54, 100, 54 + 1024, 54 + 1026, len(data) - 2))
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate"):
        data = encoded(colour, "TIFF", compression=compression)
        files[f"{compression or 'raw'} TIFF"] = Valid(data, RGB, tiff_boundaries(data))
    data = encoded(colour, "PPM")
    head = len(data) - RGB.size
    files["PPM"] = Valid(data, RGB, (1, 2, 3, 5, 6, 8, 9, head, head + WIDTH * 3))
    # The last number has one digit: where one of several is missing, nothing shows it.
    text = f"P3 {WIDTH} {HEIGHT} 255\n{' '.join(map(str, RGB.ravel()[:-1]))} 7\n".encode()
    pixels = RGB.copy()
    pixels[-1, -1, -1] = 7
    files["PPM of text"] = Valid(text, pixels, (2, 3, 5, 8, 12, 13, 20))
    files["TGA"] = Valid(data := encoded(colour, "TGA"), RGB, (1, 2, 3, 8, 12, 16, 17, 18, 18 + WIDTH * 3))
    files["run-length TGA"] = Valid(data := encoded(grey, "TGA", compression="tga_rle"), rgb3(GREY), (1, 3, 12, 18, 20))
    files["JPEG 2000"] = Valid(data := encoded(colour, "JPEG2000"), RGB, box_boundaries(data))
    data = encoded(colour, "JPEG2000", no_jp2=True)
    files["JPEG 2000 codestream"] = Valid(data, RGB, (1, 2, 4, 6, 20, 40, 45, len(data) // 2, len(data) - 20))
    files["AVIF"] = Valid(
        data := encoded(colour, "AVIF", quality=100, subsampling="4:4:4"), RGB, box_boundaries(data), LOSSY
    )
    return files


# --- the families -----------------------------------------------------------------------------------------


def truncated() -> Iterator[Case]:
    """Cut at every boundary of a format, a byte inside, in the middle of each part, and shortly before the end."""
    for name, valid in valid_files().items():
        data, last = valid.data, len(valid.data)
        yield row(f"{name}, whole", data, valid.pixels, valid.tolerance)
        edges = sorted({at for at in valid.boundaries if 0 < at < last} | {last})
        middles = {(one + other) // 2 for one, other in itertools.pairwise(edges)}
        ends = {*edges, *(at + 1 for at in edges), *middles, last - 1, last - 2, last - 4} - {0, last}
        for end in sorted(end for end in ends if 0 < end < last):
            # What is missing may be needed or not, but a picture with a part missing is never a row.
            yield either(f"{name}, cut to {end} of {last} bytes", data[:end], valid.pixels, valid.tolerance)


SIZES = [
    (WIDTH + 1, HEIGHT),
    (WIDTH, HEIGHT + 1),
    (WIDTH - 1, HEIGHT),
    (WIDTH, HEIGHT - 1),
    (WIDTH * 2, HEIGHT * 2),
    (1, 1),
    (0, HEIGHT),
    (WIDTH, 0),
    (900, 900),
    (50_000, 50_000),
    (65_535, 65_535),
    (65_535, 1),
]


def lying_sizes() -> Iterator[Case]:
    """Headers that claim another size than that of the data, too large, too small, or none at all."""
    valid = valid_files()
    for width, height in SIZES:
        bomb = width * height > MAX_PIXELS
        for name in ("JPEG", "progressive JPEG", "grey JPEG", "CMYK JPEG", "arithmetic JPEG"):
            yield sized(name, sized_jpeg(valid[name].data, width, height), width, height)
        for name, lace in (("PNG", 0), ("interlaced PNG", 1)):
            data = png(width, height, 8, 2, zlib.compress(packed(RGB.reshape(HEIGHT, -1), 8)), lace=lace)
            yield sized(name, data, width, height)
        data = valid["GIF"].data
        yield sized("GIF screen", data[:6] + struct.pack("<HH", width, height) + data[10:], None, None)
        at = data.index(b"\x2c", 13 + 768) + 5
        yield sized("GIF frame", data[:at] + struct.pack("<HH", width, height) + data[at + 4 :], None, None)
        data = valid["BMP"].data
        yield sized("BMP", data[:18] + struct.pack("<ii", width, height) + data[26:], width, height)
        yield sized("run-length BMP", bmp(width, height, rle_rows(), compression=1), width, height)
        yield sized("raw TIFF", grey_tiff(width, height, GREY.tobytes()), width, height)
        yield sized(
            "deflated TIFF", grey_tiff(width, height, zlib.compress(GREY.tobytes()), compression=8), width, height
        )
        yield sized("PPM", f"P6 {width} {height} 255\n".encode() + RGB.tobytes(), width, height)
        yield sized("PPM of text", f"P2 {width} {height} 255\n".encode() + b"7 " * 768, width, height)
        if width and height:
            yield sized("animated WebP", animated_webp(width, height), width, height)
            yield sized(
                "extended WebP", riff(canvas(width, height), (b"VP8 ", webp_frame())), None if bomb else width, height
            )


def sized(name: str, data: bytes, width: int | None, height: int | None) -> Case:
    """What claims (width, height): too many pixels, none, or a row or a reject."""
    if width is None or height is None:
        return either(f"{name} {len(data)} {zlib.crc32(data):08x}", data)
    title = f"{name} of {width}x{height}"
    if width * height > MAX_PIXELS:
        return reject(title, data, "more than image.max_pixels")
    return reject(title, data) if not width * height else either(title, data)


def bombs() -> Iterator[Case]:
    """Small files that would take memory or time without bound."""
    limit = "more than image.max_pixels"
    zeros = zlib.compress(bytes(10**7), 9)
    for depth, colour, lace in ((1, 0, 0), (8, 2, 0), (16, 6, 0), (1, 0, 1), (16, 6, 1)):
        yield reject(
            f"PNG of 50,000x50,000, depth {depth}, colour {colour}, interlaced {lace}",
            png(50_000, 50_000, depth, colour, zeros, lace=lace),
            limit,
        )
    yield reject("PNG of 2^31-1 x 2^31-1", png(2**31 - 1, 2**31 - 1, 8, 6, zeros), limit)
    yield reject("PNG of one row", png(2**31 - 1, 1, 8, 6, zeros), limit)
    yield either("PNG with 10 MB for 8x8 pixels", png(8, 8, 8, 0, zeros), np.zeros((8, 8, 3), np.uint8))
    codestream = encoded(Image.fromarray(RGB), "JPEG2000", no_jp2=True)
    rest = codestream[4 + int.from_bytes(codestream[4:6]) :]
    yield reject("JPEG 2000 of 60,000x60,000", siz(60_000, 60_000, (60_000, 60_000), 3) + rest, limit)
    yield reject("JPEG 2000 of 2^32-1 x 1", siz(2**32 - 1, 1, (2**32 - 1, 1), 3) + rest, limit)
    yield reject("JPEG 2000 of tiles of a pixel", siz(255, 255, (1, 1), 3) + rest, "tiles, more than")
    yield reject("JPEG 2000 of 16,384 components", siz(8, 8, (8, 8), 16_384) + rest, "components, more than")
    box = encoded(Image.fromarray(RGB), "JPEG2000")
    inner = box.index(b"\xff\x4f\xff\x51")
    yield reject(
        "JPEG 2000 larger than its box says", box[:inner] + siz(60_000, 60_000, (60_000, 60_000), 3) + rest, limit
    )
    yield reject(
        "JPEG XL of 2^30 x 2^30", b"\xff\x0a" + (0b110 | 0x3FFFFFFF << 3 | 1 << 33).to_bytes(12, "little"), limit
    )
    tga = encoded(Image.fromarray(RGB), "TGA", compression="tga_rle")
    yield reject("TGA of 65,535x65,535", tga[:12] + b"\xff" * 4 + tga[16:], limit)
    avif = encoded(Image.fromarray(RGB), "AVIF")
    at = avif.index(b"ispe") + 8
    yield reject("AVIF of 16,000x16,000", avif[:at] + struct.pack(">II", 16_000, 16_000) + avif[at + 8 :], limit)
    good = zlib.compress(packed(RGB.reshape(HEIGHT, -1), 8))
    text = zlib.compress(bytes(10**8), 1)
    for name, extra in {
        "iCCP": chunk(b"iCCP", b"a\0\0" + text),
        "zTXt": chunk(b"zTXt", b"a\0\0" + text),
        "iTXt": chunk(b"iTXt", b"a\0\1\0\0\0" + text),
        "many zTXt": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6), 9)) * 100,
    }.items():
        for place in ("before", "after"):
            data = png(WIDTH, HEIGHT, 8, 2, good, **{place: extra})
            yield either(f"PNG with {name} {place} the pixels", data, RGB)
    claim = struct.pack(">I", 2**31 - 1)
    yield reject("PNG with a chunk of 2 GB", png(8, 8, 8, 0, zeros)[:33] + claim + b"tEXtabc")
    yield reject("WebP of 50,000x50,000", riff(canvas(50_000, 50_000), (b"VP8 ", webp_frame())), limit)
    yield reject("animated WebP of 16,384x16,384", animated_webp(16_384, 16_384), limit)
    yield reject("animated WebP of 65,535x65,535", animated_webp(65_535, 65_535), limit)
    huge = b"\x2f" + struct.pack("<I", 16_383 | (16_383 << 14)) + bytes(40)
    yield reject("lossless WebP of 16,384x16,384", riff((b"VP8L", huge)), limit)
    frame = webp_frame()
    yield reject("lossy WebP of 16,383x16,383", riff((b"VP8 ", frame[:6] + b"\xff\x3f\xff\x3f" + frame[10:])), limit)
    for tile in ((30_000, 20_000), (40_000, 50_000), (2**31, 16), (16, 2**31)):
        yield reject(f"TIFF with a tile of {tile[0]}x{tile[1]}", tiled(10, 10, tile, zeros), "TIFF with tiles of")
    yield either("TIFF with a tile of 4096x4096", tiled(10, 10, (4096, 4096), zlib.compress(bytes(2**24))))
    yield reject("TIFF of 50,000x50,000", grey_tiff(50_000, 50_000, zeros, compression=8), limit)
    yield reject("TIFF of 2^32-1 x 2^32-1", grey_tiff(2**32 - 1, 2**32 - 1, zeros, compression=8), limit)
    rows = {"t278": (4, 1, 2**32 - 1)}
    yield either("TIFF with 2^32-1 rows in a strip", grey_tiff(10, 10, zeros, compression=8, **rows))
    size = {"t279": (4, 1, 2**31)}
    for compression in (1, 5, 7, 8, 32773, 34925, *ZSTANDARD):
        data = grey_tiff(10, 10, zlib.compress(bytes(100)), compression=compression, **size)
        yield either(f"TIFF with 2 GB in a strip, compression {compression}", data)
    many = 200_000
    offsets = {"t273": (3, many, b"\x08\0" * many), "t279": (3, many, b"\x08\0" * many), "t278": (3, 1, 1)}
    yield reject("TIFF of 200,000 strips", grey_tiff(10, 10, bytes(100), **offsets), "200,000 strips or tiles")
    for tag in (258, 270, 320, 339, 347, 34675, 700):
        count = {f"t{tag}": (3, 2**32 - 1, 8)}
        yield either(f"TIFF with 2^32-1 values in tag {tag}", grey_tiff(WIDTH, HEIGHT, GREY.tobytes(), **count))
    yield either("TIFF with 2^32-1 samples", grey_tiff(WIDTH, HEIGHT, GREY.tobytes(), t277=(4, 1, 2**32 - 1)))
    everything = {f"t{tag}": (7, 10**5, 8) for tag in range(40_000, 40_300)}
    yield either(
        "TIFF with 300 tags over one another", grey_tiff(WIDTH, HEIGHT, GREY.tobytes() + bytes(10**5), **everything)
    )
    loop = grey_tiff(WIDTH, HEIGHT, GREY.tobytes())
    at = 10 + 12 * 9
    yield row("TIFF whose directory follows itself", loop[:at] + struct.pack("<I", 8) + loop[at + 4 :], rgb3(GREY))
    chain = bytearray(loop[:at] + struct.pack("<I", len(loop)) + loop[at + 4 :])
    for _ in range(20_000):
        chain += struct.pack("<HI", 0, len(chain) + 6)
    yield row("TIFF of 20,000 directories", bytes(chain), rgb3(GREY))
    sub = grey_tiff(WIDTH, HEIGHT, GREY.tobytes(), t34665=(4, 1, 8), t330=(4, 1, 8))
    yield either("TIFF whose directory holds itself", sub, rgb3(GREY))
    yield reject("BigTIFF of 2^63 tags", struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 2**63) + bytes(100))
    yield reject("BMP of 2^31-1 x 2^31-1", bmp(2**31 - 1, 2**31 - 1, b""), limit)
    yield reject("BMP of -2^31 rows", bmp(10, -(2**31), b""), limit)
    yield reject("run-length BMP of one row", bmp(2**31 - 1, 1, b"\0\2\0\xff" * 100, compression=1), limit)
    yield either("run-length BMP that skips rows", bmp(990, 990, b"\0\2\0\xff" * 100 + b"\0\1", compression=1))
    yield either("run-length BMP of ends of rows", bmp(990, 990, b"\0\0" * 2000, compression=1))
    yield reject("PPM of 10^9 x 10^9", b"P6 1000000000 1000000000 255\n", limit)
    yield reject("PPM of a number of 100,000 digits", b"P6 " + b"9" * 100_000 + b" 1 255\n")
    comments = b"P3 200 200 255\n" + b"#a\n" * 20_000 + b"1 2 3 " * 40_000
    yield reject("PPM of text with 20,000 comments", comments, "20,000 comments")
    yield row(
        "PPM with a long comment", b"P6 #" + b"a" * 10**6 + b"\n8 8 255\n" + bytes(192), np.zeros((8, 8, 3), "u1")
    )
    yield reject("PPM of text that is spaces", b"P3 100 100 255\n" + b" " * 10**6)
    progressive = encoded(Image.new("L", (900, 900)), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    data = progressive[:-2] + scan * 2000 + progressive[-2:]
    yield reject("JPEG of 2,000 scans", data, "JPEG of 2,006 scans, more than 100")
    black = np.zeros((900, 900, 3), np.uint8)
    yield row("JPEG of 50 scans", progressive[:-2] + scan * 44 + progressive[-2:], black, 2)
    yield row("JPEG with 500 scans behind its end", progressive + scan * 500, black, 2)
    inside = segment(0xEF, b"\xff\xda\0\x02" * 500)
    yield row("JPEG with 500 scans in a segment", behind_start(progressive, inside), black, 2)
    yield row("JPEG of 20,000 segments", behind_start(progressive, segment(0xE5, b"ab") * 20_000), black, 2)
    yield either("JPEG of 1 MB of fill bytes", behind_start(progressive, b"\xff" * 10**6), black, 2)
    for segments in (1, 10):
        data = behind_start(valid_files()["JPEG"].data, b"".join(overlapping_exif(segments)))
        yield either(f"JPEG with EXIF tags over one another in {segments} segments", data, RGB, LOSSY)


def overlapping_exif(segments: int) -> Iterator[bytes]:
    """APP1 segments that make one EXIF block of which every tag claims half of all bytes."""
    total = segments * 65_000
    tags = total // 24
    start = 8 + 2 + 12 * tags + 4
    entry = [struct.pack("<HHII", 5000 + number, 7, total - start, start) for number in range(tags)]
    block = (b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + b"".join(entry) + bytes(4)).ljust(total, b"x")
    for at in range(0, total, 65_000):
        yield segment(0xE1, b"Exif\0\0" + block[at : at + 65_000])


class Trace:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def pickled(path: str) -> bytes:
    """A pickle that creates the file `path` when it is loaded."""
    return pickle.dumps(Trace(path))


def impostors() -> Iterator[Case]:
    """What is no image at all, or one of another format than its name says."""
    random = np.random.default_rng(7)
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>'
    xxe = b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'
    ifd = b"II*\0"
    texts = {
        "nothing": b"",
        "one zero": b"\0",
        "a zero": b"0",
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "line ends": b"\r\n" * 300,
        "SVG": svg,
        "SVG with an entity": xxe,
        "SVG behind a byte order mark": b"\xef\xbb\xbf" + svg,
        "compressed SVG": zlib.compress(svg),
        "web page": b"<!DOCTYPE html><html><body>403 Forbidden</body></html>",
        "JSON": b'{"error": "not found"}',
        "a path": b"/etc/passwd",
        "URL": b"https://example.org/picture.jpg",
        "PDF": b"%PDF-1.7\n1 0 obj\n<</Type/Catalog>>\nendobj\n%%EOF",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "ZIP": b"PK\x03\x04\x14\0\0\0\0\0" + bytes(100),
        "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + bytes(50),
        "tar": tar_bytes({"a.jpg": b"x"}),
        "ELF": b"\x7fELF\x02\x01\x01" + bytes(100),
        "script": b"#!/bin/sh\nexit 1\n",
        "pickle": pickled("unpickled"),
        "pickle of an array": pickle.dumps(RGB),
        "numpy array": b"\x93NUMPY\x01\0" + bytes(100),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100),
        "MP4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100),
        "JPEG XL": b"\xff\x0a" + bytes(100),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "PSD": b"8BPS\0\x01" + bytes(100),
        "icon": encoded(Image.new("RGB", (16, 16)), "ICO"),
        "PCX": encoded(Image.fromarray(RGB), "PCX"),
        "WAV": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
        "RIFF alone": b"RIFF",
        "WebP of no chunks": riff(),
        "WebP of text": riff((b"VP8 ", b"hello")),
        "WebP of zeros": riff((b"VP8L", bytes(100))),
        "JPEG start alone": b"\xff\xd8",
        "JPEG of two markers": b"\xff\xd8\xff\xd9",
        "JPEG and zeros": b"\xff\xd8\xff\xe0" + bytes(1000),
        "PNG signature alone": b"\x89PNG\r\n\x1a\n",
        "PNG harmed by a text transfer": encoded(Image.fromarray(RGB), "PNG").replace(b"\r\n", b"\n"),
        "PNG without pixels": b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
        + chunk(b"IEND", b""),
        "GIF header alone": b"GIF89a",
        "GIF of no frames": b"GIF89a\x08\0\x08\0\0\0\0\x3b",
        "BMP header alone": b"BM",
        "TIFF header alone": ifd,
        "TIFF of no directory": ifd + bytes(4),
        "TIFF whose directory lies behind its end": ifd + struct.pack("<I", 2**31),
        "TIFF of no tags": ifd + struct.pack("<IHI", 8, 0, 0),
        "big-endian BigTIFF": b"MM\0\x2b\0\x08\0\0" + struct.pack(">Q", 16) + bytes(100),
        "PPM header alone": b"P6",
        "PPM of letters": b"P6 a b c\n",
        "PPM of negative size": b"P6 -8 8 255\n" + bytes(192),
        "PPM of no maximum": b"P6 8 8 0\n" + bytes(192),
        "PPM of a maximum too large": b"P6 8 8 65536\n" + bytes(1000),
        "PAM": b"P7\nWIDTH 8\nHEIGHT 8\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(192),
        "float map": b"PF 8 8 -1.0\n" + bytes(768),
    }
    for name, data in texts.items():
        yield reject(name, data)
    for number in range(20):
        yield reject(f"random bytes {number}", random.bytes(10 + 97 * number))
    for start in (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"RIFF\0\1\0\0WEBP",
        b"P6\n",
    ):
        for number in range(3):
            yield either(f"random bytes {number} behind {start!r}", start + random.bytes(2000))


def damaged_checksums() -> Iterator[Case]:
    """PNG chunks and pixels whose checksums are wrong."""
    data = encoded(Image.fromarray(RGB).quantize(9), "PNG", transparency=200, dpi=(72, 72))
    reference = np.array(Image.fromarray(RGB).quantize(9).convert("RGB"))
    at = 8
    while at < len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield either(f"PNG whose {kind.decode()} has a wrong checksum", flipped(data, end - 1), reference)
        at = end
    wrong = zlib.compress(packed(RGB.reshape(HEIGHT, -1), 8))
    yield either(
        "PNG whose pixels have a wrong checksum", png(WIDTH, HEIGHT, 8, 2, flipped(wrong, len(wrong) - 1)), RGB
    )
    yield reject("PNG of an unknown filter", png(8, 1, 8, 0, zlib.compress(b"\x09" + bytes(8))))
    yield reject("PNG of an unknown compression", png(8, 8, 8, 0, b"\xff" * 100))
    yield reject("PNG of an unknown depth", png(8, 8, 3, 0, wrong))
    yield reject("PNG of an unknown colour type", png(8, 8, 8, 5, wrong))
    yield reject("PNG of a palette without one", png(8, 1, 8, 3, b""))
    for size in (0, 1, 3, 7, 12):
        key = chunk(b"tRNS", bytes(size))
        yield either(f"PNG with {size} bytes of transparency", png(WIDTH, HEIGHT, 8, 2, wrong, before=key))
    yield either("PNG with two headers", png(WIDTH, HEIGHT, 8, 2, wrong, before=chunk(b"IHDR", bytes(13))))
    unknown = png(WIDTH, HEIGHT, 8, 2, wrong, before=chunk(b"abCd", b"x" * 50))
    yield row("PNG with an unknown chunk", unknown, RGB)
    yield either(
        "PNG with an unknown critical chunk", png(WIDTH, HEIGHT, 8, 2, wrong, before=chunk(b"ABCD", b"x")), RGB
    )


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def oriented(value: int, kind: int = 3) -> bytes:
    """An EXIF block with an orientation."""
    return b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 0x112, kind, 1, value, 0) + bytes(4)


# How stored rows and columns are to be seen: https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def orientations() -> Iterator[Case]:
    """All eight, and some that do not exist, in every format that has them."""
    colour = Image.fromarray(RGB)
    for value in (*range(1, 9), 0, 9, 65535):
        seen = TURNED.get(value, TURNED[1])(RGB)
        exif = oriented(value)
        yield row(f"JPEG {value}", encoded(colour, "JPEG", quality=95, subsampling=0, exif=exif), seen, LOSSY)
        cmyk = encoded(colour.convert("CMYK"), "JPEG", quality=95, exif=exif)
        yield row(f"CMYK JPEG {value}", cmyk, seen, LOSSY)
        progressive = encoded(Image.fromarray(GREY), "JPEG", quality=95, progressive=True, exif=exif)
        yield row(f"grey progressive JPEG {value}", progressive, TURNED.get(value, TURNED[1])(rgb3(GREY)), LOSSY)
        yield row(f"PNG {value}", encoded(colour, "PNG", exif=exif), seen)
        yield row(f"WebP {value}", encoded(colour, "WEBP", lossless=True, exif=exif), seen)
        turn = {"t274": (3, 1, value)}
        yield row(
            f"TIFF {value}", grey_tiff(WIDTH, HEIGHT, GREY.tobytes(), **turn), TURNED.get(value, TURNED[1])(rgb3(GREY))
        )
    long = encoded(colour, "PNG", exif=oriented(6, kind=4))
    yield row("PNG with a long orientation", long, TURNED[6](RGB))


def exif_and_thumbnails() -> Iterator[Case]:
    """Damaged EXIF never costs the picture; a picture within it is not taken for the picture."""
    colour = Image.fromarray(RGB)
    whole = oriented(6)
    broken = {
        "empty": b"Exif\0\0",
        "of no byte order": b"Exif\0\0XX*\0\x08\0\0\0",
        "of text": b"Exif\0\0" + b"hello" * 20,
        "of zeros": b"Exif\0\0" + bytes(200),
        "of ones": b"Exif\0\0" + b"\xff" * 200,
        "cut in its directory": whole[:-10],
        "cut in its header": whole[:10],
        "of a directory behind its end": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "of a directory within itself": b"Exif\0\0II*\0\x08\0\0\0\1\0"
        + struct.pack("<HHII", 0x8769, 4, 1, 8)
        + bytes(4),
        "of 65,535 tags": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(60),
        "of 2^32-1 values": b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x112, 3, 2**32 - 1, 8) + bytes(4),
        "of a text orientation": b"Exif\0\0II*\0\x08\0\0\0\1\0"
        + struct.pack("<HHI4s", 0x112, 2, 4, b"six\0")
        + bytes(4),
        "of no type": b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x112, 99, 1, 6) + bytes(4),
        "of division by zero": b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x112, 5, 1, 8) + bytes(20),
    }
    for name, exif in broken.items():
        plain = encoded(colour, "JPEG", quality=95, subsampling=0)
        # torchvision takes an orientation of any type.
        turned = None if name in ("of 2^32-1 values", "of no type", "of division by zero") else RGB
        yield row(f"JPEG with EXIF {name}", behind_start(plain, segment(0xE1, exif)), turned, LOSSY)
        cmyk = behind_start(encoded(colour.convert("CMYK"), "JPEG", quality=95), segment(0xE1, exif))
        yield row(f"CMYK JPEG with EXIF {name}", cmyk, RGB, LOSSY)
        pixels = zlib.compress(packed(RGB.reshape(HEIGHT, -1), 8))
        yield row(f"PNG with EXIF {name}", png(WIDTH, HEIGHT, 8, 2, pixels, before=chunk(b"eXIf", exif[6:])), RGB)
        data = encoded(colour, "WEBP", lossless=True)
        vp8l = data[20 : 20 + int.from_bytes(data[16:20], "little")]
        yield row(f"WebP with EXIF {name}", riff(canvas(WIDTH, HEIGHT, 8), (b"VP8L", vp8l), (b"EXIF", exif)), RGB)
    small = encoded(Image.new("RGB", (160, 120), "red"), "JPEG")
    entries = struct.pack("<HHII", 0x201, 4, 1, 44) + struct.pack("<HHII", 0x202, 4, 1, len(small))
    thumbnail = b"Exif\0\0II*\0\x08\0\0\0\0\0\x0e\0\0\0" + struct.pack("<H", 2) + entries + bytes(4)
    thumbnail = thumbnail.ljust(6 + 44, b"\0") + small
    plain = encoded(colour, "JPEG", quality=95, subsampling=0)
    yield row("JPEG with a thumbnail in EXIF", behind_start(plain, segment(0xE1, thumbnail)), RGB, LOSSY)
    jfxx = segment(0xE0, b"JFXX\0\x10" + small)
    yield row("JPEG with a thumbnail in JFXX", plain[:20] + jfxx + plain[20:], RGB, LOSSY)
    yield row("JPEG with EXIF twice", behind_start(plain, segment(0xE1, oriented(1)) * 2), RGB, LOSSY)
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + b"x" * 500
    yield row("JPEG with damaged XMP", behind_start(plain, segment(0xE1, xmp)), RGB, LOSSY)


def profiles() -> Iterator[Case]:
    """ICC profiles change no pixel, whatever they hold."""

    def made(space: Any) -> bytes:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
        return profile[:24] + bytes(12) + profile[36:]  # without the time

    good, lab = made("sRGB"), made("LAB")
    colour = Image.fromarray(RGB)
    for name, profile in {
        "sRGB": good,
        "LAB": lab,
        "cut": good[:100],
        "one byte": b"x",
        "junk": b"\xff" * 1000,
        "large": bytes(200_000),
    }.items():
        yield row(
            f"{name} in JPEG", encoded(colour, "JPEG", quality=95, subsampling=0, icc_profile=profile), RGB, LOSSY
        )
        cmyk = encoded(colour.convert("CMYK"), "JPEG", quality=95, icc_profile=profile)
        yield row(f"{name} in CMYK JPEG", cmyk, RGB, LOSSY)
        yield row(f"{name} in PNG", encoded(colour, "PNG", icc_profile=profile), RGB)
        yield row(f"{name} in WebP", encoded(colour, "WEBP", lossless=True, icc_profile=profile), RGB)
        yield row(f"{name} in TIFF", encoded(colour, "TIFF", icc_profile=profile), RGB)
    plain = encoded(colour, "JPEG", quality=95, subsampling=0)
    for number, count in ((2, 1), (0, 0), (1, 255), (255, 1)):
        part = segment(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + good[:200])
        yield row(f"part {number} of {count} in JPEG", behind_start(plain, part), RGB, LOSSY)
    yield either("a part without numbers in JPEG", behind_start(plain, segment(0xE2, b"ICC_PROFILE\0")), RGB, LOSSY)


def inks() -> Iterator[Case]:
    """CMYK and YCCK, with and without Adobe's marker, which stores inks the other way round."""
    data = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    at = data.index(b"Adobe")
    yield row("CMYK with the marker", data, RGB, LOSSY)
    yield row("CMYK without the marker", data[: at - 4] + data[at + 12 :], RGB, LOSSY)
    for transform in (0, 1, 2, 3, 255):
        yield either(
            f"four inks of colour transform {transform}", data[: at + 11] + bytes([transform]) + data[at + 12 :]
        )
    values = np.array(Image.fromarray(RGB).convert("CMYK"))
    values[:, :, 3] = 40
    luma = np.array(Image.fromarray(values[:, :, :3]).convert("YCbCr"))
    stored = np.concatenate([255 - luma, values[:, :, 3:]], -1)
    ycck = encoded(Image.fromarray(stored, "CMYK"), "JPEG", quality=95)
    at = ycck.index(b"Adobe") + 11
    expected = np.array(Image.fromarray(values, "CMYK").convert("RGB"))
    yield row("YCCK", ycck[:at] + b"\2" + ycck[at + 1 :], expected, LOSSY)
    yield row("CMYK TIFF", encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB)
    plain = encoded(Image.fromarray(RGB), "JPEG", quality=95, subsampling=0)
    for size in (0, 4, 5, 11, 12, 13, 60):
        marker = segment(0xEE, (b"Adobe\0\x64\0\0\0\0\1" + bytes(60))[:size])
        yield either(f"RGB with {size} bytes of the marker", behind_start(plain, marker), RGB, LOSSY)
    direct = encoded(Image.fromarray(RGB), "JPEG", quality=95, keep_rgb=True)
    yield row("RGB stored as it is", direct, RGB, LOSSY)
    yield reject("two components", two_components(plain))


def two_components(data: bytes) -> bytes:
    at = frame_header(data)
    return (
        data[:at]
        + b"\xff\xc0\0\x0e\x08"
        + struct.pack(">HHB", HEIGHT, WIDTH, 2)
        + data[at + 10 : at + 16]
        + data[at + 19 :]
    )


def png_kinds() -> Iterator[Case]:
    """Every depth and colour type, straight and interlaced, with transparency where there may be some."""
    for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth, lace, keyed in itertools.product(depths, (False, True), (False, True)):
            case = png_kind(colour, depth, lace, keyed)
            if case:
                yield case
    for width, height in ((1, 1), (1, 40), (40, 1), (3, 5), (5, 3)):
        pixels = picture(height, width)
        yield row(f"interlaced {width}x{height}", png_samples(pixels, 8, 2, True), pixels)


def png_kind(colour: int, depth: int, lace: bool, keyed: bool) -> Case | None:
    top = 2**depth - 1
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    y, x, channel = np.mgrid[0:HEIGHT, 0:WIDTH, 0:channels]
    samples = (x * 3 + y * 7 + channel * 11) * max(1, top // 200) % (top + 1)
    before = b""
    to_8_bits = (lambda v: (v + 128) // 257) if depth == 16 and colour == 0 else (lambda v: v >> 8)
    shades = to_8_bits(samples) if depth == 16 else samples * 255 // top
    if colour == 3:
        palette = np.array([[(17 * n) % 256, (51 * n) % 256, 255 - n] for n in range(top + 1)])
        before = chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        pixels = palette[samples[:, :, 0]]
        if keyed:
            before += chunk(b"tRNS", b"\xff\0")  # the second colour is transparent
            pixels[samples[:, :, 0] == 1] = WHITE
    elif colour in (0, 2):
        pixels = shades[:, :, :3].repeat(3 // channels, 2)
        if keyed and depth == 16:
            key = samples[5, 5]
            before = chunk(b"tRNS", key.astype(">u2").tobytes())
            if colour == 2:  # Pillow has thrown the low bytes away by the time it looks for the colour
                return either(
                    f"16-bit colour{', interlaced' * lace}, transparent", png_samples(samples, 16, 2, lace, before)
                )
        if keyed:
            key = samples[5, 5]
            before = chunk(b"tRNS", key.astype(">u2").tobytes())
            pixels[(samples == key).all(-1)] = WHITE
    else:
        if keyed:
            return None  # it has an alpha channel instead
        alpha = shades[:, :, -1:] / 255
        over = shades[:, :, :-1] * alpha + WHITE * (1 - alpha)
        pixels = np.rint(over).repeat(3 // (channels - 1), 2)
    name = f"colour {colour}, {depth} bits{', interlaced' * lace}{', transparent' * keyed}"
    data = png_samples(samples, depth, colour, lace, before)
    return row(name, data, pixels.astype(np.uint8), tolerance=1)


def jpeg_kinds() -> Iterator[Case]:
    """Processes that are rare, markers in odd places, data before and behind the picture."""
    colour = Image.fromarray(RGB)
    plain = encoded(colour, "JPEG", quality=95, subsampling=0)
    yield row("arithmetic", ARITHMETIC, RGB, LOSSY)
    yield row("arithmetic, progressive", ARITHMETIC_PROGRESSIVE, RGB, LOSSY)
    options: Iterable[dict[str, Any]] = (
        {"progressive": True},
        {"progressive": True, "subsampling": 2},
        {"optimize": True},
        {"restart_marker_blocks": 1},
        {"restart_marker_rows": 1, "progressive": True},
        {"subsampling": 1},
        {"subsampling": 2},
        {"qtables": [[1] * 64, [1] * 64]},
    )
    for option in options:
        yield row(str(option)[:60], encoded(colour, "JPEG", **{"quality": 95, **option}), RGB, LOSSY)
    for code in (0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xDE):
        yield either(f"a frame called {code:02X}", frame_kind(plain, code))
    yield row("a frame called C1", frame_kind(plain, 0xC1), RGB, LOSSY)
    at = frame_header(plain)
    for bits in (0, 1, 2, 12, 16, 255):
        yield reject(f"{bits} bits", plain[: at + 4] + bytes([bits]) + plain[at + 5 :])
    for count in (0, 2, 4, 5, 255):
        yield either(f"{count} components in the frame", plain[: at + 9] + bytes([count]) + plain[at + 10 :])
    for sampling in (0x00, 0x44, 0x55, 0xFF, 0x31, 0x13):
        yield either(f"sampling {sampling:02X}", plain[: at + 11] + bytes([sampling]) + plain[at + 12 :])
    for table in (4, 255):
        yield reject(f"quantization table {table}", plain[: at + 12] + bytes([table]) + plain[at + 13 :])
    frame = plain[at : at + 19]
    yield either("two frames", plain[:at] + frame + plain[at:], RGB, LOSSY)
    yield either("a frame of another size before", plain[:at] + sized_jpeg(plain, 900, 900)[at : at + 19] + plain[at:])
    yield either("two starts", b"\xff\xd8" + plain, RGB, LOSSY)
    yield row("bytes behind its end", plain + bytes(range(256)) * 20, RGB, LOSSY)
    yield row("another picture behind its end", plain + encoded(Image.new("RGB", (99, 99)), "JPEG"), RGB, LOSSY)
    yield row("a ZIP behind its end", plain + b"PK\x03\x04" + bytes(100), RGB, LOSSY)
    yield either("zeros before its start", bytes(10) + plain)
    yield row("fill bytes before markers", behind_start(plain, b"\xff" * 30), RGB, LOSSY)
    yield row("a comment of 60 KB", behind_start(plain, segment(0xFE, b"x" * 60_000)), RGB, LOSSY)
    yield row("an empty comment", behind_start(plain, segment(0xFE, b"")), RGB, LOSSY)
    for length in (0, 1, 0xFFFF):
        yield either(
            f"a segment of length {length}", behind_start(plain, b"\xff\xe5" + struct.pack(">H", length)), RGB, LOSSY
        )
    for kind, name in (
        (b"\xff\xdb", "quantization"),
        (b"\xff\xc4", "Huffman"),
        (b"\xff\xda", "scan"),
        (b"\xff\xe0", "JFIF"),
    ):
        place = plain.index(kind)
        size = 2 + int.from_bytes(plain[place + 2 : place + 4], "big")
        yield either(f"without its {name} segment", plain[:place] + plain[place + size :])
        yield either(f"with an empty {name} segment", plain[:place] + kind + b"\0\2" + plain[place + size :])
        yield either(f"with its {name} segment twice", plain[: place + size] + plain[place:])
        yield either(
            f"with ones for its {name} segment", plain[: place + 4] + b"\xff" * (size - 4) + plain[place + size :]
        )
    restarts = encoded(colour, "JPEG", quality=95, subsampling=0, restart_marker_blocks=1)
    place = restarts.index(b"\xff\xd1")
    yield either("a restart marker missing", restarts[:place] + restarts[place + 2 :])
    yield either("a restart marker out of order", restarts[: place + 1] + b"\xd5" + restarts[place + 2 :])
    yield either("restart markers of an interval of none", behind_start(restarts, b"\xff\xdd\0\4\0\0"))
    body = plain.index(b"\xff\xda") + 14
    for step in range(6):
        spot = body + (len(plain) - body) * step // 6
        yield either(f"a marker in the middle of its data {step}", plain[:spot] + b"\xff\xd9" + plain[spot:])
        yield either(f"damaged data {step}", plain[:spot] + b"\x5a\xa5\x5a" + plain[spot + 3 :])
    frames = [colour, Image.new("RGB", (WIDTH, HEIGHT), "red")]
    mpo = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95, subsampling=0)
    yield row("MPO", mpo, RGB, LOSSY)
    index = mpo.index(b"MPF\0") + 4
    for size in (4, 8, 20, 60):
        yield row(
            f"MPO with ones in its index from {size}",
            mpo[: index + size] + b"\xff" * 8 + mpo[index + size + 8 :],
            RGB,
            LOSSY,
        )
    yield row("MPO without its second picture", mpo[: mpo.index(b"\xff\xd9") + 2], RGB, LOSSY)


def tiff_kinds() -> Iterator[Case]:
    """What TIFF can hold beside 8-bit strips."""
    values = (np.arange(HEIGHT * WIDTH) * 5 % 4096).reshape(HEIGHT, WIDTH)
    bits = ((values[:, :, None] >> np.arange(11, -1, -1)) & 1).astype(np.uint8)
    twelve = np.packbits(bits.reshape(HEIGHT, -1), axis=1).tobytes()
    shades = rgb3(np.rint(values * 255 / 4095).astype(np.uint8))
    yield row("12 bits", grey_tiff(WIDTH, HEIGHT, twelve, bits=12), shades)
    yield row("12 bits, deflated", grey_tiff(WIDTH, HEIGHT, zlib.compress(twelve), bits=12, compression=8), shades)
    yield either("12 bits, white is zero", grey_tiff(WIDTH, HEIGHT, twelve, bits=12, photometric=0), 255 - shades)
    wide = (np.arange(HEIGHT * WIDTH, dtype=np.uint32) * 85).astype("<u2").reshape(HEIGHT, WIDTH)
    expected = rgb3(np.rint(wide / 257).astype(np.uint8))
    yield row("16 bits", grey_tiff(WIDTH, HEIGHT, wide.tobytes(), bits=16), expected)
    yield row(
        "16 bits, white is zero", grey_tiff(WIDTH, HEIGHT, wide.tobytes(), bits=16, photometric=0), 255 - expected
    )
    yield row("8 bits, white is zero", grey_tiff(WIDTH, HEIGHT, GREY.tobytes(), photometric=0), rgb3(255 - GREY))
    for depth in (0, 3, 5, 7, 9, 24, 32, 64, 65535):
        yield reject(f"{depth} bits", grey_tiff(WIDTH, HEIGHT, bytes(10_000), bits=depth))
    for photometric in (2, 3, 4, 5, 6, 8, 32803, 65535):
        yield either(f"photometric {photometric}", grey_tiff(WIDTH, HEIGHT, GREY.tobytes(), photometric=photometric))
    for compression in (0, 2, 3, 4, 5, 6, 7, 8, 34712, 34887, 34925, *ZSTANDARD, 50001, 65535):
        yield either(
            f"compression {compression} of junk", grey_tiff(WIDTH, HEIGHT, b"\x37\xc8" * 400, compression=compression)
        )
    yield either("float samples", grey_tiff(WIDTH, HEIGHT, bytes(WIDTH * HEIGHT * 4), bits=32, t339=(3, 1, 3)))
    yield row("16 bits of BigTIFF", encoded(Image.fromarray(wide.astype(np.uint16)), "TIFF", big_tiff=True), expected)
    colour = Image.fromarray(RGB)
    for codec in (
        "packbits",
        "tiff_lzw",
        "tiff_adobe_deflate",
        *(["zstd"] if ZSTANDARD else []),
        "lzma",
        "tiff_deflate",
    ):
        yield row(codec, encoded(colour, "TIFF", compression=codec), RGB)
    yield row("JPEG in TIFF", encoded(colour, "TIFF", compression="jpeg", quality=95), RGB, LOSSY)
    for codec in ("group3", "group4", "tiff_ccitt"):
        black = Image.fromarray(GREY).convert("1")
        yield row(codec, encoded(black, "TIFF", compression=codec), np.array(black.convert("RGB")))
    planes = b"".join(RGB[:, :, plane].tobytes() for plane in range(3))
    at = {"t258": (3, 3, b"\x08\0" * 3), "t262": (3, 1, 2), "t277": (3, 1, 3), "t284": (3, 1, 2)}
    start = 8 + 2 + 12 * 10 + 4 + 6 + 24
    offsets = struct.pack("<3I", *[start + WIDTH * HEIGHT * plane for plane in range(3)])
    sizes = struct.pack("<3I", *[WIDTH * HEIGHT] * 3)
    planar = grey_tiff(WIDTH, HEIGHT, planes, t273=(4, 3, offsets), t279=(4, 3, sizes), **at)
    yield row("planes", planar, RGB)
    for tag in (256, 257, 258, 259, 262, 273, 277, 278, 279):
        for kind, count, value in ((2, 4, b"abc\0"), (5, 1, 8), (4, 0, 0), (4, 1, 0), (9, 1, 2**32 - 1)):
            data = grey_tiff(WIDTH, HEIGHT, GREY.tobytes(), **{f"t{tag}": (kind, count, value)})
            yield either(f"tag {tag} of type {kind}, {count} values, {value!r}", data)


def animations() -> Iterator[Case]:
    """The first frame stands for all, whatever comes of the others."""
    frames = [Image.fromarray(RGB), Image.new("RGB", (WIDTH, HEIGHT), "red"), Image.new("RGB", (WIDTH, HEIGHT), "blue")]
    greys = [frame.convert("L") for frame in (Image.fromarray(GREY), *frames[1:])]
    for format, images, pixels, options in (
        ("GIF", greys, rgb3(GREY), {"loop": 0}),
        ("WEBP", frames, RGB, {"lossless": True}),
        ("PNG", frames, RGB, {}),
        ("TIFF", frames, RGB, {}),
    ):
        for count in (1, 2, 3):
            data = encoded(images[0], format, save_all=True, append_images=images[1:count], **options)
            yield row(f"{format} of {count}", data, pixels)
            yield either(f"{format} of {count}, second half missing", data[: len(data) // 2 + 40], pixels)
            yield either(f"{format} of {count}, damaged near its end", flipped(data, len(data) - 40))
    for disposal in (0, 1, 2, 3):
        data = encoded(greys[0], "GIF", save_all=True, append_images=greys[1:], disposal=disposal)
        yield row(f"GIF of disposal {disposal}", data, rgb3(GREY))
    hole = Image.fromarray(RGB).quantize(16)
    data = encoded(hole, "GIF", transparency=3)
    expected = np.array(hole.convert("RGB"))
    expected[np.array(hole) == 3] = WHITE
    yield row("GIF with transparency", data, expected)
    later = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    yield row("APNG with a picture of its own", later, RGB)
    actl = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    pixels_only = zlib.compress(packed(RGB.reshape(HEIGHT, -1), 8))
    yield either("APNG of 2^31-1 frames", png(WIDTH, HEIGHT, 8, 2, pixels_only, before=actl), RGB)
    yield either(
        "APNG of a damaged control chunk", png(WIDTH, HEIGHT, 8, 2, pixels_only, before=chunk(b"acTL", b"x")), RGB
    )
    tall = bytearray(encoded(greys[0], "GIF"))
    place = tall.index(b"\x2c", 13 + 768)
    tall[place + 1 : place + 5] = struct.pack("<HH", 65_000, 65_000)
    yield reject("GIF whose frame lies far outside", bytes(tall), "more than image.max_pixels")


def noise() -> Iterator[Case]:
    """Good files with some bytes changed."""
    for name, valid in valid_files().items():
        random = np.random.default_rng(zlib.crc32(name.encode()))
        for number in range(8):
            data = bytearray(valid.data)
            for _ in range(1 + number):
                data[int(random.integers(len(data)))] = int(random.integers(256))
            yield either(f"{name}, {number + 1} bytes changed", bytes(data))


def floods() -> Iterator[Case]:
    """Much in front of the pixels that is quickly written and slowly read."""
    colour, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    many = 2**20 + 2**10
    for name, header in {"P6": b"P6", "P3": b"P3", "P4": b"P4", "Pf": b"Pf", "CMYK": b"P0CMYK"}.items():
        yield reject(f"{name} of spaces", header + b" " * many + b"8 8 255\n" + bytes(256), "header of more than")
        yield reject(f"{name} of spaces behind a number", header + b" 8" + b"\n" * many + b"8 255\n", "header of more")
        yield reject(f"{name} of one comment", header + b" #" + b"x" * many + b"\n8 8 255\n", "header of more than")
        yield reject(f"{name} of comments", header + b" #a\n" * (many // 3), "more than")
    yield row("spaces that may be", b"P6" + b" " * 60_000 + b"8 8 255\n" + bytes(192), np.zeros((8, 8, 3), np.uint8))
    yield row("an image of spaces", b"P5 400 400 255\n" + b" " * 160_000, np.full((400, 400, 3), 32, np.uint8))
    jpeg = encoded(colour, "JPEG", quality=95, progressive=True)
    for name, junk in {"fill": b"\xff", "zeros": b"\0", "stuffing": b"\xff\0", "restarts": b"\xff\xd0"}.items():
        yield reject(f"JPEG with {name}", behind_start(jpeg, junk * 70_000), "belong to nothing")
        yield reject(f"JPEG of {name} alone", b"\xff\xd8\xff" + junk * 70_000, "belong to nothing")
    yield reject("JPEG of scans and fill", b"\xff\xd8" + b"\xff" * 70_000 + b"\0" + b"\xff\xda" * 141, "JPEG")
    yield reject("JPEG of comments", behind_start(jpeg, segment(0xFE, b"") * 100_001), "more than 100,000 blocks")
    yield row("JPEG with some fill", behind_start(jpeg, b"\xff" * 1000), None)
    yield row("JPEG with a tail", jpeg + b"\xff" * 200_000, None)
    png_file = encoded(colour, "PNG")
    yield reject("PNG of chunks", png_file[:33] + chunk(b"prVt", b"") * 100_001 + png_file[33:], "more than 100,000")
    yield row("PNG with a tail", png_file + b"\0" * 200_000, RGB)
    gif = encoded(grey, "GIF")
    start = 13 + (3 << (gif[10] & 7) + 1)
    for name, junk in {"zeros": b"\0" * 70_000, "empty extensions": b"!\xfe\0" * 100_001}.items():
        yield reject(f"GIF with {name}", gif[:start] + junk + gif[start:], "GIF ")
    comment = b"!\xfe" + b"\1a" * 100_001 + b"\0"
    yield reject("GIF with a comment of single bytes", gif[:start] + comment + gif[start:], "more than 100,000 blocks")
    yield row("GIF with a comment", gif[:start] + b"!\xfe\5hello\0" + gif[start:], rgb3(GREY))
    box = struct.pack(">I4s", 8, b"free")
    jpeg2000 = encoded(colour, "JPEG2000")
    yield reject("JPEG 2000 of boxes", jpeg2000[:12] + box * 10_001 + jpeg2000[12:], "more than 10,000 boxes")
    yield reject("JPEG XL of boxes", b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a" + box * 10_001, "more than 10,000 boxes")


FAMILIES = (
    truncated,
    lying_sizes,
    bombs,
    impostors,
    damaged_checksums,
    orientations,
    exif_and_thumbnails,
    profiles,
    inks,
    png_kinds,
    jpeg_kinds,
    tiff_kinds,
    animations,
    noise,
    floods,
)
