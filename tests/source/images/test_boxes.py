"""Sizes in front of pixels."""

import struct

import numpy as np
import pytest
from PIL import Image
from support import encoded

from pipeline.source.images.boxes import jpeg2000_header, jxl_size

SIDES = [(1, 1), (8, 8), (32, 24), (256, 256), (255, 17), (640, 480), (513, 100)]


@pytest.mark.parametrize(("width", "height"), SIDES)
def test_jpeg_2000_says_its_size(width: int, height: int) -> None:
    for options in ({}, {"no_jp2": True}, {"tile_size": (16, 16)}):
        data = encoded(Image.new("RGB", (width, height)), "JPEG2000", num_resolutions=1, **options)
        tiles = -(-width // 16) * -(-height // 16) if "tile_size" in options else 1
        assert jpeg2000_header(data) == (width, height, 3, tiles)


@pytest.mark.parametrize(("width", "height"), SIDES)
@pytest.mark.parametrize("boxed", [False, True])
def test_jpeg_xl_says_its_size(width: int, height: int, boxed: bool) -> None:
    pytest.importorskip("pillow_jxl")
    data = encoded(Image.new("RGB", (width, height)), "JXL", use_container=boxed)
    assert jxl_size(data) == (width, height)


def bits(*fields: tuple[int, int]) -> bytes:
    """(value, bits) from the lowest bit on."""
    value = at = 0
    for number, count in fields:
        value |= number << at
        at += count
    return b"\xff\x0a" + value.to_bytes(14, "little")


JXL_HEADERS = [
    (bits((1, 1), (31, 5), (1, 3)), (256, 256)),  # both in steps of 8, square
    (bits((1, 1), (31, 5), (0, 3), (0, 5)), (8, 256)),
    (bits((0, 1), (0, 2), (479, 9), (3, 3)), (640, 480)),  # 4:3
    (bits((0, 1), (1, 2), (1079, 13), (5, 3)), (1920, 1080)),  # 16:9
    (bits((0, 1), (3, 2), (2**30 - 1, 30), (0, 3), (3, 2), (2**30 - 1, 30)), (2**30, 2**30)),
    (bits((0, 1), (2, 2), (99_999, 18), (0, 3), (0, 2), (4, 9)), (5, 100_000)),
]


@pytest.mark.parametrize(("data", "size"), JXL_HEADERS)
def test_each_form_of_a_jpeg_xl_size(data: bytes, size: tuple[int, int]) -> None:
    assert jxl_size(data) == size
    box = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
    assert jxl_size(box + struct.pack(">I", 8 + len(data)) + b"jxlc" + data) == size
    assert jxl_size(box + struct.pack(">I", 12 + len(data)) + b"jxlp\0\0\0\0" + data) == size


def test_other_files_have_no_such_size() -> None:
    random = np.random.default_rng(0)
    for data in (b"", b"\xff\x0a", b"\0\0\0\x0cjP  ", encoded(Image.new("RGB", (9, 9)), "PNG"), random.bytes(100)):
        assert jpeg2000_header(data) is None
        assert jxl_size(data) is None
