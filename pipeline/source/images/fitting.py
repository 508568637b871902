"""From pixels of any size to those of `image.size`: resizing, then cropping."""

from torch import Tensor

from pipeline.config import ImageConfig
from pipeline.errors import BadImage
from pipeline.source.images.decoding import Picture
from pipeline.source.images.vision import InterpolationMode, transforms


def resized_size(image: ImageConfig, height: int, width: int) -> tuple[int, int]:
    """(height, width) that an image of `height` and `width` pixels is scaled to before it is cropped.

    Raises BadImage where that would be more than `image.max_pixels`.
    """
    if image.resize == "none" or (height, width) == image.size:
        return height, width
    want_height, want_width = image.size
    if image.resize == "shortest":
        scale = max(want_height / height, want_width / width)
        want_height, want_width = max(want_height, round(height * scale)), max(want_width, round(width * scale))
    if want_height * want_width > image.max_pixels:
        raise BadImage(f"{want_height}x{want_width} pixels after resizing are more than image.max_pixels")
    return want_height, want_width


def fit(picture: Picture, image: ImageConfig) -> Tensor:
    """Pixels uint8 [3, H, W] with (H, W) = `image.size`, in any memory layout.

    Raises BadImage where the image has another size after resizing and cropping.
    """
    img_3HW = picture.img_3HW
    height, width = resized_size(image, picture.height, picture.width)
    if img_3HW.shape[1:] != (height, width):
        img_3HW = transforms.resize(img_3HW, [height, width], InterpolationMode(image.interpolation), antialias=True)
    if (height, width) == image.size:
        return img_3HW
    want_height, want_width = image.size
    if image.crop == "none" or height < want_height or width < want_width:
        raise BadImage(
            f"{height}x{width} pixels after resize={image.resize}, not the {want_height}x{want_width} of image.size"
        )
    top, left = (height - want_height) // 2, (width - want_width) // 2
    cropped = img_3HW[:, top : top + want_height, left : left + want_width]
    # A small part must not keep a large image in memory.
    return cropped if 2 * cropped.numel() > img_3HW.numel() else cropped.clone()
