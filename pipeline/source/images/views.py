"""Which parts of a resized image its views are. Pure: numbers in, numbers out.

Random views are the same whatever process, machine or version draws them: from the 32 bytes of
sha256(f"{seed}/{number}/{key}" in UTF-8), number counting views from 0, come four words w of 64 bits, little-endian.
A word picks one of n possibilities, w * n // 2**64, in whole numbers:

    word 0    the shorter side of the crop, among low .. high, low = round(smallest scale * side of the largest crop)
    word 1    the first row, among all at which the crop lies within the image
    word 2    the first column
    word 3    whether the view is mirrored (1 of 2)
"""

import hashlib
import struct
from typing import NamedTuple

from pipeline.config import ImageConfig, RandomViews


class Box(NamedTuple):
    """A rectangle of a resized image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class View(NamedTuple):
    """One view of an image: scaled to `image.size` where the box has another size, then mirrored."""

    box: Box
    flip: bool = False
    """Whether it is mirrored left to right."""


def views_of(image: ImageConfig, key: str, height: int, width: int) -> list[View]:
    """The views of an image that was resized to `height` and `width`, which are at least those of `image.size`.

    Args:
        key: of its sample, which random views depend on.
    """
    if isinstance(image.views, RandomViews):
        return [_random_view(image, image.views, number, key, height, width) for number in range(image.views.random)]
    if image.views == "ten_crop":
        return _ten_crops(image, height, width)
    centre = View(_centre(image, image.size, height, width))
    return [centre, View(centre.box, flip=True)] if image.views == "flip" else [centre]


def _centre(image: ImageConfig, size: tuple[int, int], height: int, width: int) -> Box:
    """The middle of an image. ADM leaves the odd row at the end, and so do our own resizes; with Pillow we do as the
    scripts that crop its images with torchvision."""
    margin = _torchvision_margin if image.decoder == "pillow" and image.resize != "adm" else _margin
    return Box(margin(height, size[0]), margin(width, size[1]), *size)


def _margin(whole: int, part: int) -> int:
    return (whole - part) // 2


def _torchvision_margin(whole: int, part: int) -> int:
    """That of torchvision's CenterCrop: half of an odd number is rounded to the even neighbour."""
    return round((whole - part) / 2)


def _ten_crops(image: ImageConfig, height: int, width: int) -> list[View]:
    """Those of torchvision's TenCrop, in its order: four corners and the centre, then those of the mirror image."""
    square = _centre(image, image.covered, height, width)
    crop_height, crop_width = image.size
    bottom, right = square.height - crop_height, square.width - crop_width
    middle = _torchvision_margin(square.height, crop_height), _torchvision_margin(square.width, crop_width)
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), middle]
    # What lies left in the mirror image lies right in the image.
    places = [*((at, False) for at in corners), *(((top, right - left), True) for top, left in corners)]
    return [
        View(Box(square.top + top, square.left + left, crop_height, crop_width), flip) for (top, left), flip in places
    ]


def _random_view(image: ImageConfig, views: RandomViews, number: int, key: str, height: int, width: int) -> View:
    words = struct.unpack("<4Q", hashlib.sha256(f"{views.seed}/{number}/{key}".encode()).digest())
    covered = image.covered
    low, high = (max(round(share * min(covered)), 1) for share in views.scale)
    side = low + _pick(words[0], high - low + 1)
    crop_height, crop_width = (max(round(edge * side / min(covered)), 1) for edge in covered)
    top, left = _pick(words[1], height - crop_height + 1), _pick(words[2], width - crop_width + 1)
    return View(Box(top, left, crop_height, crop_width), views.flip and bool(_pick(words[3], 2)))


def _pick(word: int, count: int) -> int:
    """A number below `count` for a random word of 64 bits."""
    return word * count >> 64
