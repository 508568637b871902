"""Group norm as this family uses it: with a SiLU behind it, on a CPU and fast on CUDA.

Shape letters: B images, D channels, H and W sides.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.networks.exact_norm import ExactGroupNorm
from pipeline.models.networks.vqgan.architecture import GROUPS
from pipeline.printing import say

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_TOLERANCE = 1e-4  # of float32 sums in another order


class GroupNorm(ExactGroupNorm):
    """The normalisation that all of them use; `silu` puts a SiLU behind it."""

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels, eps=1e-6)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        """As torch's."""
        return self._fused(x_BDHW, silu=False) if fuses(x_BDHW) else super().forward(x_BDHW)

    def silu(self, x_BDHW: Tensor, added_D: Tensor | None = None) -> Tensor:
        """SiLU of the normalised x + added, of which there is something only where `fuses` says so."""
        if fuses(x_BDHW):
            return self._fused(x_BDHW, silu=True, added_D=added_D)
        assert added_D is None
        return self.with_silu(x_BDHW)

    def _fused(self, x_BDHW: Tensor, silu: bool, added_D: Tensor | None = None) -> Tensor:
        from pipeline.models.networks.vqgan import kernels

        return kernels.group_norm(x_BDHW, self.weight, self.bias, self.num_groups, self.eps, silu, added_D)


def fuses(x_BDHW: Tensor) -> bool:
    """Whether our kernels take these activations: on CUDA in channels_last memory, where no gradient is asked for.

    Not while torch compiles, for its own compiler fuses more.
    """
    return (
        x_BDHW.is_cuda
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and type(x_BDHW) is Tensor  # neither a shape without values nor anything else that stands for a tensor
        and x_BDHW.dtype in _DTYPES
        and x_BDHW.is_contiguous(memory_format=torch.channels_last)
        and kernels_work(x_BDHW.device)
    )


@cache
def kernels_work(device: torch.device) -> bool:
    """Whether our kernels can be had on a CUDA device, and give what torch gives there. Says so where they do not."""
    try:
        reason = _difference(device)
    except Exception as error:  # no triton, no compiler for it, no support for the device: each has errors of its own
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if reason:
        say(f"vqtok: VQ-GANs encode at less than half their speed here: no Triton kernels ({reason})", error=True)
    return not reason


@torch.no_grad()
def _difference(device: torch.device) -> str:
    """In what our kernels differ from torch's operations, of sizes at which nothing is a power of two."""
    from pipeline.models.networks.vqgan import kernels

    draw = torch.Generator().manual_seed(0)
    x, h, weight, bias, added = (
        torch.randn(shape, generator=draw).to(device) for shape in [(2, 96, 37, 41)] * 2 + [(96,)] * 3
    )
    x, h = (value.contiguous(memory_format=torch.channels_last) for value in (x, h))
    pairs = {
        "group norm": (
            kernels.group_norm(x, weight, bias, GROUPS, 1e-6, silu=True, added_D=added),
            F.silu(F.group_norm(x + added[:, None, None], GROUPS, weight, bias, 1e-6)),
        ),
        "sum": (kernels.residual_sum(x, h, added, bias), x + h + (added + bias)[:, None, None]),
        "bias": (kernels.with_bias(x.clone(), bias), x + bias[:, None, None]),
        "padding": (kernels.padded(x), F.pad(x, (0, 1, 0, 1))),
    }
    off = {name: float((ours - theirs).abs().max()) for name, (ours, theirs) in pairs.items()}
    return "; ".join(f"{name} is off by {by:.1g}" for name, by in off.items() if not by < _TOLERANCE)
