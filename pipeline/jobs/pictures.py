"""PNG grids of original images above their reconstructions."""

import io
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from pipeline.source.images.vision import make_grid

COLUMNS = 8
ROWS = 2
PICTURED = COLUMNS * ROWS
"""Images in one grid, at most."""


def evenly_spaced(count: int, length: int) -> list[int]:
    """Up to `count` different indices spread over range(length), the first included."""
    count = min(count, length)
    return [i * length // count for i in range(count)]


def comparison_png(originals_B3HW: Tensor, reconstructions_B3HW: Tensor) -> bytes:
    """A PNG in which each row of uint8 originals stands above the row of its reconstructions."""
    grid_3HW = make_grid(torch.cat(list(_rows(originals_B3HW, reconstructions_B3HW))), nrow=COLUMNS, pad_value=255)
    png = io.BytesIO()
    Image.fromarray(grid_3HW.permute(1, 2, 0).numpy()).save(png, "PNG")
    return png.getvalue()


def _rows(originals_B3HW: Tensor, reconstructions_B3HW: Tensor) -> Iterator[Tensor]:
    """Rows of COLUMNS images, originals and reconstructions by turns; a short last row is filled up white."""
    for pair in zip(torch.split(originals_B3HW, COLUMNS), torch.split(reconstructions_B3HW, COLUMNS), strict=True):
        for row in pair:
            filler = row.new_full((COLUMNS - len(row), *row.shape[1:]), 255)
            yield torch.cat([row, filler])
