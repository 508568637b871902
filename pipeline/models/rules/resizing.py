"""Feature maps of one scale on the grid of another.

Resizing is linear along each side: with W [P, p] for P values from p, an image h becomes W h Wᵀ, and its gradient g
comes back as Wᵀ g W.

Shape letters: B images, C channels, p and P tokens along the side of a coarse and of the finest grid.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.arithmetic import float32_arithmetic


def upsample(h_BCpp: Tensor, side: int, last: bool) -> Tensor:
    """Codes of one scale on the finest grid [B, C, P, P]: bicubic, but for the last scale, which is there already.

    On an accelerator the gradient is the same each time: that of torch's kernel adds up in an order of its own.
    """
    if last:
        return h_BCpp
    if h_BCpp.is_cpu or not (torch.is_grad_enabled() and h_BCpp.requires_grad):
        return _bicubic(h_BCpp, side)
    resized: Tensor = Bicubic.apply(h_BCpp, side)
    return resized


def downsample(f_BCPP: Tensor, p: int, last: bool) -> Tensor:
    """A feature map at one scale, [B, C, p, p]: the mean over areas, but for the last scale."""
    return f_BCPP if last else F.interpolate(f_BCPP, size=(p, p), mode="area")


class Bicubic(torch.autograd.Function):
    """torch's bicubic upsampling, with two matrix products for its gradient."""

    @staticmethod
    def forward(ctx: Any, h_BCpp: Tensor, side: int) -> Tensor:
        """[B, C, P, P] of a square [B, C, p, p]."""
        ctx.p = h_BCpp.shape[-1]
        return _bicubic(h_BCpp, side)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient [B, C, p, p]; none of the side."""
        (g_BCPP,) = gradients
        W_Pp = _weights(ctx.p, g_BCPP)
        with float32_arithmetic("ieee"), torch.autocast(g_BCPP.device.type, enabled=False):
            return W_Pp.T @ g_BCPP @ W_Pp, None


def _weights(p: int, g_BCPP: Tensor) -> Tensor:
    """What each of P values takes from each of p: the unit vectors, resized."""
    units_p1p1 = torch.eye(p, dtype=g_BCPP.dtype, device=g_BCPP.device).reshape(p, 1, p, 1)
    return F.interpolate(units_p1p1, size=(g_BCPP.shape[-1], 1), mode="bicubic").reshape(p, -1).T


def _bicubic(h_BCpp: Tensor, side: int) -> Tensor:
    return F.interpolate(h_BCpp, size=(side, side), mode="bicubic")
