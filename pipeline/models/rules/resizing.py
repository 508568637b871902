"""Feature maps of one scale on the grid of another.

Resizing is linear along each side: with W [P, p] for P values from p, an image h becomes W h Wᵀ, and its gradient g
comes back as Wᵀ g W.

Shape letters: B images, C channels, p and P tokens along the side of a coarse and of the finest grid.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.arithmetic import float32_arithmetic


def upsample(h_BCpp: Tensor, side: int, last: bool) -> Tensor:
    """Codes of one scale on the finest grid [B, C, P, P]: bicubic, but for the last scale, which is there already.

    On an accelerator by two matrix products. torch's kernel for CUDA has a thread for each of P * P places, which goes
    through all images and channels, and its gradient adds up in another order each time.
    """
    if last:
        return h_BCpp
    if h_BCpp.is_cpu:
        return _bicubic(h_BCpp, (side, side))
    resized: Tensor = Bicubic.apply(h_BCpp, side)
    return resized


def downsample(f_BCPP: Tensor, p: int, last: bool) -> Tensor:
    """A feature map at one scale, [B, C, p, p]: the mean over areas, but for the last scale."""
    if last:
        return f_BCPP
    # On an Apple GPU torch takes the mean over equal areas only: https://github.com/pytorch/pytorch/issues/96056
    where = "cpu" if f_BCPP.device.type == "mps" else f_BCPP.device
    return F.interpolate(f_BCPP.to(where), size=(p, p), mode="area").to(f_BCPP.device)


class Bicubic(torch.autograd.Function):
    """Bicubic upsampling as W h Wᵀ."""

    @staticmethod
    def forward(ctx: Any, h_BCpp: Tensor, side: int) -> Tensor:
        """[B, C, P, P] of a square [B, C, p, p]."""
        ctx.p = h_BCpp.shape[-1]
        with _exactly(h_BCpp):
            W_Pp = _weights(ctx.p, side, h_BCpp)
            return W_Pp @ h_BCpp @ W_Pp.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient [B, C, p, p]; none of the side."""
        (g_BCPP,) = gradients
        with _exactly(g_BCPP):
            W_Pp = _weights(ctx.p, g_BCPP.shape[-1], g_BCPP)
            return W_Pp.T @ g_BCPP @ W_Pp, None


@contextlib.contextmanager
def _exactly(where: Tensor) -> Iterator[None]:
    with float32_arithmetic("ieee"), torch.autocast(where.device.type, enabled=False):
        yield


def _weights(p: int, P: int, like: Tensor) -> Tensor:
    """What each of P values takes from each of p: the unit vectors, resized."""
    units_p1p1 = torch.eye(p, dtype=like.dtype, device=like.device).reshape(p, 1, p, 1)
    return _bicubic(units_p1p1, (P, 1)).reshape(p, P).T


def _bicubic(h_BChw: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(h_BChw, size=size, mode="bicubic")
