"""Which images a network with square patches takes.

Shape letters: B images of H x W pixels, h and w grid sides.
"""

from torch import Tensor

from pipeline.errors import TokenizerError


def whole_grid(height: int, width: int, factor: int) -> tuple[int, int]:
    """Token rows and columns (h, w) of an image of so many pixels, `factor` of them per token along each side.

    Raises TokenizerError when a side is not a positive multiple of the factor.
    """
    if min(height, width) < factor or height % factor or width % factor:
        raise TokenizerError(
            f"an image of {height} x {width} pixels has no whole token grid: both sides must be multiples of {factor}"
        )
    return height // factor, width // factor


def check_images(img_B3HW: Tensor) -> None:
    """Raise TokenizerError unless images are [B, 3, H, W] and floats."""
    if img_B3HW.dim() != 4 or img_B3HW.shape[1] != 3:
        raise TokenizerError(f"images must be [B, 3, H, W], not {list(img_B3HW.shape)}")
    if not img_B3HW.is_floating_point():
        raise TokenizerError(f"images must be normalised floats, not {img_B3HW.dtype}: see normalize_pixels")
