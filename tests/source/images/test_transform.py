"""From the bytes of image files of every kind to uint8 pixels of one size, or a reason why not."""

import contextlib
import hashlib
import io
import multiprocessing
import random
import re
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import grey_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from support import encoded, picture
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.config import ImageConfig
from pipeline.errors import BadImage, VqtokError
from pipeline.source.images.decoding import decode_rgb
from pipeline.source.images.pillow import FORMATS
from pipeline.source.images.transform import ImageTransform

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


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_colour_is_exact(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    assert distance(decoded(encoded(Image.fromarray(RGB), format, **options)), RGB) == 0


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_lossless_grey_becomes_three_equal_channels(format: str) -> None:
    assert distance(decoded(encoded(Image.fromarray(GREY), format)), GREY[:, :, None].repeat(3, 2)) == 0


JPEGS: list[dict[str, Any]] = [
    {"quality": 95},
    {"quality": 30},
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2},
    {"progressive": True},
    {"optimize": True},
    {"restart_marker_blocks": 2},
]


@pytest.mark.parametrize("options", JPEGS, ids=str)
@pytest.mark.parametrize("pixels", [RGB, GREY], ids=["colour", "grey"])
def test_torchvision_decodes_jpeg_as_pillow_does(pixels: np.ndarray, options: dict[str, Any]) -> None:
    data = encoded(Image.fromarray(pixels), "JPEG", **options)
    assert distance(decoded(data), np.array(Image.open(io.BytesIO(data)).convert("RGB"))) <= 2


def test_cmyk_jpeg_has_the_colours_of_its_inks() -> None:
    inks = Image.fromarray(RGB).convert("CMYK")
    data = encoded(inks, "JPEG", quality=100)
    assert b"Adobe" in data  # which stores inks the other way round
    assert distance(decoded(data), RGB) <= 4
    at = data.index(b"\xff\xee")
    unmarked = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert b"Adobe" not in unmarked
    assert distance(decoded(unmarked), RGB) <= 4


def test_ycck_jpeg_has_the_colours_of_its_inks() -> None:
    inks = np.array(Image.fromarray(RGB).convert("CMYK"))
    inks[:, :, 3] = 40  # some black, which YCCK stores apart
    luma = np.array(Image.fromarray(inks[:, :, :3]).convert("YCbCr"))
    stored = np.concatenate([255 - luma, inks[:, :, 3:]], -1)  # Pillow turns all four round when it writes
    data = encoded(Image.fromarray(stored, "CMYK"), "JPEG", quality=100)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0  # no colour transform
    ycck = data[:at] + b"\2" + data[at + 1 :]
    assert distance(decoded(ycck), np.array(Image.fromarray(inks, "CMYK").convert("RGB"))) <= 6


def test_grey_of_16_bits_is_scaled_to_8_and_not_clipped() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(values / 257).astype(np.uint8)[:, :, None].repeat(3, 2)
    assert (expected[0, 128, 0], expected[0, 129, 0], expected[-1, -1, 0]) == (0, 1, 255)
    assert distance(decoded(encoded(Image.fromarray(values), "PNG")), expected) == 0
    assert distance(decoded(encoded(Image.fromarray(values), "TIFF")), expected) == 0
    assert distance(decoded(b"P5 256 256 65535\n" + values.astype(">u2").tobytes()), expected) == 0
    big_endian = Image.frombytes("I;16B", (256, 256), values.astype(">u2").tobytes())
    assert distance(decoded(encoded(big_endian, "TIFF")), expected) == 0


