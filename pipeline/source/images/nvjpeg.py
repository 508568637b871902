"""Decoding on the GPU: nvJPEG by way of torchvision. Pixels stay on the device; those of odd files are moved there."""

import io
from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import BadImage, ConfigError
from pipeline.source.images.decoding import Jpeg, Picture, as_picture, as_tensor, decode_jpegs, examine
from pipeline.source.images.orientation import exif_orientation, turned
from pipeline.source.images.vision import ImageReadMode, decode_jpeg

# Pixels that are decoded in one call: enough to keep the device busy, and little beside its memory.
_GROUP_PIXELS = 2**26

# The end marker is looked for among so many last bytes, for some writers put padding behind it.
_TAIL_BYTES = 1024


class NvjpegDecoder:
    """Decodes JPEGs on `device`, many in one call, and everything else as `torchvision` does."""

    task_bytes = 2**22

    def __init__(self, max_pixels: int, device: torch.device) -> None:
        self.device = device
        self._max_pixels = max_pixels

    def __call__(self, files: Sequence[bytes]) -> Iterator[Picture | BadImage]:
        """See `Decoder`."""
        group: list[tuple[bytes, int]] = []
        group_pixels = 0
        for data in files:
            found = self._examined(data)
            if isinstance(found, Jpeg) and _is_plain(data, found):
                group.append((data, exif_orientation(found.exif) if found.exif else 1))
                group_pixels += found.width * found.height
                if group_pixels < _GROUP_PIXELS:
                    continue
                found = None
            yield from self._decode(group)
            group, group_pixels = [], 0
            if found is not None:
                yield self._on_device(decode_jpegs([data])[0] if isinstance(found, Jpeg) else found)
        yield from self._decode(group)

    def _examined(self, data: bytes) -> Jpeg | Tensor | BadImage | None:
        try:
            return examine(data, self._max_pixels)
        except BadImage as error:
            return error

    def _decode(self, group: Sequence[tuple[bytes, int]]) -> list[Picture | BadImage]:
        """The pictures of JPEGs with their orientations. One that the device cannot decode is left to the CPU."""
        if not group:
            return []
        try:
            images = decode_jpeg([as_tensor(data) for data, _ in group], ImageReadMode.RGB, device=self.device)
        except RuntimeError:
            if len(group) > 1:
                return [picture for one in group for picture in self._decode([one])]
            return [self._on_device(pixels) for pixels in decode_jpegs([group[0][0]])]
        return [as_picture(turned(image, turn)) for image, (_, turn) in zip(images, group, strict=True)]

    def _on_device(self, found: Tensor | BadImage) -> Picture | BadImage:
        return found if isinstance(found, BadImage) else as_picture(found.to(self.device))


def cuda_device() -> torch.device:
    """The current CUDA device of the calling thread, which torchvision can decode JPEGs on.

    Raises ConfigError where there is none.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "image.decoder: nvjpeg needs a CUDA device, and torch sees none; set image.decoder=torchvision"
        )
    probe = io.BytesIO()
    Image.new("RGB", (16, 16)).save(probe, "JPEG")
    try:
        device = torch.device("cuda", torch.cuda.current_device())
        decode_jpeg([as_tensor(probe.getvalue())], ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"image.decoder: nvjpeg does not work here: {reason}; install a torchvision with nvJPEG (and keep "
            "train.workers at 0), or set image.decoder=torchvision"
        ) from error
    return device


def _is_plain(data: bytes, jpeg: Jpeg) -> bool:
    """Whether nvJPEG sees the same picture as libjpeg: its pixels are YCbCr or grey, and its end is there."""
    return not jpeg.rgb and b"\xff\xd9" in data[-_TAIL_BYTES:]
