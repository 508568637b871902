"""From the bytes of an image file to the pixels that are encoded.

Rules, since what changes pixels changes tokens: the first frame of an animation; EXIF orientation applied;
grey and palette become RGB; 12- and 16-bit grey is scaled to 8 bits; transparency is laid over white; ICC
profiles are ignored. RGB and grey JPEG files are decoded by torchvision, everything else by Pillow.

Decoding takes at most PEAK_BYTES_PER_PIXEL for each pixel of an image, and nothing where that is more than
`image.max_pixels`.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.config import ImageConfig
from pipeline.errors import BadImage, VqtokError
from pipeline.source.headers import check_header, check_size, webp_size

# Formats whose Pillow readers neither run other programs (EPS) nor leave the file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

# What these formats need of Pillow; all official builds have it.
_CODECS = ("jpg", "zlib", "webp", "libtiff")

# Measured: 26 for an animated WebP, 23 for a lossless one with transparency, 18 for a progressive JPEG inside a
# TIFF, 14 for most, 3 for a baseline JPEG. Resizing adds less than what decoding has given back by then.
PEAK_BYTES_PER_PIXEL = 28

# How Pillow, libjpeg and torch say that the machine is out of memory, where they raise no MemoryError.
_OUT_OF_MEMORY = ("out of memory", "insufficient memory", "allocate")

# The decoders whose lack of memory cannot be told from damage: WebP, and progressive JPEG that Pillow reads.
_HIDE_MEMORY_ERRORS = (b"RIFF", b"\xff\xd8")

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

# TIFF tags, and the only number of bits below 16 of which Pillow makes 16-bit grey.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_TWELVE_BITS = (12,)

# What Pillow warns of in damaged files ends in pixels or in a reject; thousands of lines would hide the rest.
warnings.filterwarnings("ignore", module=r"PIL\.")

# The limit is ours, per image and before decoding (`image.max_pixels`); Pillow's own is a global that warns.
Image.MAX_IMAGE_PIXELS = None


class ImageTransform:
    """Decodes, resizes and crops: bytes → uint8 [3, H, W] with (H, W) = `image.size`.

    Raises VqtokError where Pillow lacks a codec: good images would become rejects.
    """

    def __init__(self, image: ImageConfig) -> None:
        missing = [codec for codec in _CODECS if not features.check(codec)]
        if missing:
            raise VqtokError(f"this build of Pillow lacks {', '.join(missing)}; install an official one with pip")
        self._image = image
        self._interpolation = InterpolationMode(image.interpolation)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self._image.size

    def __call__(self, data: bytes) -> Tensor:
        """Pixels uint8 [3, H, W]. Raises BadImage with the reason, MemoryError where the machine has too little."""
        with memory_errors():
            return self._fit(decode_rgb(data, self._image.max_pixels))

    def _fit(self, img_3HW: Tensor) -> Tensor:
        height, width = img_3HW.shape[-2:]
        want_height, want_width = self._image.size
        if self._image.resize == "stretch":
            img_3HW = self._resize(img_3HW, want_height, want_width)
        elif self._image.resize == "shortest":
            scale = max(want_height / height, want_width / width)
            img_3HW = self._resize(
                img_3HW, max(want_height, round(height * scale)), max(want_width, round(width * scale))
            )
        height, width = img_3HW.shape[-2:]
        if self._image.crop == "center" and height >= want_height and width >= want_width:
            top, left = (height - want_height) // 2, (width - want_width) // 2
            img_3HW = img_3HW[:, top : top + want_height, left : left + want_width]
        if tuple(img_3HW.shape[-2:]) != self._image.size:
            raise BadImage(
                f"{height}x{width} pixels after resize={self._image.resize}, not the {want_height}x{want_width} "
                "of image.size"
            )
        return img_3HW.contiguous()

    def _resize(self, img_3HW: Tensor, height: int, width: int) -> Tensor:
        if height * width > self._image.max_pixels:
            raise BadImage(f"{height}x{width} pixels after resizing are more than image.max_pixels")
        resized: Tensor = transforms.resize(img_3HW, [height, width], self._interpolation, antialias=True)
        return resized


def decode_rgb(data: bytes, max_pixels: int) -> Tensor:
    """Decode an image file into uint8 [3, height, width] of any size.

    Raises BadImage for anything that is not a whole image of a known format and at most `max_pixels`, and
    MemoryError where the machine, not the image, is at fault.
    """
    if not data:
        raise BadImage("the image member is empty")
    check_header(data, max_pixels)
    width, height = webp_size(data) or (0, 0)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            check_size(width, height, max_pixels)
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                return _decode_jpeg(data)
            return _decode_with_pillow(image)
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImage(f"not an image of a known format ({', '.join(FORMATS)}); starts with {data[:12]!r}") from None
    except Exception as error:
        # Pillow's readers raise almost anything on damaged files (OSError, SyntaxError, struct.error, ...).
        if data.startswith(_HIDE_MEMORY_ERRORS):
            _require_memory(width * height * PEAK_BYTES_PER_PIXEL)
        raise _failure(type(error).__name__, error) from error


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn the RuntimeError by which torch says that the machine is out of memory into a MemoryError."""
    try:
        yield
    except RuntimeError as error:
        failure = _failure("", error)
        if isinstance(failure, MemoryError):
            raise failure from error
        raise


def _failure(kind: str, error: Exception) -> Exception:
    """BadImage, or MemoryError where the message blames the machine."""
    # torch puts the place in C++ before its message and a stack behind it.
    reason = re.sub(r"^\w+, \S+:\d+, ", "", str(error).partition("\n")[0])
    if any(words in reason.lower() for words in _OUT_OF_MEMORY):
        return MemoryError(reason)
    return BadImage(f"{kind}: {reason}")


def _require_memory(size: int) -> None:
    """Raise MemoryError where `size` bytes cannot be had. They are not touched, so this costs next to nothing."""
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        raise MemoryError(f"decoding an image may take {size:,} bytes; give the process more memory") from None


def _decode_jpeg(data: bytes) -> Tensor:
    # Copied, for torch warns about tensors over read-only memory.
    encoded = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    try:
        pixels: Tensor = decode_jpeg(encoded, ImageReadMode.RGB, apply_exif_orientation=True)
        return pixels
    except RuntimeError as error:
        raise _failure("JPEG", error) from error


def _decode_with_pillow(image: Any) -> Tensor:
    _scale_transparent_shade(image)
    image.load()
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise BadImage("floating-point, signed and 32-bit pixels have no agreed range; convert them to 8 bits")
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        image = _from_16_bits(image)
    image = _upright(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


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
    try:
        orientation = image.getexif().get(_ORIENTATION)
        turn = _TURNS.get(orientation)
    except MemoryError:
        raise
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)
