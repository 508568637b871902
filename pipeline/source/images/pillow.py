"""What Pillow decodes, by the rules of `decoding` or by its own: every kind of image but plain JPEG, or that too."""

from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, features
from torch import Tensor

from pipeline.errors import BadImage, VqtokError

# What the usual formats need of Pillow; all official builds have it.
_CODECS = ("jpg", "zlib", "webp", "libtiff")

# EXIF orientation: how the pixels are to be turned.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# How far apart the shades of PNGs of few bits are, by Pillow's name for them.
_SPREAD = {"L;2": 85, "L;4": 17}

# Compressions of TIFF, by the value of their tag, and the first Pillow whose official builds decode them.
_COMPRESSION = 259
_DECODED_SINCE = {50000: ("Zstandard", 12)}

# TIFF tags, and the only number of bits below 16 of which Pillow makes 16-bit grey.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_TWELVE_BITS = (12,)


def require_codecs() -> None:
    """Raise VqtokError where Pillow lacks a codec: good images would become rejects."""
    missing = [codec for codec in _CODECS if not features.check(codec)]
    if missing:
        raise VqtokError(f"this build of Pillow lacks {', '.join(missing)}; install an official one with pip")


def decode_with_pillow(image: Any) -> Tensor:
    """Pixels uint8 [3, height, width] of an image that Pillow has opened.

    Raises BadImage, VqtokError for an image that only a later Pillow can decode, or what Pillow raises.
    """
    _scale_transparent_shade(image)
    _load(image)
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise BadImage("floating-point, signed and 32-bit pixels have no agreed range; convert them to 8 bits")
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        image = _from_16_bits(image)
    image = _upright(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _rgb(image)


def convert_with_pillow(image: Any) -> Tensor:
    """The same without any rule but Pillow's: what `image.convert("RGB")` gives. Raises as `decode_with_pillow`."""
    _load(image)
    return _rgb(image)


def _rgb(image: Any) -> Tensor:
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _load(image: Any) -> None:
    try:
        image.load()
    except OSError:
        _require_compression(image)
        raise


def _require_compression(image: Any) -> None:
    """A good image must not become a reject because Pillow is old."""
    found = _DECODED_SINCE.get(image.tag_v2.get(_COMPRESSION)) if image.format == "TIFF" else None
    if found and int(PIL.__version__.split(".")[0]) < found[1]:
        raise VqtokError(
            f"a TIFF image is compressed with {found[0]}, which Pillow {PIL.__version__} does not decode: install "
            f"pillow>={found[1]}, then run again"
        )


def _scale_transparent_shade(image: Any) -> None:
    """Pillow spreads grey of 2 and 4 bits over 8, but not the shade that is transparent."""
    shade = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(shade, int):
        image.info["transparency"] = shade * _SPREAD.get(image.tile[0][3], 1)


def _from_16_bits(image: Any) -> Any:
    """Grey of 12 or 16 bits as mode L: the largest value becomes 255. (`convert` would clip at 255.)"""
    grey = np.asarray(image).astype(np.int32)
    tags = image.tag_v2 if image.format == "TIFF" else {}
    largest = 4095 if tags.get(_BITS_PER_SAMPLE) == _TWELVE_BITS else 65535
    transparent = grey == image.info.get("transparency", -1)
    grey *= 255
    grey += largest // 2
    grey //= largest
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # which Pillow heeds up to 8 bits only
        grey = 255 - grey
    grey[transparent] = 255
    scaled = Image.fromarray(grey.astype(np.uint8))
    scaled.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return scaled


def _upright(image: Any) -> Any:
    """Turned as EXIF says. Damaged EXIF is no reason to lose the picture, as with the JPEG that torchvision reads."""
    if image.format == "JXL" and not image.jpeg:
        return image  # its own header counts, and libjxl has obeyed it
    try:
        orientation = image.getexif().get(_ORIENTATION)
        turn = _TURNS.get(orientation)
    except MemoryError:
        raise
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)
