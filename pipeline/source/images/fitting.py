"""From pixels of any size to those of `image.size`: resizing once, then cutting out each view."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from pipeline.config import ImageConfig
from pipeline.errors import BadImage
from pipeline.source.images.decoding import Picture
from pipeline.source.images.resampling import adm_size, resize_with_adm, resize_with_pillow
from pipeline.source.images.views import View, views_of
from pipeline.source.images.vision import InterpolationMode, transforms


class Shot(NamedTuple):
    """The pixels of one view."""

    img_3HW: Tensor
    """uint8, (H, W) = `image.size`, in any memory layout."""
    view: View


def resized_size(image: ImageConfig, height: int, width: int) -> tuple[int, int]:
    """(height, width) that an image of `height` and `width` pixels is scaled to before it is cropped.

    Raises BadImage where that would be more than `image.max_pixels`.
    """
    want_height, want_width = image.covered
    if image.resize == "none" or (height, width) == image.covered:
        return height, width
    if image.resize == "adm":
        want_height, want_width = adm_size(height, width, image.covered)
    elif image.resize == "shortest" and image.decoder == "pillow":
        want_height, want_width = _torchvision_size(height, width, image.covered)
    elif image.resize == "shortest":
        scale = max(want_height / height, want_width / width)
        want_height, want_width = max(want_height, round(height * scale)), max(want_width, round(width * scale))
    if want_height * want_width > image.max_pixels:
        raise BadImage(f"{want_height}x{want_width} pixels after resizing are more than image.max_pixels")
    return want_height, want_width


def _torchvision_size(height: int, width: int, covered: tuple[int, int]) -> tuple[int, int]:
    """As torchvision's Resize, with which published scripts resize Pillow's images, rounds the longer side: down."""
    want_height, want_width = covered
    if want_height * width >= want_width * height:  # the height is what has to grow the most
        return want_height, max(want_width, want_height * width // height)
    return max(want_height, want_width * height // width), want_width


def fit(picture: Picture, image: ImageConfig, key: str) -> list[Shot]:
    """The views of an image, which is resized once for all of them.

    Args:
        key: of its sample, which random views depend on.

    Raises BadImage where the image has another size after resizing and cropping.
    """
    img_3HW = _resized(picture, image)
    height, width = img_3HW.shape[1:]
    want_height, want_width = image.size
    fits = image.crop != "none" and height >= want_height and width >= want_width
    if not fits and (height, width) != image.size:
        raise BadImage(
            f"{height}x{width} pixels after resize={image.resize}, not the {want_height}x{want_width} of image.size"
        )
    return _cut(img_3HW, views_of(image, key, height, width), image)


def _resized(picture: Picture, image: ImageConfig) -> Tensor:
    size = resized_size(image, picture.height, picture.width)
    if image.resize == "adm" and picture.img_3HW.shape[1:] != size:
        return resize_with_adm(picture.img_3HW, image.covered)
    return _scaled(picture.img_3HW, size, image)


def _scaled(img_3HW: Tensor, size: tuple[int, int], image: ImageConfig) -> Tensor:
    if img_3HW.shape[1:] == size:
        return img_3HW
    if image.decoder == "pillow":
        return resize_with_pillow(img_3HW, size, image.interpolation)
    resized: Tensor = transforms.resize(img_3HW, list(size), InterpolationMode(image.interpolation), antialias=True)
    return resized


def _cut(img_3HW: Tensor, views: Sequence[View], image: ImageConfig) -> list[Shot]:
    """What the views show."""
    # Small parts must not keep a large image in memory.
    keeps = 2 * len(views) * image.size[0] * image.size[1] > img_3HW[0].numel()
    shots = []
    for view in views:
        top, left, height, width = view.box
        part = _scaled(img_3HW[:, top : top + height, left : left + width], image.size, image)
        if view.flip:
            part = part.flip(-1)
        elif not keeps and part.untyped_storage().nbytes() > part.numel():
            part = part.clone()
        shots.append(Shot(part, view))
    return shots
