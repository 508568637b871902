"""torchvision's `resize`, without the layers of Python above torch's operators: they took as long as the resizing."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.source.images.canvas import Place
from pipeline.source.images.vision import InterpolationMode, transforms

# What torchvision calls, by way of torch.nn.functional.interpolate.
_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "bilinear": torch._C._nn._upsample_bilinear2d_aa,
    "bicubic": torch._C._nn._upsample_bicubic2d_aa,
}


class Scaling:
    """Resizes uint8 images to the very pixels of `resize(..., antialias=True)`.

    Args:
        interpolation: of torchvision's, by its name.
    """

    def __init__(self, interpolation: str) -> None:
        self._filter = InterpolationMode(interpolation)
        self._operator = _OPERATORS.get(interpolation) if _has_uint8_operator(interpolation) else None

    def __call__(self, img_3HW: Tensor, size: tuple[int, int], place: Place | None = None) -> Tensor:
        """An image scaled to (height, width) `size`, another one than its own.

        Args:
            place: where it is written, if that is as large.
        """
        _, height, width = img_3HW.shape
        if self._operator is None or not img_3HW.is_cpu or img_3HW.stride() != (1, 3 * width, 3):
            resized: Tensor = transforms.resize(img_3HW, list(size), self._filter, antialias=True)
            return resized
        # Of one image, torch takes the strides of a plain view for channels first, and would copy it.
        img_13HW = img_3HW.as_strided((1, 3, height, width), (3 * height * width, 1, 3 * width, 3))
        if place is None:
            return self._operator(img_13HW, list(size), False, None, None)[0]
        self._operator(img_13HW, list(size), False, None, None, out=place.img_13HW)
        return place.img_3HW


def _has_uint8_operator(interpolation: str) -> bool:
    """Whether torchvision resizes uint8 on this CPU, and not by way of float32."""
    return interpolation == "bicubic" or torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
