"""What encoders and decoders of this family are built of.

Shape letters: B images, D channels, H and W sides, N = H*W positions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.networks.vqgan.norms import GroupNorm, fuses
from pipeline.models.networks.vqgan.winograd import Conv3x3


class Residual(nn.Module):
    """x + two 3x3 convolutions of x, each after group norm and SiLU."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(inner)
        self.conv1 = Conv3x3(inner, outer)
        self.norm2 = GroupNorm(outer)
        self.conv2 = Conv3x3(outer, outer)
        self.shortcut = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        if fuses(x_BDHW):
            return self._fused(x_BDHW)
        h_BDHW = self.conv1(self.norm1.silu(x_BDHW))
        h_BDHW = self.conv2(self.norm2.silu(h_BDHW))
        return _sum(h_BDHW, self.shortcut(x_BDHW))

    def _fused(self, x_BDHW: Tensor) -> Tensor:
        """The same, where the biases of the convolutions are added by what reads their results anyway."""
        from pipeline.models.networks.vqgan import kernels

        h_BDHW = _without_bias(self.conv1, self.norm1.silu(x_BDHW))
        h_BDHW = _without_bias(self.conv2, self.norm2.silu(h_BDHW, added_D=self.conv1.bias))
        if isinstance(self.shortcut, nn.Conv2d):
            x_BDHW = _without_bias(self.shortcut, x_BDHW)
        assert self.conv2.bias is not None
        return kernels.residual_sum(x_BDHW, h_BDHW, self.conv2.bias, getattr(self.shortcut, "bias", None))


class Attention(nn.Module):
    """x + attention of one head between all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        q_BND, k_BND, v_BND = self.qkv(self.norm(x_BDHW)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        mixed_B1ND = F.scaled_dot_product_attention(q_BND[:, None], k_BND[:, None], v_BND[:, None])
        return _sum(self.out(mixed_B1ND[:, 0].transpose(1, 2).reshape(x_BDHW.shape)), x_BDHW)


class Downsample(nn.Conv2d):
    """Halves both sides: the windows begin at even positions, and reach over the right and lower edge."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        if fuses(x_BDHW):
            from pipeline.models.networks.vqgan import kernels

            return with_fused_bias(self, kernels.padded(x_BDHW))
        return super().forward(F.pad(x_BDHW, (0, 1, 0, 1)))


class Upsample(nn.Conv2d):
    """Doubles both sides: each value four times, and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return super().forward(F.interpolate(x_BDHW, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, each with attention behind it where the level has some."""

    def __init__(self, inner: int, outer: int, depth: int, attention: bool) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(Residual(outer if number else inner, outer) for number in range(depth))
        self.attentions = nn.ModuleList(Attention(outer) for _ in range(depth if attention else 0))
        self.resample: nn.Module = nn.Identity()
        """What leads to the next level; nothing at the last one."""

    def forward(self, x_BDHW: Tensor) -> Tensor:
        for number, residual in enumerate(self.residuals):
            x_BDHW = residual(x_BDHW)
            if self.attentions:
                x_BDHW = self.attentions[number](x_BDHW)
        out: Tensor = self.resample(x_BDHW)
        return out


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them."""

    def __init__(self, channels: int, attention: bool) -> None:
        super().__init__()
        self.before = Residual(channels, channels)
        self.attention = Attention(channels) if attention else nn.Identity()
        self.after = Residual(channels, channels)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        out: Tensor = self.after(self.attention(self.before(x_BDHW)))
        return out


@torch.no_grad()
def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype that a module computes in."""
    return next(module.parameters()).dtype


def _sum(h_BDHW: Tensor, x_BDHW: Tensor) -> Tensor:
    """h + x; in the memory of h, which nobody else has, where no gradient is asked for. Fresh memory takes longer."""
    return h_BDHW + x_BDHW if torch.is_grad_enabled() else h_BDHW.add_(x_BDHW)


def with_fused_bias(conv: nn.Conv2d, x_BDHW: Tensor) -> Tensor:
    """A convolution whose bias a kernel of ours adds, for x of the kind that `fuses` takes."""
    from pipeline.models.networks.vqgan import kernels

    assert conv.bias is not None
    return kernels.with_bias(_without_bias(conv, x_BDHW), conv.bias)


def _without_bias(conv: nn.Conv2d, x_BDHW: Tensor) -> Tensor:
    out_BDHW = F.conv2d(x_BDHW, conv.weight, None, conv.stride, conv.padding)
    # cuDNN may choose another format for 1x1 convolutions.
    return out_BDHW.contiguous(memory_format=torch.channels_last)
