"""Resizing and cropping."""

from typing import Any

import numpy as np
import pytest
import torch
from image_files import RGB, distance
from PIL import Image
from support import encoded, picture
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.config import ImageConfig
from pipeline.errors import BadImage
from pipeline.source.images.transform import ImageTransform


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


def test_a_small_crop_does_not_hold_a_large_image() -> None:
    data = encoded(Image.new("RGB", (900, 900)), "JPEG")
    (shots,) = ImageTransform(ImageConfig(size=30, resize="none")).many([data], [""])
    assert isinstance(shots, list)
    assert shots[0].img_3HW.untyped_storage().nbytes() == 30 * 30 * 3
