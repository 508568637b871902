"""The memory of a batch, in which each view has its place before its image is decoded.

Whatever gives way to other threads costs more than its own time where many decode: of some hundred microseconds a
photograph in Python, most went into waits for the interpreter lock. So views are written straight to where they are
encoded from, in one operation, by the thread that decoded them.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.process.shortage import memory_errors

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class Place(NamedTuple):
    """Where the pixels of one view go: one memory, seen in three ways."""

    img_3HW: Tensor
    img_13HW: Tensor
    """For operators that write batches."""
    pixels_3HW: Pixels

    def put(self, pixels_3HW: npt.NDArray[np.uint8]) -> None:
        """Copy pixels there."""
        np.copyto(self.pixels_3HW, pixels_3HW)


class Canvas:
    """The uint8 images of a batch, channels last in memory; what they show before they are written is undefined.

    Args:
        count: B, the images.
        size: (H, W).
        pinned: whether the memory is pinned, so that a CUDA device copies it while the host goes on.

    Raises MemoryError where the machine has too little.
    """

    def __init__(self, count: int, size: tuple[int, int], pinned: bool = False) -> None:
        with memory_errors():
            img_BHW3 = torch.empty((count, *size, 3), dtype=torch.uint8, pin_memory=pinned)
        self._img_B3HW = img_BHW3.permute(0, 3, 1, 2)
        # All views in a few calls: one by one they would cost as much as a small image.
        pixels_B3HW = self._img_B3HW.numpy()
        self.places = [
            Place(*views) for views in zip(self._img_B3HW.unbind(), self._img_B3HW.split(1), pixels_B3HW, strict=True)
        ]
        """Of the images, in their order."""

    def filled(self, count: int) -> Tensor:
        """Its images, uint8 [B, 3, H, W], of which the first `count` were written and the others become black."""
        self._img_B3HW[count:].zero_()
        return self._img_B3HW
