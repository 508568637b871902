"""Rows of batches that are decoded out of order, and nobody knows beforehand which samples are rejected."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.process.shortage import memory_errors
from pipeline.source.images.canvas import Canvas, Place
from pipeline.source.images.fitting import Shot
from pipeline.source.images.nvjpeg import in_use_here

Places = Sequence[Place]


class Filling(Protocol):
    """Where the pixels of rows become batches. Every method is called by one and the same thread."""

    def expect(self) -> Places:
        """Where the views of one more sample in flight are to be written; nothing where that cannot be told."""

    def reject(self) -> None:
        """The first sample in flight is none of the rows."""

    def add(self, shots: Sequence[Shot]) -> None:
        """The first sample in flight is the next row."""

    def take(self) -> Tensor:
        """The batch of the rows since the last one, uint8 [B, 3, H, W] and channels last in memory; images behind the
        last row are black."""


class FillingInPlace:
    """On the CPU: each sample is decoded to where it will stand if all those in flight before it become rows.

    A sample that is rejected moves all later ones down by one. Those in flight are copied then; of the samples that
    come after, one gets no place, and behind it all is well again. A copy never meets what is yet to be copied, or a
    thread at work: no sample is placed before its row, so that the places of those behind a row are behind its own.

    Args:
        size: rows of a batch.
        views: V, images of a row.
        image_size: (H, W).
        pinned: see `Canvas`.
    """

    def __init__(self, size: int, views: int, image_size: tuple[int, int], pinned: bool) -> None:
        self._size = size
        self._views = views
        self._image_size = image_size
        self._pinned = pinned
        self._canvases: dict[int, Canvas] = {}
        # In rows since the beginning.
        self._expected = self._placed = self._added = self._taken = 0

    def expect(self) -> Places:
        """See `Filling`."""
        row = self._expected
        self._expected += 1
        if row < self._placed:
            return ()
        self._placed += 1
        return self._places(row)

    def reject(self) -> None:
        """See `Filling`."""
        self._expected -= 1

    def add(self, shots: Sequence[Shot]) -> None:
        """See `Filling`."""
        for shot, place in zip(shots, self._places(self._added), strict=True):
            if shot.img_3HW is not place.img_3HW:
                place.put(shot.img_3HW.numpy())
        self._added += 1

    def take(self) -> Tensor:
        """See `Filling`."""
        rows = self._added - self._taken
        canvas = self._canvas(self._taken // self._size)
        del self._canvases[self._taken // self._size]
        self._taken = self._added
        return canvas.filled(rows * self._views)

    def _places(self, row: int) -> Places:
        first = row % self._size * self._views
        return self._canvas(row // self._size).places[first : first + self._views]

    def _canvas(self, batch: int) -> Canvas:
        if batch not in self._canvases:
            self._canvases[batch] = Canvas(self._size * self._views, self._image_size, self._pinned)
        return self._canvases[batch]


class FillingOnDevice:
    """Where a device decodes: pixels are put together when a batch is complete, by one operation on the device.

    Args:
        count: B, images of a batch.
        image_size: (H, W).
    """

    def __init__(self, count: int, image_size: tuple[int, int], device: torch.device) -> None:
        self._shape = (count, *image_size, 3)
        self._device = device
        self._images: list[Tensor] = []

    def expect(self) -> Places:
        """See `Filling`."""
        return ()

    def reject(self) -> None:
        """See `Filling`."""

    def add(self, shots: Sequence[Shot]) -> None:
        """See `Filling`."""
        self._images += [shot.img_3HW for shot in shots]

    def take(self) -> Tensor:
        """See `Filling`."""
        images, self._images = self._images, []
        with memory_errors():
            # The layout in which decoders give them, so that stacking copies whole images.
            img_BHW3 = torch.empty(self._shape, dtype=torch.uint8, device=self._device)
            img_BHW3[len(images) :].zero_()
            if images:
                torch.stack([in_use_here(img_3HW).permute(1, 2, 0) for img_3HW in images], out=img_BHW3[: len(images)])
            return img_BHW3.permute(0, 3, 1, 2)