def test_colour_of_16_bits_keeps_its_high_bytes() -> None:
    values = np.arange(0, 65536, 17, dtype=np.uint16)[: 60 * 60].reshape(60, 60)
    high = (values >> 8).astype(np.uint8)
    assert distance(decoded(png(values, 16, 2)), high.reshape(60, 20, 3)) == 0
    opaque = values.reshape(60, 15, 4).copy()
    opaque[:, :, 3] = 65535
    assert distance(decoded(png(opaque.reshape(60, 60), 16, 6)), (opaque[:, :, :3] >> 8).astype(np.uint8)) == 0
    opaque = values.reshape(60, 30, 2).copy()
    opaque[:, :, 1] = 65535
    expected = (opaque[:, :, :1] >> 8).astype(np.uint8).repeat(3, 2)
    assert distance(decoded(png(opaque.reshape(60, 60), 16, 4)), expected) == 0


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_spans_black_to_white(bits: int) -> None:
    levels = 2**bits
    per_byte = 8 // bits
    packed = bytes(sum((n % levels) << (8 - bits * (n + 1)) for n in range(per_byte)) for _ in range(1))
    data = png_of(per_byte, 1, bits, 0, zlib.compress(b"\0" + packed))
    expected = [255 * (n % levels) // (levels - 1) for n in range(per_byte)]
    assert decoded(data)[0, :, 0].tolist() == expected


def test_a_palette_gives_its_colours() -> None:
    image = Image.fromarray(RGB).quantize(7)
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        assert distance(decoded(encoded(image, format)), np.array(image.convert("RGB"))) == 0


def test_transparent_entries_of_a_palette_become_white() -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([10, 20, 30, 200, 100, 0, 0, 0, 255])
    image.putdata([0, 1, 2, 1])
    colours = [[10, 20, 30], [200, 100, 0], [0, 0, 255], [200, 100, 0]]
    white = [255, 255, 255]
    for format in ("PNG", "GIF"):
        assert decoded(encoded(image, format))[0].tolist() == colours
        assert decoded(encoded(image, format, transparency=1))[0].tolist() == [colours[0], white, colours[2], white]
    half = decoded(encoded(image, "PNG", transparency=b"\xff\x80\x00"))[0]
    assert half[0].tolist() == colours[0]
    assert distance(half[1], np.array([228, 178, 127])) <= 1
    assert half[2].tolist() == white


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_over_white(format: str) -> None:
    alpha = np.array([[0, 64, 128, 255]], np.uint8).repeat(2, 0)
    rgba = np.dstack([np.full((2, 4, 3), (30, 60, 200), np.uint8), alpha])
    expected = np.rint(255 + (rgba[:, :, :3] - 255.0) * (alpha / 255.0)[:, :, None])
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    result = decoded(encoded(Image.fromarray(rgba), format, **options))
    assert distance(result, expected) <= 1
    assert result[0, 0].tolist() == [255, 255, 255]
    assert result[0, 3].tolist() == [30, 60, 200]


def test_grey_with_alpha_is_laid_over_white() -> None:
    pixels = np.array([[[100, 0], [100, 255], [0, 128]]], np.uint8)
    assert distance(decoded(encoded(Image.fromarray(pixels, "LA"), "PNG"))[0, :, 0], np.array([255, 100, 127])) <= 1


def test_a_transparent_colour_becomes_white() -> None:
    key = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    assert decoded(png(np.array([[1, 2, 3, 1, 2, 4]]), 8, 2, key))[0].tolist() == [[255] * 3, [1, 2, 4]]
    key = chunk(b"tRNS", struct.pack(">H", 9))
    assert decoded(png(np.array([[9, 10]]), 8, 0, key))[0].tolist() == [[255] * 3, [10] * 3]


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_in_every_format(orientation: int) -> None:
    exif = oriented(orientation)
    files = {
        "JPEG": encoded(Image.fromarray(RGB), "JPEG", exif=exif),
        "grey JPEG": encoded(Image.fromarray(GREY), "JPEG", exif=exif),
        "CMYK JPEG": encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", exif=exif),
        "PNG": encoded(Image.fromarray(RGB), "PNG", exif=exif),
        "WEBP": encoded(Image.fromarray(RGB), "WEBP", exif=exif, lossless=True),
        "TIFF": encoded(Image.fromarray(RGB), "TIFF", exif=exif),
    }
    for name, data in files.items():
        expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        assert distance(decoded(data), expected) <= 2, name
        turned = (56, 40) if orientation >= 5 else (40, 56)
        assert decoded(data).shape[:2] == turned, name


def test_orientation_of_16_bit_grey_is_applied() -> None:
    wide = Image.fromarray(np.arange(6, dtype=np.uint16).reshape(1, 6) * 257 * 20)
    for format in ("PNG", "TIFF"):
        assert decoded(encoded(wide, format, exif=oriented(6)))[:, 0, 0].tolist() == [0, 20, 40, 60, 80, 100]


def test_damaged_exif_is_no_reason_to_lose_a_jpeg() -> None:
    exif = bytearray(oriented(6))
    for at in range(6, len(exif)):
        harmed = bytes([*exif[:at], exif[at] ^ 0xFF, *exif[at + 1 :]])
        assert sorted(decoded(encoded(Image.fromarray(RGB), "JPEG", exif=harmed)).shape) == [3, 40, 56]


ANIMATED: dict[str, dict[str, Any]] = {
    "GIF": {},
    "WEBP": {"lossless": True},
    "PNG": {},
    "TIFF": {},
    "MPO": {"quality": 100},
}


@pytest.mark.parametrize("format", ANIMATED)
def test_the_first_frame_stands_for_all(format: str) -> None:
    frames = [Image.new("RGB", (9, 5), colour) for colour in ("#c80000", "#00c800", "#0000c8")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **ANIMATED[format])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert distance(decoded(data), np.full((5, 9, 3), (200, 0, 0))) <= 2


def test_an_old_pillow_does_not_make_rejects_of_good_images(monkeypatch: pytest.MonkeyPatch) -> None:
    data = grey_tiff(10, 10, b"not Zstandard, so that decoding fails", compression=50000)
    monkeypatch.setattr("PIL.__version__", "11.3.0")
    with pytest.raises(VqtokError, match=r"compressed with Zstandard, which Pillow 11\.3\.0 does not decode: install"):
        decoded(data)
    monkeypatch.setattr("PIL.__version__", "12.0.0")
    with pytest.raises(BadImage):
        decoded(data)


def test_one_pixel_is_an_image() -> None:
    for format in ("PNG", "JPEG", "GIF", "WEBP"):
        data = encoded(Image.new("RGB", (1, 1), "#404040"), format)
        assert distance(decoded(data), np.full((1, 1, 3), 64)) <= 2
        assert distance(ImageTransform(ImageConfig(size=(8, 16)))(data).numpy(), np.full((3, 8, 16), 64)) <= 2


NOT_IMAGES = [
    ("empty", b"", "the image member is empty"),
    ("text", b"a photograph of a cat", "not an image of a known format"),
    ("web page", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "starts with b'<!DOCTYPE ht'"),
    ("svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not an image of a known format"),
    ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image of a known"),
    ("zeros", bytes(5000), "not an image of a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM)"),
    ("magic alone", b"\xff\xd8\xff\xe0", "not an image of a known format"),
    ("icon", encoded(Image.new("RGB", (16, 16)), "ICO"), "not an image of a known format"),
    ("float", encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "no agreed range"),
    ("32 bit", encoded(Image.fromarray(GREY.astype(np.int32) << 20), "TIFF"), "no agreed range"),
    ("32 bit, small", encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "no agreed range"),  # not as 16 bit
    ("no pixels", png_of(0, 5, 8, 0, zlib.compress(b"")), "not an image"),
]


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in NOT_IMAGES], ids=[row[0] for row in NOT_IMAGES])
def test_what_is_no_image_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    message = refused(data)
    assert reason in message
    assert "\n" not in message
    assert len(message) < 200


