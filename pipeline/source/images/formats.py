"""Which kinds of image files there are, told by their contents: those that Pillow reads, some of them with a plugin.

Imports no torch.
"""

import contextlib
import ctypes
import functools
import importlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import AvifImagePlugin, Image, features

from pipeline.errors import BadImage, VqtokError

# Formats whose Pillow readers neither run other programs (EPS) nor leave the file, and tell their size before they
# decode. TGA comes last: it has no mark of its own, so that Pillow tries its header on whatever else is left.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")

JPEG2000_CODESTREAM = b"\xff\x4f\xff\x51"
JPEG2000_BOX = b"\0\0\0\x0cjP  "
JXL_CODESTREAM = b"\xff\x0a"
JXL_BOX = b"\0\0\0\x0cJXL "

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")

# An image has a decoding thread of its own; by default each AVIF would start as many more as there are cores.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# What Pillow logs of a damaged file ends in a reject; without a handler Python would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Plugin:
    """A package that teaches Pillow one more format."""

    name: str
    """Of the format, for users."""
    format: str
    """The same as Pillow calls it."""
    package: str
    """As pip calls it."""
    register: Callable[[], None]
    """Raises ImportError."""


def _register_heif() -> None:
    heif = importlib.import_module("pillow_heif")
    heif.register_heif_opener(thumbnails=False, decode_threads=1)


def _register_jxl() -> None:
    importlib.import_module("pillow_jxl")
    vars(importlib.import_module("pillow_jxl.JpegXLImagePlugin"))["DECODE_THREADS"] = 0


HEIF = Plugin("HEIC", "HEIF", "pillow-heif", _register_heif)
JXL = Plugin("JPEG XL", "JXL", "pillow-jxl-plugin", _register_jxl)


def is_boxed(data: bytes) -> bool:
    """Whether a file has the form of AVIF and HEIF."""
    return data[4:8] == b"ftyp"


def plugin_for(data: bytes) -> Plugin | None:
    """The plugin that an image file needs; None for one that Pillow reads itself, or that is none."""
    if data.startswith((JXL_CODESTREAM, JXL_BOX)):
        return JXL
    return HEIF if is_heif(data) else None


def is_heif(data: bytes) -> bool:
    """Whether a file calls itself HEIF, and not AVIF, which has the same form."""
    return is_boxed(data) and data[8:12] in _HEIF_BRANDS and not _names_avif(data)


def _names_avif(data: bytes) -> bool:
    brands = data[8 : min(int.from_bytes(data[:4]), 256)]
    return is_boxed(data) and any(brand in brands for brand in _AVIF_BRANDS)


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """An image file as Pillow opens it: its size is known, and nothing is decoded yet, but for JPEG XL.

    Raises BadImage where a plugin is missing, VqtokError where this build of Pillow lacks a codec, and what Pillow
    raises.
    """
    _silence_libtiff()
    with Image.open(io.BytesIO(data), formats=_formats_for(data)) as image:
        yield image


def _formats_for(data: bytes) -> tuple[str, ...]:
    plugin = plugin_for(data)
    if plugin is None:
        _require_codec(data)
        return FORMATS
    if not _is_registered(plugin):
        raise BadImage(
            f"{plugin.name}, which Pillow reads only with the package {plugin.package}: pip install {plugin.package}"
        )
    return (plugin.format,)


def _require_codec(data: bytes) -> None:
    """Good images must not become rejects because a build of Pillow is without what official builds have."""
    is_jpeg2000 = data.startswith((JPEG2000_CODESTREAM, JPEG2000_BOX))
    codec = "jpg_2000" if is_jpeg2000 else "avif" if _names_avif(data) else None
    if codec and not features.check(codec):
        raise VqtokError(f"this build of Pillow lacks {codec}, which an image needs; install an official one with pip")


@functools.cache
def _is_registered(plugin: Plugin) -> bool:
    try:
        plugin.register()
    except ImportError:
        return False
    return plugin.format in Image.OPEN


@functools.cache
def _silence_libtiff() -> None:
    """libtiff writes to the terminal what is wrong with a file, beside the error that Pillow raises.

    Its handlers are those of the process, so that they are replaced once and for all: nothing else that is written to
    the terminal is touched. A Pillow without a libtiff that can be reached keeps them.
    """
    with contextlib.suppress(OSError, AttributeError):
        imaging = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__ or "")
        for kind in ("Error", "Warning"):
            for name in (f"TIFFSet{kind}Handler", f"TIFFSet{kind}HandlerExt"):
                set_handler = getattr(imaging, name)  # found in the libraries that it is linked to, too
                set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                set_handler(None)
