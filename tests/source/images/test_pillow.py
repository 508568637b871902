"""Kinds of images that Pillow decodes: deep and shallow grey, palettes, transparency, inks, animations."""

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hostile import grey_tiff
from image_files import GREY, RGB, chunk, decoded, distance, oriented, png, png_of
from PIL import Image, ImageOps
from support import encoded, in_a_child

from pipeline.config import ImageConfig
from pipeline.errors import BadImage, VqtokError
from pipeline.source.images.transform import ImageTransform


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
