"""Layouts that cut one token grid into blocks.

    raster        quadrants      diagonal
    0 0 0 0       0 0 1 1        0 0 . .
    0 0 0 0       0 0 1 1        0 0 . .
    0 0 0 0       2 2 3 3        . . 1 1
    0 0 0 0       2 2 3 3        . . 1 1

A grid is (h, w), splits fall at h//2 and w//2, and the cells of each block follow in row-major order. A grid
with a single row or column has empty blocks. Nothing here imports torch: block lengths are asked for long before a
model is loaded.

Shape letters: B images, h and w grid sides, L_i cells of block i.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import TokenizerError
from pipeline.models.layouts.layout import BlockShape, layout_among

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rectangle:
    """Cells of a grid that make a block, as ranges of rows and columns: slices, which no device waits for."""

    rows: range
    columns: range

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts it out of the last two dimensions of a tensor."""
        return slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop)


@dataclass(frozen=True)
class GridCut:
    """A `BlockLayout` of indices int [B, h, w]: it cuts the grid of an image into an ordered list of blocks."""

    name: str
    """What configurations and stores call it."""
    decodable: bool
    """Whether the blocks hold each cell exactly once on every grid, so that `join` can undo `split`."""
    blocks: Callable[[int, int], tuple[Rectangle, ...]]
    """From (h, w) to the cells of each block in order."""

    def block_lengths(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """L_i, the number of tokens of each block, on a grid (h, w)."""
        return tuple(map(len, self.blocks(*grid)))

    def shape(self, block: int, grid: tuple[int, int]) -> BlockShape | None:
        """A block that has cells, as a rectangle of the grid (h, w); None for one that has none."""
        cells = self.blocks(*grid)[block]
        if not len(cells):
            return None
        rows, columns = cells.rows, cells.columns
        title = f"grid rows {rows[0]} to {rows[-1]}, columns {columns[0]} to {columns[-1]}"
        return BlockShape(title, len(columns))

    def split(self, idx_Bhw: Tensor) -> list[Tensor]:
        """Cut integer grids [B, h, w] into blocks: a list of int64 [B, L_i] on the same device."""
        _, h, w = idx_Bhw.shape
        idx_Bhw = idx_Bhw.long()
        return [idx_Bhw[:, *cells.slices].flatten(1) for cells in self.blocks(h, w)]

    def join(self, idx_Bl: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Tensor:
        """Undo `split`: integer blocks [B, L_i] back to int64 grids [B, h, w] on the same device.

        Without a grid (h, w) it is taken to be square.

        Raises TokenizerError for a layout that leaves cells out, for blocks that do not fit the grid, and
        where no grid is given and the tokens fill no square.
        """
        if not self.decodable:
            raise TokenizerError(
                f"layout {self.name!r} leaves cells out, so its blocks cannot be turned back into a grid; "
                f"tokenize with one that can: {', '.join(decodable_cuts())}"
            )
        h, w = grid = grid or _square_grid(idx_Bl)
        shapes = [tuple(block.shape) for block in idx_Bl]
        B = shapes[0][0] if shapes and shapes[0] else 0
        if shapes != [(B, length) for length in self.block_lengths(grid)]:
            raise TokenizerError(
                f"blocks of shapes {shapes} do not fit layout {self.name!r} on grid {grid}, "
                f"whose blocks have lengths {self.block_lengths(grid)}"
            )
        idx_Bhw = idx_Bl[0].long().new_empty((B, h, w))
        for cells, block_BL in zip(self.blocks(h, w), idx_Bl, strict=True):
            idx_Bhw[:, *cells.slices] = block_BL.long().reshape(B, len(cells.rows), len(cells.columns))
        return idx_Bhw


def _square_grid(idx_Bl: Sequence[Tensor]) -> tuple[int, int]:
    """The square grid that all tokens of the blocks [B, L_i] fill."""
    total = sum(block.shape[-1] for block in idx_Bl)
    side = math.isqrt(total)
    if side * side != total:
        raise TokenizerError(f"{total} tokens fill no square grid; pass grid=(h, w)")
    return side, side


def _raster(h: int, w: int) -> tuple[Rectangle, ...]:
    return (Rectangle(range(h), range(w)),)


def _quadrants(h: int, w: int) -> tuple[Rectangle, ...]:
    top, bottom = range(h // 2), range(h // 2, h)
    left, right = range(w // 2), range(w // 2, w)
    return tuple(Rectangle(rows, columns) for rows in (top, bottom) for columns in (left, right))


def _diagonal(h: int, w: int) -> tuple[Rectangle, ...]:
    top_left, _, _, bottom_right = _quadrants(h, w)
    return top_left, bottom_right


CUTS: dict[str, GridCut] = {
    cut.name: cut
    for cut in (
        GridCut("raster", decodable=True, blocks=_raster),
        GridCut("quadrants", decodable=True, blocks=_quadrants),
        GridCut("diagonal", decodable=False, blocks=_diagonal),
    )
}
"""All of them, by name."""


def cut_named(name: str) -> GridCut:
    """One of them. Raises ConfigError listing the names that there are."""
    layout_among(CUTS.values(), name)
    return CUTS[name]


def decodable_cuts() -> list[str]:
    """Names of the layouts whose blocks can be turned back into an image."""
    return [cut.name for cut in CUTS.values() if cut.decodable]
