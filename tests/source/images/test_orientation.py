"""Turning pixels as EXIF says: against Pillow, which turns images of its own."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from support import picture

from pipeline.source.images.orientation import exif_orientation, swaps_sides, turned

PIXELS = picture(5, 7)


def exif(value: object) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = value
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_pillow_turns_them(orientation: int) -> None:
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(image))
    found = turned(torch.from_numpy(PIXELS).permute(2, 0, 1), orientation)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)
    assert swaps_sides(orientation) == (expected.shape[:2] == (7, 5))
    assert exif_orientation(exif(orientation).tobytes()) == orientation


@pytest.mark.parametrize(
    "data", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", exif(0).tobytes(), exif(9).tobytes()]
)
def test_what_says_nothing_means_upright(data: bytes) -> None:
    assert exif_orientation(data) == 1
