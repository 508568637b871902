"""From pixels of any size to those of `image.size`: resizing once, then cutting out each view."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor

from pipeline.config import ImageConfig, RandomViews
from pipeline.errors import BadImage
from pipeline.source.images.canvas import Pixels, Place
from pipeline.source.images.decoding import Picture
from pipeline.source.images.resampling import adm_size, resize_with_adm, resize_with_pillow
from pipeline.source.images.scaling import Scaling
from pipeline.source.images.views import Box, View, views_of

Image = TypeVar("Image", Tensor, Pixels)


class Shot(NamedTuple):
    """The pixels of one view."""

    img_3HW: Tensor
    """uint8, (H, W) = `image.size`, in any memory layout."""
    view: View


class Fitting:
    """Resizes and crops by the keys of an image section, which are looked at once and not for every image."""

    def __init__(self, image: ImageConfig) -> None:
        self._image = image
        self._size = image.size
        self._covered = image.covered
        self._resize = image.resize
        self._with_pillow = image.decoder == "pillow"
        self._filter = image.interpolation
        self._scaling = Scaling(image.interpolation)
        self._draws = isinstance(image.views, RandomViews)
        # Of images of one size they are the same, unless they are drawn.
        self._places = functools.lru_cache(maxsize=256)(functools.partial(views_of, image, ""))

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of `height` and `width` pixels is scaled to before it is cropped.

        Raises BadImage where that would be more than `image.max_pixels`.
        """
        want_height, want_width = self._covered
        if self._resize == "none" or (height, width) == self._covered:
            return height, width
        if self._resize == "adm":
            want_height, want_width = adm_size(height, width, self._covered)
        elif self._resize == "shortest" and self._with_pillow:
            want_height, want_width = _torchvision_size(height, width, self._covered)
        elif self._resize == "shortest":
            scale = max(want_height / height, want_width / width)
            want_height, want_width = max(want_height, round(height * scale)), max(want_width, round(width * scale))
        if want_height * want_width > self._image.max_pixels:
            raise BadImage(f"{want_height}x{want_width} pixels after resizing are more than image.max_pixels")
        return want_height, want_width

    def __call__(self, picture: Picture, key: str, places: Sequence[Place] = ()) -> list[Shot]:
        """The views of an image, which is resized once for all of them.

        Args:
            key: of its sample, which random views depend on.
            places: where they are written, one for each; by default into memory of their own.

        Raises BadImage where the image has another size after resizing and cropping.
        """
        img_3HW = self._resized(picture, places)
        height, width = img_3HW.shape[1:]
        if (height, width) != self._size:
            self._require_room(height, width)
        views = views_of(self._image, key, height, width) if self._draws else self._places(height, width)
        return self._put(img_3HW, views, places) if places else self._cut(img_3HW, views)

    def _require_room(self, height: int, width: int) -> None:
        want_height, want_width = self._size
        if self._image.crop == "none" or height < want_height or width < want_width:
            raise BadImage(
                f"{height}x{width} pixels after resize={self._resize}, not the {want_height}x{want_width} of image.size"
            )

    def _resized(self, picture: Picture, places: Sequence[Place]) -> Tensor:
        size = self.resized_size(picture.height, picture.width)
        if self._resize == "adm" and picture.img_3HW.shape[1:] != size:
            return resize_with_adm(picture.img_3HW, self._covered)
        is_the_view = len(places) == 1 and size == self._size and not self._draws
        return self._scaled(picture.img_3HW, size, places[0] if is_the_view else None)

    def _scaled(self, img_3HW: Tensor, size: tuple[int, int], place: Place | None = None) -> Tensor:
        if img_3HW.shape[1:] == size:
            return img_3HW
        if self._with_pillow:
            return resize_with_pillow(img_3HW, size, self._filter)
        return self._scaling(img_3HW, size, place)

    def _put(self, img_3HW: Tensor, views: Sequence[View], places: Sequence[Place]) -> list[Shot]:
        """What the views show, at their places."""
        if img_3HW is not places[0].img_3HW:
            pixels_3HW = img_3HW.numpy()
            for view, place in zip(views, places, strict=True):
                is_cut_out = not view.flip and view.box[2:] == self._size
                place.put(_part(pixels_3HW, view.box) if is_cut_out else self._shown(img_3HW, view).numpy())
        return [Shot(place.img_3HW, view) for view, place in zip(views, places, strict=True)]

    def _cut(self, img_3HW: Tensor, views: Sequence[View]) -> list[Shot]:
        """What the views show, in memory of their own where they show a small part of the image, which would be kept
        for them."""
        keeps = 2 * len(views) * self._size[0] * self._size[1] > img_3HW[0].numel()
        shots = []
        for view in views:
            img = self._shown(img_3HW, view)
            if not keeps and img.untyped_storage().nbytes() > img.numel():
                img = img.clone()
            shots.append(Shot(img, view))
        return shots

    def _shown(self, img_3HW: Tensor, view: View) -> Tensor:
        """What a view shows, perhaps in the memory of the image."""
        part = self._scaled(_part(img_3HW, view.box), self._size)
        return part.flip(-1) if view.flip else part


def _part(img_3HW: Image, box: Box) -> Image:
    if img_3HW.shape[1:] == box[2:]:
        return img_3HW
    return img_3HW[:, box.top : box.top + box.height, box.left : box.left + box.width]


def _torchvision_size(height: int, width: int, covered: tuple[int, int]) -> tuple[int, int]:
    """As torchvision's Resize, with which published scripts resize Pillow's images, rounds the longer side: down."""
    want_height, want_width = covered
    if want_height * width >= want_width * height:  # the height is what has to grow the most
        return want_height, max(want_width, want_height * width // height)
    return max(want_height, want_width * height // width), want_width
