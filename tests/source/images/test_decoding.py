"""From the bytes of image files of every kind to RGB pixels, or a reason why not."""

import io
import random
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import FILES, GREY, RGB, decoded, distance, png_of, refused
from PIL import Image
from support import encoded, examples

from pipeline.config import ImageConfig
from pipeline.errors import BadImage
from pipeline.source.images.decoding import decode_rgb
from pipeline.source.images.transform import ImageTransform


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
    (
        "zeros",
        bytes(5000),
        "not an image of a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF, JPEG2000, TGA)",
    ),
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
@settings(max_examples=examples(60))
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
