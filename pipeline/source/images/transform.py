"""From the bytes of an image file to the pixels that are encoded."""

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pipeline.config import ImageConfig
from pipeline.errors import BadImage
from pipeline.process.shortage import memory_errors
from pipeline.source.images.canvas import Place
from pipeline.source.images.decoding import Decoder, Picture, PillowDecoder, TorchvisionDecoder
from pipeline.source.images.fitting import Fitting, Shot
from pipeline.source.images.nvjpeg import NvjpegDecoder, cuda_device, in_use_here
from pipeline.source.images.pillow import require_codecs
from pipeline.source.images.turbojpeg import TurboJpegDecoder


class ImageTransform:
    """Decodes, resizes and crops: bytes → uint8 [3, H, W] with (H, W) = `image.size`, one for each view.

    Raises VqtokError where Pillow lacks a codec: good images would become rejects. Raises ConfigError where
    `image.decoder` cannot be had on this machine.
    """

    def __init__(self, image: ImageConfig) -> None:
        require_codecs()
        self._image = image
        self._fit = Fitting(image)
        self._decoder = _decoder_of(image, self._fit)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self._image.size

    @property
    def views(self) -> int:
        """V, the views of each image."""
        return self._image.num_views or 1

    @property
    def device(self) -> torch.device:
        """Where the result is."""
        return self._decoder.device

    @property
    def task_bytes(self) -> int:
        """How much of encoded images is best given to `many` at once."""
        return self._decoder.task_bytes

    @property
    def task_files(self) -> int | None:
        """How many images are best given to `many` at once; None where few will do."""
        return self._decoder.task_files

    def __call__(self, data: bytes, key: str = "") -> Tensor:
        """Pixels uint8 [3, H, W] of the first view.

        Raises BadImage with the reason, MemoryError where the machine has too little.
        """
        (found,) = self.many([data], [key])
        if isinstance(found, BadImage):
            raise found
        return found[0].img_3HW.contiguous()

    def many(
        self, files: Sequence[bytes], keys: Sequence[str], places: Iterable[Sequence[Place]] = itertools.repeat(())
    ) -> list[list[Shot] | BadImage]:
        """For each file its views, V of them, or why there are none. An image is decoded once for all of its views.

        The pixels are there when this returns, also on a GPU, and may be read on the stream that is now the calling
        thread's; on another one with `in_use_here`.

        Args:
            keys: of the samples, which random views depend on.
            places: for each file where its views are written, on the CPU; none for memory of their own.

        Raises MemoryError where the machine has too little.
        """
        with memory_errors(), self._decoder.at_work():
            found = list(map(self._shots, self._decoder(files), keys, places))
        if self.device.type != "cpu":
            for shots in found:
                for shot in shots if isinstance(shots, list) else ():
                    in_use_here(shot.img_3HW)
        return found

    def _shots(self, found: Picture | BadImage, key: str, places: Sequence[Place]) -> list[Shot] | BadImage:
        if isinstance(found, BadImage):
            return found
        try:
            return self._fit(found, key, places)
        except BadImage as error:
            return error


def _decoder_of(image: ImageConfig, fitting: Fitting) -> Decoder:
    if image.decoder == "turbojpeg":
        return TurboJpegDecoder(image.max_pixels, fitting.resized_size)
    if image.decoder == "nvjpeg":
        return NvjpegDecoder(image.max_pixels, cuda_device())
    if image.decoder == "pillow":
        return PillowDecoder(image.max_pixels, image.plain)
    return TorchvisionDecoder(image.max_pixels)
