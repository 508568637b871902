"""From the bytes of an image file to RGB pixels of any size.

Rules, since what changes pixels changes tokens: the first frame of an animation; EXIF orientation applied;
grey and palette become RGB; 12- and 16-bit grey is scaled to 8 bits; transparency is laid over white; ICC
profiles are ignored. RGB and grey JPEG files are decoded by torchvision, everything else by Pillow; with
`image.decoder: pillow` these too, and with `image.plain` by Pillow's own rules.

Decoding takes at most PEAK_BYTES_PER_PIXEL for each pixel of an image, and nothing where that is more than
`image.max_pixels`.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.errors import BadImage
from pipeline.source.images.headers import check_header, check_size
from pipeline.source.images.jpeg_header import jpeg_header
from pipeline.source.images.memory import failure
from pipeline.source.images.opening import read_with_pillow
from pipeline.source.images.pillow import convert_with_pillow, decode_with_pillow
from pipeline.source.images.vision import ImageReadMode, cpu_jpeg

_RGB = ImageReadMode.RGB.value

# Decoders only read what they are given.
warnings.filterwarnings("ignore", message="The given buffer is not writable")


class Picture(NamedTuple):
    """An image that was decoded, upright."""

    img_3HW: Tensor
    """uint8 RGB, perhaps at a smaller scale than the file's."""
    height: int
    """Of the whole image in pixels, as `width`."""
    width: int


class Jpeg(NamedTuple):
    """A JPEG in RGB or grey, looked at but not decoded yet."""

    width: int
    """In pixels, not turned, as `height`."""
    height: int
    exif: bytes
    rgb: bool
    """Whether the pixels may be stored as RGB and not as the usual YCbCr."""


class Decoder(Protocol):
    """One of the values of `image.decoder`."""

    device: torch.device
    """Where the pixels are."""
    task_bytes: int
    """How much of encoded images is best given at once."""

    @property
    def task_files(self) -> int | None:
        """How many of them; None where few will do."""

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """Surrounds decoding and all that is done to the pictures in the same thread."""

    def __call__(self, files: Sequence[bytes]) -> Iterator[Picture | BadImage]:
        """One picture for each file in their order, or why there is none.

        Raises MemoryError where the machine has too little.
        """


class CpuDecoder:
    """What decoders on the CPU have in common."""

    device = torch.device("cpu")
    task_bytes = 2**16
    task_files = None

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """See `Decoder`."""
        return contextlib.nullcontext()


class TorchvisionDecoder(CpuDecoder):
    """The default."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def __call__(self, files: Sequence[bytes]) -> Iterator[Picture | BadImage]:
        """See `Decoder`."""
        for data in files:
            yield as_picture(self._decoded(data))

    def _decoded(self, data: bytes) -> Tensor | BadImage:
        # Most files are such, and looked at once.
        header = jpeg_header(data)
        if header is not None and header.one_scan and header.width * header.height <= self._max_pixels:
            return pixels_of_jpeg(data)
        return decoded(data, self._max_pixels)


class PillowDecoder(CpuDecoder):
    """Decodes everything with Pillow.

    Args:
        plain: see `image.plain`.
    """

    def __init__(self, max_pixels: int, plain: bool) -> None:
        self._max_pixels = max_pixels
        self._read = convert_with_pillow if plain else decode_with_pillow

    def __call__(self, files: Sequence[bytes]) -> Iterator[Picture | BadImage]:
        """See `Decoder`."""
        for data in files:
            try:
                yield as_picture(self._decode(data))
            except BadImage as error:
                yield error

    def _decode(self, data: bytes) -> Tensor:
        _require_bytes(data)
        check_header(data, self._max_pixels)
        return read_with_pillow(data, self._max_pixels, self._read)


def as_picture(found: Tensor | BadImage) -> Picture | BadImage:
    """A picture of unchanged scale."""
    if isinstance(found, BadImage):
        return found
    _, height, width = found.shape
    return Picture(found, height, width)


def decoded(data: bytes, max_pixels: int) -> Tensor | BadImage:
    """`decode_rgb` that hands back the reason instead of raising it."""
    try:
        return decode_rgb(data, max_pixels)
    except BadImage as error:
        return error


def decode_rgb(data: bytes, max_pixels: int) -> Tensor:
    """Decode an image file into uint8 [3, height, width] of any size.

    Raises BadImage for anything that is not a whole image of a known format and at most `max_pixels`, and
    MemoryError where the machine, not the image, is at fault.
    """
    found = examine(data, max_pixels)
    pixels = pixels_of_jpeg(data) if isinstance(found, Jpeg) else found
    if isinstance(pixels, BadImage):
        raise pixels
    return pixels


def examine(data: bytes, max_pixels: int) -> Jpeg | Tensor:
    """What a JPEG in RGB or grey says of itself; the pixels, as `decode_rgb`, of any other image."""
    _require_bytes(data)
    header = jpeg_header(data)
    if header is None or not header.one_scan:
        check_header(data, max_pixels)
    if header is not None:
        check_size(header.width, header.height, max_pixels)
        return Jpeg(header.width, header.height, b"", header.rgb)
    return read_with_pillow(data, max_pixels, _jpeg_or_pixels)


def _require_bytes(data: bytes) -> None:
    if not data:
        raise BadImage("the image member is empty")


def _jpeg_or_pixels(image: Any) -> Jpeg | Tensor:
    if image.format == "JPEG" and image.mode in ("RGB", "L"):
        return Jpeg(image.width, image.height, image.info.get("exif", b""), _may_be_rgb(image))
    return decode_with_pillow(image)


def _may_be_rgb(image: Any) -> bool:
    return image.info.get("adobe_transform") == 0 or bytes(layer[0] for layer in image.layer) == b"RGB"


def pixels_of_jpeg(data: bytes) -> Tensor | BadImage:
    """Pixels uint8 [3, height, width] of a JPEG, upright, or why there are none.

    Raises MemoryError where the machine has too little.
    """
    try:
        return cpu_jpeg(as_tensor(data), _RGB, True)
    except RuntimeError as error:
        reason = failure("JPEG", error)
        if isinstance(reason, BadImage):
            return reason
        raise reason from error


def as_tensor(data: bytes) -> Tensor:
    """The bytes themselves as uint8 [n], not to be written into."""
    return torch.frombuffer(data, dtype=torch.uint8)
