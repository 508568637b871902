"""Turning images upright as their EXIF says."""

from collections.abc import Callable

from PIL import Image
from torch import Tensor

_ORIENTATION = 0x0112

# From the pixels as stored, [..., height, width], to upright ones; 1 is upright.
_TURNS: dict[int, Callable[[Tensor], Tensor]] = {
    2: lambda img: img.flip(-1),
    3: lambda img: img.flip(-1, -2),
    4: lambda img: img.flip(-2),
    5: lambda img: img.transpose(-1, -2),
    6: lambda img: img.transpose(-1, -2).flip(-1),
    7: lambda img: img.transpose(-1, -2).flip(-1, -2),
    8: lambda img: img.transpose(-1, -2).flip(-2),
}


# Those that exchange height and width.
_QUARTER_TURNS = (5, 6, 7, 8)


def exif_orientation(exif: bytes) -> int:
    """What an EXIF segment says, 1 to 8. Damaged EXIF is no reason to lose the picture: it is taken as upright, 1."""
    found = Image.Exif()
    try:
        found.load(exif)
        orientation = found.get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:
        return 1
    return orientation if orientation in _TURNS else 1


def turned(img_3HW: Tensor, orientation: int) -> Tensor:
    """An image as stored, upright: [3, H, W], or [3, W, H] for a quarter turn."""
    return _TURNS[orientation](img_3HW) if orientation in _TURNS else img_3HW


def swaps_sides(orientation: int) -> bool:
    """Whether height and width change places when the image is turned."""
    return orientation in _QUARTER_TURNS
