"""Resizing with Pillow: the pixels that scripts get which resize Pillow's images.

torch resizes uint8 tensors with filters of the same names, and makes other pixels of them: one in some hundred differs
by 1, which is another token now and then.
"""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def resize_with_pillow(img_3HW: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """uint8 pixels on the CPU scaled to (height, width) `size`, channels last in memory."""
    return _pixels(_scaled(_image(img_3HW), size, interpolation))


def adm_size(height: int, width: int, covered: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that ADM scales an image to, so that it just covers (height, width) `covered`."""
    *_, (height, width) = _halves(height, width, covered)
    scale = max(covered[0] / height, covered[1] / width)
    return max(round(height * scale), covered[0]), max(round(width * scale), covered[1])


def resize_with_adm(img_3HW: Tensor, covered: tuple[int, int]) -> Tensor:
    """uint8 pixels on the CPU scaled by ADM's rule (Dhariwal and Nichol, arXiv 2105.05233), which LlamaGen follows.

    As long as both sides are at least twice what is to be covered they are halved with a box filter, odd ones rounded
    down; then a bicubic filter does the rest.
    """
    height, width = img_3HW.shape[1:]
    size = adm_size(height, width, covered)
    image = _image(img_3HW)
    for half in list(_halves(height, width, covered))[1:]:
        image = _scaled(image, half, "box")
    return _pixels(_scaled(image, size, "bicubic"))


def _halves(height: int, width: int, covered: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The sizes of an image that is halved, the first of which is its own."""
    yield height, width
    while height >= 2 * covered[0] and width >= 2 * covered[1]:
        height, width = height // 2, width // 2
        yield height, width


def _scaled(image: Image.Image, size: tuple[int, int], interpolation: str) -> Image.Image:
    height, width = size
    return image.resize((width, height), Image.Resampling[interpolation.upper()])


def _image(img_3HW: Tensor) -> Image.Image:
    return Image.fromarray(img_3HW.permute(1, 2, 0).contiguous().numpy())


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
