"""Group norm for channels_last memory on a CPU, where torch's own is inexact.

torch takes E[x^2] - E[x]^2 for the variance there, in long sums. At 256 px results are off by 2e-5, and those of a
blank image, whose channels are nearly constant, by as much as their values: it would get the codes of other vectors.
Here the variance is the mean of squared distances from the mean, in sums that torch takes pairwise, strip by strip, so
that what is made of a strip stays in the cache. With fewer bits than float32 has, rounding the values loses more.

Shape letters: B images, D channels, H and W sides, N = H*W positions, G groups.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STRIP = 1 << 18
"""Numbers of a strip."""


class ExactGroupNorm(nn.GroupNorm):
    """torch's, but for float32 in channels_last memory on a CPU where no gradient is asked for."""

    def forward(self, x_BDHW: Tensor) -> Tensor:
        """As torch's."""
        return self._exact(x_BDHW, silu=False) if _is_inexact_for(x_BDHW) else super().forward(x_BDHW)

    def with_silu(self, x_BDHW: Tensor) -> Tensor:
        """The same with a SiLU behind it."""
        if _is_inexact_for(x_BDHW):
            return self._exact(x_BDHW, silu=True)
        return F.silu(super().forward(x_BDHW), inplace=not torch.is_grad_enabled())

    def _exact(self, x_BDHW: Tensor, silu: bool) -> Tensor:
        out_BDHW = torch.empty_like(x_BDHW)
        for x_DHW, out_DHW in zip(x_BDHW, out_BDHW, strict=True):
            self._of_one(_as_stored(x_DHW), _as_stored(out_DHW), silu)
        return out_BDHW

    def _of_one(self, x_ND: Tensor, out_ND: Tensor, silu: bool) -> None:
        N, D = x_ND.shape
        strips, outs = (tensor_ND.split(max(1, _STRIP // D)) for tensor_ND in (x_ND, out_ND))
        mean_D = self._mean_of_groups((strip_nD.sum(0) for strip_nD in strips), N)
        variance_D = self._mean_of_groups(((strip_nD - mean_D).square_().sum(0) for strip_nD in strips), N)
        factor_D = (variance_D + self.eps).rsqrt()
        for strip_nD, out_nD in zip(strips, outs, strict=True):
            if self.weight is None:
                torch.mul(strip_nD - mean_D, factor_D, out=out_nD)
            else:
                torch.addcmul(self.bias, strip_nD - mean_D, factor_D * self.weight, out=out_nD)
            if silu:
                F.silu(out_nD, inplace=True)

    def _mean_of_groups(self, sums: Iterable[Tensor], N: int) -> Tensor:
        """[D], for each channel the mean of its group, from sums over the positions of each strip."""
        sum_GD = torch.stack(list(sums)).sum(0).view(self.num_groups, -1)
        mean_G1 = sum_GD.sum(1, keepdim=True) / (N * sum_GD.shape[1])
        return mean_G1.expand_as(sum_GD).flatten()


def make_norms_exact(module: nn.Module) -> None:
    """Give the group norms of another library's model, which are of torch's class, this one."""
    for norm in module.modules():
        if type(norm) is nn.GroupNorm:
            norm.__class__ = ExactGroupNorm


def _is_inexact_for(x_BDHW: Tensor) -> bool:
    """Not where gradients are asked for, or a graph is made of it: there it stays torch's."""
    return (
        x_BDHW.is_cpu
        and x_BDHW.dim() == 4
        and x_BDHW.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and type(x_BDHW) is Tensor  # neither a shape without values nor anything else that stands for a tensor
        and x_BDHW.is_contiguous(memory_format=torch.channels_last)
        and not x_BDHW.is_contiguous()
    )


def _as_stored(x_DHW: Tensor) -> Tensor:
    """[N, D], a view."""
    return x_DHW.permute(1, 2, 0).view(-1, len(x_DHW))
