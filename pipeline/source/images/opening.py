"""Image files opened with Pillow: within the limits, and with a reason where they cannot be read. Imports no torch."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from PIL import Image, UnidentifiedImageError

from pipeline.errors import BadImage, VqtokError
from pipeline.source.images.formats import FORMATS, JPEG2000_BOX, JPEG2000_CODESTREAM, is_boxed, opened
from pipeline.source.images.headers import check_header, check_size, webp_size
from pipeline.source.images.memory import failure, require_memory

T = TypeVar("T")

# Measured: 26 for an animated WebP, 23 for a lossless one with transparency, 18 for a progressive JPEG inside a
# TIFF, 14 for most, 3 for a baseline JPEG. Resizing adds less than what decoding has given back by then.
PEAK_BYTES_PER_PIXEL = 28

# The decoders whose lack of memory cannot be told from damage: WebP, progressive JPEG that Pillow reads, JPEG 2000;
# AVIF and HEIF as well.
_HIDE_MEMORY_ERRORS = (b"RIFF", b"\xff\xd8", JPEG2000_CODESTREAM, JPEG2000_BOX)

# What Pillow warns of in damaged files ends in pixels or in a reject; thousands of lines would hide the rest.
warnings.filterwarnings("ignore", module=r"PIL\.")

# The limit is ours, per image and before decoding (`image.max_pixels`); Pillow's own is a global that warns.
Image.MAX_IMAGE_PIXELS = None


class Seen(NamedTuple):
    """An image as its file has it."""

    format: str
    """As Pillow calls it."""
    width: int
    """In pixels, as `height`."""
    height: int


def look_at(data: bytes, max_pixels: int) -> Seen:
    """What an image file is; all of it is decoded, to find damage. Raises as `read_with_pillow`."""
    if not data:
        raise BadImage("the image member is empty")
    check_header(data, max_pixels)
    return read_with_pillow(data, max_pixels, _seen)


def _seen(image: Any) -> Seen:
    seen = Seen(image.format, *image.size)
    image.load()
    return seen


def read_with_pillow(data: bytes, max_pixels: int, read: Callable[[Any], T]) -> T:
    """What `read` makes of an image that Pillow has opened, and that is not too large.

    Raises BadImage for whatever Pillow does not like, MemoryError where the machine, not the image, is at fault.
    """
    width, height = webp_size(data) or (0, 0)
    try:
        with opened(data) as image:
            width, height = image.size
            check_size(width, height, max_pixels)
            return read(image)
    except (VqtokError, MemoryError):
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise BadImage(f"not an image of a known format ({known}); starts with {data[:12]!r}") from None
    except Exception as error:
        # Pillow's readers raise almost anything on damaged files (OSError, SyntaxError, struct.error, ...).
        if data.startswith(_HIDE_MEMORY_ERRORS) or is_boxed(data):
            require_memory(width * height * PEAK_BYTES_PER_PIXEL)
        raise failure(type(error).__name__, error) from error
