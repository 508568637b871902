"""The way of one thread to a CUDA device and back.

Shape letters: B images of H x W pixels, L tokens of one image.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Tokens = npt.NDArray[np.int64]


class Lane:
    """A stream with pinned memory of its own, which is allocated once and grows with the largest batch.

    Pinned, for only copies to and from such memory let the host go on; reused, for to pin memory waits for the device
    and takes longer than the copy. One batch at a time; another lane may be at work meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        # A thread that waits for it sleeps: one that spins would take a core from those that decode.
        self._done = torch.cuda.Event(blocking=True)
        self._pixels, self._tokens = _Pinned(torch.uint8), _Pinned(torch.int64)
        self._last: Tensor | None = None
        # The weights, which were laid out on another stream: this one waits for none.
        torch.cuda.synchronize(device)

    def run(self, img_B3HW: Tensor, ready: "torch.cuda.Event | None", encode: Callable[[Tensor], Tensor]) -> Tokens:
        """What `encode` makes of the images on the device: int64 [n], in memory that the caller may keep.

        Waits once, for the end.

        Args:
            img_B3HW: uint8, channels last in memory, in the host's memory or on the device.
            ready: when images on the device are there.
        """
        with torch.cuda.stream(self._stream):
            tokens_n = encode(self._up(img_B3HW, ready))
            host_n = self._tokens.of_shape(*tokens_n.shape)
            host_n.copy_(tokens_n, non_blocking=True)
            self._done.record(self._stream)
        self._done.synchronize()
        # Those of the batch before are let go of now, when the GPU is known to work: torch aborts the process where
        # pinned memory is freed after a failure that nobody has noticed yet.
        self._last = img_B3HW
        return np.array(host_n.numpy())

    def _up(self, img_B3HW: Tensor, ready: "torch.cuda.Event | None") -> Tensor:
        if ready is not None:
            self._stream.wait_event(ready)
            img_B3HW.record_stream(self._stream)
        elif img_B3HW.is_cpu and not img_B3HW.is_pinned():
            B, _, H, W = img_B3HW.shape
            staged_B3HW = self._pixels.of_shape(B, H, W, 3).permute(0, 3, 1, 2)
            img_B3HW = staged_B3HW.copy_(img_B3HW)
        return img_B3HW.to(self._device, non_blocking=True)


class _Pinned:
    """Memory of the host that the device copies from and to by itself."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._memory = torch.empty(0, dtype=dtype)

    def of_shape(self, *shape: int) -> Tensor:
        """A tensor in it. What was there before is lost."""
        count = math.prod(shape)
        if count > len(self._memory):
            self._memory = torch.empty(count, dtype=self._dtype, pin_memory=True)
        return self._memory[:count].view(shape)


def recorded(img_B3HW: Tensor) -> "torch.cuda.Event | None":
    """The moment at which images that were decoded on a GPU are there, as a mark in the stream that made them."""
    if not img_B3HW.is_cuda:
        return None
    event: Any = torch.cuda.Event()
    event.record(torch.cuda.current_stream(img_B3HW.device))
    return event  # type: ignore[no-any-return]
