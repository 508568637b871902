"""Scales that add up: how codes of several resolutions become one feature map, and what a model is taught on.

Each scale codes what the coarser ones have left over. Its codes are resized to the finest grid, go through a
convolution ("phi"), and are added to the sum of those before (Tian et al. 2024, https://arxiv.org/abs/2404.02905,
algorithms 1 and 2). Everything is float32, whatever autocast and TF32 settings say: a code that is chosen otherwise at
one scale changes all the finer ones.

Shape letters: B images, S scales, p tokens along the side of a scale, P of the finest, L_i = p² tokens of scale i,
K codes, C their length.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import TokenizerError
from pipeline.models.arithmetic import float32_arithmetic
from pipeline.models.layouts.scales import NAME, sides_of
from pipeline.models.rules.lookup import lookup
from pipeline.models.rules.resizing import downsample, upsample

PHI_SHARE = 0.5
"""How much of a scale goes through its convolution; the rest is passed on as it is."""

PATCH_NUMS, PHI_WEIGHT, PHI_BIAS = "patch_nums", "phi_weight", "phi_bias"


@dataclass(frozen=True)
class Phi:
    """The convolutions of all scales."""

    weight_SCC33: Tensor
    bias_SC: Tensor

    def __call__(self, scale: int, h_BCPP: Tensor) -> Tensor:
        """h (1 - share) + conv(h) share, in float32."""
        conv_BCPP = F.conv2d(h_BCPP, self.weight_SCC33[scale], self.bias_SC[scale], padding=1)
        return h_BCPP * (1 - PHI_SHARE) + conv_BCPP * PHI_SHARE


def running_sums(idx: Sequence[Tensor], sides: Sequence[int], codebook_KC: Tensor, phi: Phi) -> Iterator[Tensor]:
    """The sum [B, C, P, P] after each scale, float32: the same tensor, which goes on to change.

    Args:
        idx: int [B, p²] or [B, p, p] of the first scales.
        sides: p of all scales.

    Raises TokenizerError as `lookup` does.
    """
    P, B, C = sides[-1], len(idx[0]), codebook_KC.shape[1]
    sum_BCPP = codebook_KC.new_zeros(B, C, P, P, dtype=torch.float32)
    for scale, (idx_Bp, p) in enumerate(zip(idx, sides, strict=False)):
        codes_BCpp = lookup(idx_Bp.reshape(B, p, p), codebook_KC).float().permute(0, 3, 1, 2)
        last = scale == len(sides) - 1
        sum_BCPP += phi(scale, upsample(codes_BCpp, P, last).contiguous())
        yield sum_BCPP


@dataclass(frozen=True)
class Multiscale:
    """The `Rule` of VAR: before a scale is predicted, the sum of all coarser ones, resized to its grid."""

    name: str = NAME
    arrays: tuple[str, ...] = (PATCH_NUMS, PHI_WEIGHT, PHI_BIAS)
    picks_rows: bool = False

    def sequence_length(self, block_lengths: Sequence[int]) -> int:
        """L without the first scale, which nothing comes before."""
        return sum(block_lengths[1:])

    def apply(self, idx_Bl: Sequence[Tensor], codebook_KC: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """Blocks of [B, p²] of all scales to float32 [B, L - L_0, C].

        Raises TokenizerError for blocks of other scales, and as `lookup` does.
        """
        sides = sides_of([block.shape[-1] for block in idx_Bl])
        patch_nums = _numbers(arrays[PATCH_NUMS])
        if sides != patch_nums:
            raise TokenizerError(f"blocks of the scales {sides}, where the tokenizer has {patch_nums}")
        phi = Phi(arrays[PHI_WEIGHT].float(), arrays[PHI_BIAS].float())
        with float32_arithmetic("ieee"), torch.autocast(codebook_KC.device.type, enabled=False):
            sums = running_sums(idx_Bl[:-1], sides, codebook_KC.float(), phi) if len(sides) > 1 else iter(())
            inputs = [
                downsample(sum_BCPP, p, last=False).flatten(2).transpose(1, 2)
                for sum_BCPP, p in zip(sums, sides[1:], strict=True)
            ]
        return torch.cat(inputs, dim=1) if inputs else codebook_KC.new_empty(len(idx_Bl[0]), 0, codebook_KC.shape[1])


def _numbers(array: Tensor) -> tuple[int, ...]:
    """Those in an array on the CPU, which nothing waits for."""
    return tuple(array.tolist())


MULTISCALE = Multiscale()
