"""Decoding on the GPU: nvJPEG by way of torchvision. Pixels stay on the device; those of odd files are moved there.

torchvision takes the memory for its output from the calling thread's stream, writes to it from a stream of its own, and
does not wait for the former. A block that was freed there while a kernel that reads it was still queued is overwritten
under that kernel (https://github.com/pytorch/vision/pull/9606). The hardware decoder does not even keep to the order of
the stream that it is given (https://github.com/meta-pytorch/torchcodec/pull/1634), so only a wait on the host helps.

So each thread decodes and resizes on a stream that nobody else uses meanwhile, and which is drained before each call.
It is drained once more at the end: then the pixels are there for every other stream. Whoever reads them on another one
says so, see `in_use_here`.
"""

import contextlib
import ctypes
import io
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import BadImage, ConfigError
from pipeline.process.shortage import is_memory_shortage, reason_of
from pipeline.process.threads import use_device
from pipeline.source.images.decoding import Jpeg, Picture, as_picture, as_tensor, examine, pixels_of_jpeg
from pipeline.source.images.orientation import exif_orientation, turned
from pipeline.source.images.vision import ImageReadMode, decode_jpeg

# Pixels that are decoded in one call: enough to keep the device busy, and little beside its memory.
_GROUP_PIXELS = 2**26

# The end marker is looked for among so many last bytes, for some writers put padding behind it.
_TAIL_BYTES = 1024

# NVJPEG_STATUS_ALLOCATOR_FAILURE, as torchvision puts it behind its messages.
_NO_MEMORY = re.compile(r": 5$")


# Held by the thread that uses a stream.
_alone: dict[tuple[torch.device, int], threading.Lock] = {}


class NvjpegDecoder:
    """Decodes JPEGs on `device`, many in one call, and everything else as `torchvision` does."""

    task_bytes = 2**24
    task_files = 100

    def __init__(self, max_pixels: int, device: torch.device) -> None:
        self.device = device
        self._max_pixels = max_pixels
        self._threads = threading.local()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Put what the calling thread does on a stream of its own, and wait for it at the end."""
        if self.device.type != "cuda":
            yield
            return
        if not hasattr(self._threads, "stream"):
            use_device(self.device)
            # torch has 32 streams of each priority and hands them out in turn: this one may be another thread's too,
            # but not that of an encoder, whose priority is the usual one.
            self._threads.stream = torch.cuda.Stream(self.device, priority=-1)
        stream = self._threads.stream
        with _alone.setdefault((self.device, stream.cuda_stream), threading.Lock()):
            try:
                with torch.cuda.stream(stream):
                    yield
            finally:
                stream.synchronize()

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
                yield self._on_device(pixels_of_jpeg(data) if isinstance(found, Jpeg) else found)
        yield from self._decode(group)

    def _examined(self, data: bytes) -> Jpeg | Tensor | BadImage | None:
        try:
            return examine(data, self._max_pixels)
        except BadImage as error:
            return error

    def _decode(self, group: Sequence[tuple[bytes, int]]) -> list[Picture | BadImage]:
        """The pictures of JPEGs with their orientations. One that the device cannot decode is left to the CPU.

        Raises MemoryError where the device has too little, and RuntimeError where it does not work any more: other
        pixels than those of all other files would come of it.
        """
        if not group:
            return []
        self._drain()
        try:
            images = decode_jpeg([as_tensor(data) for data, _ in group], ImageReadMode.RGB, device=self.device)
        except RuntimeError as error:
            self._recover(error)
            if len(group) > 1:
                return [picture for one in group for picture in self._decode([one])]
            if _is_short_of_memory(error):
                raise MemoryError(f"image.decoder: nvjpeg: {reason_of(error)}") from error
            return [self._on_device(pixels_of_jpeg(group[0][0]))]
        return [as_picture(turned(image, turn)) for image, (_, turn) in zip(images, group, strict=True)]

    def _drain(self) -> None:
        """Wait until nothing that is queued in this thread reads memory that the decoder may be given."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _recover(self, error: RuntimeError) -> None:
        """Wait for files that the decoder had begun before it failed, whose memory is free again by now.

        Raises RuntimeError for a device that has failed itself.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            if _is_short_of_memory(error):
                torch.cuda.empty_cache()  # nvJPEG takes its memory from the driver, not from what torch keeps

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
        remedy = (
            "end other processes on this GPU"
            if _is_short_of_memory(error)
            else "install a torchvision with nvJPEG (and keep train.workers at 0)"
        )
        raise ConfigError(
            f"image.decoder: nvjpeg does not work here: {reason_of(error)}; {remedy}, or set image.decoder=torchvision"
        ) from error
    return device


def nvjpeg_version() -> str | None:
    """That of the library which torchvision has loaded; None where that cannot be told."""
    try:
        paths = re.findall(r"/\S*libnvjpeg\S*", Path("/proc/self/maps").read_text())
        library = ctypes.CDLL(paths[0])
        numbers = [ctypes.c_int() for _ in range(3)]
        failed = any(library.nvjpegGetProperty(which, ctypes.byref(number)) for which, number in enumerate(numbers))
    except (OSError, IndexError, AttributeError):
        return None
    return None if failed else ".".join(str(number.value) for number in numbers)


def in_use_here(img: Tensor) -> Tensor:
    """The same image. Its memory is not given away before the calling thread's stream is done with it, if a GPU has it.

    Without this, memory that comes from another thread's stream is free for that one as soon as the image is dropped.
    """
    if img.is_cuda:
        img.record_stream(torch.cuda.current_stream(img.device))
    return img


def _is_short_of_memory(error: RuntimeError) -> bool:
    return is_memory_shortage(error) or _NO_MEMORY.search(reason_of(error)) is not None


def _is_plain(data: bytes, jpeg: Jpeg) -> bool:
    """Whether nvJPEG sees the same picture as libjpeg: its pixels are YCbCr or grey, and its end is there."""
    return not jpeg.rgb and b"\xff\xd9" in data[-_TAIL_BYTES:]
