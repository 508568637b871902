"""Scaled decoding: of a JPEG, libjpeg-turbo makes 1/2, 1/4 or 1/8 of its size for much less than the whole costs.

Pixels differ from those of `torchvision`, for a part of the resizing happens on the coefficients.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from pipeline.errors import BadImage, ConfigError
from pipeline.source.images.decoding import CpuDecoder, Jpeg, Picture, as_picture, examine, pixels_of_jpeg
from pipeline.source.images.orientation import exif_orientation, swaps_sides, turned

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

# libjpeg-turbo knows more scales, but has no fast code for them.
_DIVISORS = (8, 4, 2)

Resized = Callable[[int, int], tuple[int, int]]
"""From (height, width) of an image to those that it will be resized to. May raise BadImage."""


class TurboJpegDecoder(CpuDecoder):
    """Decodes JPEGs at the smallest scale that covers what they are resized to, and all else as `torchvision`.

    Raises ConfigError where simplejpeg is not installed.
    """

    def __init__(self, max_pixels: int, resized: Resized) -> None:
        if simplejpeg is None:
            raise ConfigError(
                "image.decoder: turbojpeg needs the package simplejpeg, which is not installed: "
                "pip install 'vqtok[turbojpeg]', or set image.decoder=torchvision"
            )
        self._max_pixels = max_pixels
        self._resized = resized

    def __call__(self, files: Sequence[bytes]) -> Iterator[Picture | BadImage]:
        """See `Decoder`."""
        for data in files:
            try:
                yield self._decode(data)
            except BadImage as error:
                yield error

    def _decode(self, data: bytes) -> Picture | BadImage:
        found = examine(data, self._max_pixels)
        if isinstance(found, Jpeg):
            return self._scaled(data, found) or as_picture(pixels_of_jpeg(data))
        return as_picture(found)

    def _scaled(self, data: bytes, jpeg: Jpeg) -> Picture | None:
        """None where the whole image is needed, or where torchvision has to judge a damaged one."""
        orientation = exif_orientation(jpeg.exif) if jpeg.exif else 1
        height, width = (jpeg.width, jpeg.height) if swaps_sides(orientation) else (jpeg.height, jpeg.width)
        divisor = _largest_divisor(height, width, self._resized(height, width))
        if divisor == 1:
            return None
        try:
            pixels = simplejpeg.decode_jpeg(
                data,
                "RGB",
                fastupsample=False,
                min_height=-(-jpeg.height // divisor),
                min_width=-(-jpeg.width // divisor),
            )
        except ValueError:
            return None
        return Picture(turned(torch.from_numpy(pixels).permute(2, 0, 1), orientation), height, width)


def _largest_divisor(height: int, width: int, covered: tuple[int, int]) -> int:
    """How much smaller an image may become and still cover (height, width); libjpeg rounds sides up."""
    for divisor in _DIVISORS:
        if -(-height // divisor) >= covered[0] and -(-width // divisor) >= covered[1]:
            return divisor
    return 1
