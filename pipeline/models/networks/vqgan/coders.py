"""Encoder and decoder.

Shape letters: B images of H x W pixels, h and w grid sides, D channels, C length of a code.
"""

from torch import Tensor, nn

from pipeline.models.networks.vqgan.architecture import Architecture
from pipeline.models.networks.vqgan.blocks import Downsample, Level, Middle, Upsample, with_fused_bias
from pipeline.models.networks.vqgan.norms import GroupNorm, fuses


class Encoder(nn.Module):
    """Images [B, 3, H, W] to vectors [B, C, h, w]; the levels go from fine to coarse."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        shape, latent = architecture.encoder, architecture.latent
        inner, lowest = (architecture.stem, *shape.widths[:-1]), shape.widths[-1]
        self.conv_in = nn.Conv2d(3, architecture.stem, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(inner[level], width, shape.depth, shape.attention[level]) for level, width in enumerate(shape.widths)
        )
        for level, width in zip(self.levels[:-1], shape.widths, strict=False):
            level.resample = Downsample(width)
        self.middle = Middle(lowest, shape.middle_attention)
        self.norm_out = GroupNorm(lowest)
        self.conv_out = nn.Conv2d(lowest, latent, 3, padding=1)
        kernel = architecture.quant_kernel
        self.quant_conv = nn.Conv2d(latent, architecture.embedding_dim, kernel, padding=kernel // 2)

    def forward(self, img_B3HW: Tensor) -> Tensor:
        x_BDHW = with_fused_bias(self.conv_in, img_B3HW) if fuses(img_B3HW) else self.conv_in(img_B3HW)
        for level in self.levels:
            x_BDHW = level(x_BDHW)
        x_BDhw = self.norm_out.silu(self.middle(x_BDHW))
        z_BChw: Tensor = self.quant_conv(self.conv_out(x_BDhw))
        return z_BChw


class Decoder(nn.Module):
    """Codes [B, C, h, w] to images [B, 3, H, W]; level 0 is the finest here too, and so the last one."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        shape, latent = architecture.decoder, architecture.latent
        inner, lowest = (*shape.widths[1:], shape.widths[-1]), shape.widths[-1]
        kernel = architecture.quant_kernel
        self.quant_conv = nn.Conv2d(architecture.embedding_dim, latent, kernel, padding=kernel // 2)
        self.conv_in = nn.Conv2d(latent, lowest, 3, padding=1)
        self.middle = Middle(lowest, shape.middle_attention)
        self.levels = nn.ModuleList(
            Level(inner[level], width, shape.depth, shape.attention[level]) for level, width in enumerate(shape.widths)
        )
        for level, width in zip(self.levels[1:], shape.widths[1:], strict=True):
            level.resample = Upsample(width)
        self.norm_out = GroupNorm(shape.widths[0])
        self.conv_out = nn.Conv2d(shape.widths[0], 3, 3, padding=1)

    def forward(self, q_BChw: Tensor) -> Tensor:
        x_BDHW = self.middle(self.conv_in(self.quant_conv(q_BChw)))
        for level in reversed(self.levels):
            x_BDHW = level(x_BDHW)
        img_B3HW: Tensor = self.conv_out(self.norm_out.silu(x_BDHW))
        return img_B3HW
