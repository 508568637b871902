"""The layout of tokenizers that code an image at several scales: a block for each, from the coarsest to the finest.

    1    2 2    3 3 3
         2 2    3 3 3    ...
                3 3 3

The published tokenizer of VAR (https://arxiv.org/abs/2404.02905) has ten scales of p x p tokens, p being 1, 2, 3, 4, 5,
6, 8, 10, 13 and 16. Nothing here imports torch.

Shape letters: B images, p tokens along the side of a scale, S scales.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline.errors import TokenizerError
from pipeline.models.layouts.layout import BlockShape

if TYPE_CHECKING:
    from torch import Tensor

NAME = "multiscale"

PUBLISHED_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
"""Those of VAR for images of 256 pixels."""


MOST_TOKENS = 1 << 20
"""Of an image in all scales: an encoder has vectors for each of them in memory."""


def growing(patch_nums: tuple[int, ...]) -> tuple[int, ...]:
    """Scales as they are, one finer than the other. Raises ValueError for others, and for too many tokens."""
    if not patch_nums or patch_nums[0] < 1 or any(a >= b for a, b in pairwise(patch_nums)):
        raise ValueError(
            f"{','.join(map(str, patch_nums))}: scales begin at 1 or more, and each is finer than the last"
        )
    if sum(p * p for p in patch_nums) > MOST_TOKENS:
        raise ValueError(f"{len(patch_nums)} scales up to {patch_nums[-1]}: more than {MOST_TOKENS:,} tokens an image")
    return patch_nums


@dataclass(frozen=True)
class Scales:
    """A `BlockLayout` of lists of int [B, p, p], one for each scale."""

    patch_nums: tuple[int, ...]
    """p of each scale, the coarsest first. The last one is the side of the finest grid."""
    name: str = NAME
    decodable: bool = True

    def block_lengths(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """p² of each scale. Raises TokenizerError for another grid than that of the last scale."""
        side = self.patch_nums[-1]
        if tuple(grid) != (side, side):
            raise TokenizerError(
                f"the scales {_listed(self.patch_nums)} end in a grid of {side} x {side} tokens, and this image has "
                f"{grid[0]} x {grid[1]}"
            )
        return tuple(p * p for p in self.patch_nums)

    def shape(self, block: int, grid: tuple[int, int]) -> BlockShape:
        """A scale is a grid of its own."""
        p = self.patch_nums[block]
        return BlockShape(f"a scale of {p} x {p}", p)

    def split(self, idx: Sequence[Tensor], /) -> list[Tensor]:
        """Grids int [B, p, p] of all scales to blocks: a list of int64 [B, p²] on the same device."""
        return [idx_Bpp.flatten(1).long() for idx_Bpp in idx]

    def join(self, idx_Bl: Sequence[Tensor], grid: tuple[int, int] | None = None) -> list[Tensor]:
        """Undo `split`: int64 [B, p, p] for each scale. The first scales alone are a coarser version of the image.

        Raises TokenizerError for another grid than that of the last scale, and for blocks of other lengths.
        """
        if grid is not None:
            self.block_lengths(grid)
        shapes = [tuple(block.shape) for block in idx_Bl]
        B = shapes[0][0] if shapes and shapes[0] else 0
        if not shapes or shapes != [(B, p * p) for p in self.patch_nums[: len(shapes)]]:
            raise TokenizerError(f"blocks of shapes {shapes} are not of the first scales of {_listed(self.patch_nums)}")
        return [block.long().reshape(B, p, p) for block, p in zip(idx_Bl, self.patch_nums, strict=False)]


def sides_of(block_lengths: Sequence[int]) -> tuple[int, ...]:
    """p of blocks of p² tokens each. Raises TokenizerError for another length."""
    sides = tuple(map(math.isqrt, block_lengths))
    if not sides or 0 in sides or [p * p for p in sides] != list(block_lengths):
        raise TokenizerError(f"blocks of {_listed(block_lengths)} tokens are no squares, as every scale is")
    return sides


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