def test_a_cut_jpeg_is_a_short_reason() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG")
    assert refused(data[:-20]) == "JPEG: Image is incomplete or truncated"  # no place in C++, no stack


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


@pytest.mark.parametrize("name", FILES)
def test_cut_off_anywhere_it_is_a_reject_or_of_full_size(name: str) -> None:
    data = FILES[name]
    whole = 0
    ends = {*range(0, len(data), max(1, len(data) // 150)), *range(len(data) - 12, len(data))}
    for end in sorted(ends):
        try:
            assert sorted(decoded(data[:end]).shape) == [3, 40, 56]
            whole += 1
        except BadImage as error:
            assert str(error)
    assert whole <= len(ends) / 10  # only where next to nothing is missing


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_damaged_bytes_raise_nothing_else(name: str, chance: random.Random, count: int) -> None:
    data = bytearray(FILES[name])
    for _ in range(count):
        # Half of the harm near the beginning, where the headers are.
        data[chance.randrange(chance.choice([min(120, len(data)), len(data)]))] = chance.randrange(256)
    try:
        pixels = decode_rgb(bytes(data), 10**6)
        assert pixels.shape[0] == 3
        assert pixels.shape[1] * pixels.shape[2] <= 10**6
    except BadImage as error:
        assert str(error)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    large = png_of(12_000, 12_000, 1, 0, zlib.compress(b""))
    assert refused(large) == "12000x12000 pixels are more than image.max_pixels = 100,000,000"
    data = encoded(Image.fromarray(RGB), "JPEG")
    assert "more than image.max_pixels = 2,239" in refused(data, 40 * 56 - 1)
    assert decode_rgb(data, 40 * 56).shape == (3, 40, 56)


def transform(data: bytes, **options: Any) -> Tensor:
    return ImageTransform(ImageConfig(**options))(data)


def test_an_image_too_long_to_be_resized_is_refused() -> None:
    line = encoded(Image.new("RGB", (30_000, 1)), "PNG")
    with pytest.raises(BadImage, match=r"256x7680000 pixels after resizing are more than image\.max_pixels"):
        transform(line, size=256)
    assert transform(line, size=256, resize="stretch").shape == (3, 256, 256)
    assert transform(line, size=(1, 256), resize="none").shape == (3, 1, 256)


# Image (height, width), image.size, resize; then the resized image and the first row and column that are kept.
CROPS = [
    ((40, 56), (32, 32), "shortest", (32, 45), (0, 6)),
    ((56, 40), (32, 32), "shortest", (45, 32), (6, 0)),
    ((40, 56), (16, 48), "shortest", (34, 48), (9, 0)),  # the wider side decides
    ((40, 56), (48, 16), "shortest", (48, 67), (0, 25)),
    ((32, 32), (32, 32), "shortest", (32, 32), (0, 0)),
    ((8, 8), (32, 16), "shortest", (32, 32), (0, 8)),  # upwards
    ((3, 500), (8, 8), "shortest", (8, 1333), (0, 662)),
    ((33, 31), (32, 32), "shortest", (34, 32), (1, 0)),
    ((1000, 999), (32, 32), "shortest", (32, 32), (0, 0)),  # 32.03 rows become 32
    ((40, 56), (32, 32), "stretch", (32, 32), (0, 0)),
    ((40, 56), (56, 40), "stretch", (56, 40), (0, 0)),
    ((40, 56), (32, 32), "none", (40, 56), (4, 12)),
    ((41, 57), (32, 32), "none", (41, 57), (4, 12)),  # the odd row and column go at the end
    ((40, 56), (40, 56), "none", (40, 56), (0, 0)),
]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("have", "size", "resize", "resized", "corner"), CROPS)
def test_resizing_and_cropping(
    have: tuple[int, int],
    size: tuple[int, int],
    resize: str,
    resized: tuple[int, int],
    corner: tuple[int, int],
    interpolation: str,
) -> None:
    image = picture(*have)
    result = transform(encoded(Image.fromarray(image), "PNG"), size=size, resize=resize, interpolation=interpolation)
    assert (result.shape, result.dtype, result.is_contiguous()) == ((3, *size), torch.uint8, True)
    whole = transforms.resize(
        torch.from_numpy(image).permute(2, 0, 1), list(resized), InterpolationMode(interpolation), antialias=True
    )
    (top, left), (height, width) = corner, size
    assert distance(result.numpy(), whole[:, top : top + height, left : left + width].numpy()) <= 1


def test_downscaling_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    result = transform(encoded(Image.fromarray(stripes), "PNG"), size=16)
    assert 100 < result.float().mean() < 155
    assert result.float().std() < 40  # without it, every row would be black or white


WRONG_SIZES = [
    ((40, 56), 64, "none", "center", "40x56 pixels after resize=none, not the 64x64 of image.size"),  # too small
    ((40, 56), (40, 64), "none", "center", "40x56 pixels after resize=none"),
    ((40, 56), 32, "none", "none", "40x56 pixels after resize=none"),
    ((40, 56), 32, "shortest", "none", "32x45 pixels after resize=shortest, not the 32x32"),
]


@pytest.mark.parametrize(("have", "size", "resize", "crop", "reason"), WRONG_SIZES)
def test_an_image_that_does_not_fit_is_a_reject(
    have: tuple[int, int], size: Any, resize: str, crop: str, reason: str
) -> None:
    data = encoded(Image.fromarray(picture(*have)), "PNG")
    with pytest.raises(BadImage, match=reason):
        transform(data, size=size, resize=resize, crop=crop)


@pytest.mark.parametrize(("have", "size", "resize"), [((40, 56), (40, 56), "none"), ((40, 56), (7, 9), "stretch")])
def test_without_cropping_an_image_of_the_right_size_is_fine(have: tuple[int, int], size: Any, resize: str) -> None:
    data = encoded(Image.fromarray(picture(*have)), "PNG")
    assert transform(data, size=size, resize=resize, crop="none").shape == (3, *size)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("value", [0, 1, 127, 200, 255])
def test_a_constant_image_stays_constant(value: int, interpolation: str) -> None:
    for have in ((5, 7), (64, 64), (333, 100), (16, 4000)):
        data = encoded(Image.new("RGB", (have[1], have[0]), (value, value, value)), "PNG")
        for resize in ("shortest", "stretch"):
            result = transform(data, size=(24, 40), resize=resize, interpolation=interpolation)
            assert result.unique().tolist() == [value]


def test_a_picture_that_needs_no_resizing_is_left_as_it_is() -> None:
    for resize in ("shortest", "stretch", "none"):
        result = transform(encoded(Image.fromarray(RGB), "PNG"), size=(40, 56), resize=resize)
        assert distance(result.permute(1, 2, 0).numpy(), RGB) == 0


def fingerprints(data: list[bytes], apply: Callable[[bytes], Tensor]) -> list[str]:
    return [hashlib.sha256(apply(item).numpy().tobytes()).hexdigest() for item in data]


def test_threads_decode_what_one_thread_decodes() -> None:
    apply = ImageTransform(ImageConfig(size=(32, 24)))
    data = list(FILES.values()) * 2
    serial = fingerprints(data, apply)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == serial for found in pool.map(lambda _: fingerprints(data, apply), range(8)))


def in_a_child(function: Callable[..., str], *arguments: Any) -> str:
    """What a function returns in a copy of this process, whose limits and modules it may change."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(function(*arguments)))
    child.start()
    theirs.close()
    try:
        assert ours.poll(60)
        return str(ours.recv())
    finally:
        child.kill()
        child.join()


def outcome_without_memory(data: bytes) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**23, resource.RLIM_INFINITY))
    taken = []
    with contextlib.suppress(MemoryError):
        while True:
            taken.append(bytearray(2**22))  # whatever an earlier test has left free within the process
    taken.pop()
    try:
        return str(decode_rgb(data, 10**9).shape)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


LARGE: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {"compress_level": 1}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),  # libjpeg itself runs out
    ("GIF", {}),
    ("TIFF", {}),
    ("PPM", {}),
]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("format", "options"), LARGE, ids=str)
def test_running_out_of_memory_is_the_machines_fault(format: str, options: dict[str, Any]) -> None:
    data = encoded(Image.new("L", (5000, 5000)), format, **options)
    assert in_a_child(outcome_without_memory, data).startswith("MemoryError")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_an_image_of_too_many_pixels_costs_no_memory() -> None:
    bomb = png_of(50_000, 50_000, 1, 0, zlib.compress(bytes(10**6), 9))
    expected = "BadImage: 50000x50000 pixels are more than image.max_pixels = 1,000,000,000"
    assert in_a_child(outcome_without_memory, bomb) == expected


def test_many_files_are_what_each_of_them_is() -> None:
    small = [encoded(Image.fromarray(picture(height, 40)), "JPEG") for height in (30, 40, 50)]
    damaged = small[1][:-2] + small[1][small[1].index(b"\xff\xda") :]  # noticed behind its last row only
    files = [*small, b"text", encoded(Image.fromarray(RGB), "PNG"), damaged, small[0], b"", small[2]]
    apply = ImageTransform(ImageConfig(size=(32, 24)))
    found = apply.many(files)
    assert [isinstance(item, BadImage) for item in found] == [data in (b"text", damaged, b"") for data in files]
    for data, item in zip(files, found, strict=True):
        if isinstance(item, BadImage):
            with pytest.raises(BadImage, match=re.escape(str(item))):
                apply(data)
        else:
            assert torch.equal(item, apply(data))
    assert apply.many([]) == []


def test_a_small_crop_does_not_hold_a_large_image() -> None:
    data = encoded(Image.new("RGB", (900, 900)), "JPEG")
    (pixels,) = ImageTransform(ImageConfig(size=30, resize="none")).many([data])
    assert isinstance(pixels, Tensor)
    assert pixels.untyped_storage().nbytes() == 30 * 30 * 3


def test_decoders_are_part_of_the_identity() -> None:
    names = ("torchvision", "turbojpeg", "nvjpeg")
    identities = [ImageConfig(size=32, decoder=name).identity() for name in names]
    assert [identity["decoder"] for identity in identities] == list(names)


def test_a_jpeg_of_many_scans_is_refused() -> None:
    def with_scans(data: bytes, count: int) -> bytes:
        at, end = data.index(b"\xff\xda"), data.rindex(b"\xff\xd9")
        return data[:at] + data[at:end] * count + data[end:]

    picture_data = Image.fromarray(RGB)
    assert "more than one scan" in refused(with_scans(encoded(picture_data, "JPEG"), 2))
    assert "more than one scan" in refused(with_scans(encoded(picture_data, "JPEG"), 200))
    assert "scans, more than 100" in refused(with_scans(encoded(picture_data, "JPEG", progressive=True), 20))


def outcome_without_codec(module: str) -> str:
    sys.modules[module] = None  # type: ignore[assignment]  # as in a Pillow that was built without it
    try:
        ImageTransform(ImageConfig(size=32))
    except VqtokError as error:
        return f"{error} {isinstance(error, BadImage)}"
    return "no error"


def test_a_missing_codec_is_the_machines_fault() -> None:
    said = in_a_child(outcome_without_codec, "PIL._webp")
    assert said == "this build of Pillow lacks webp; install an official one with pip False"
