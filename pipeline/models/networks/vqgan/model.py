"""Encoder, quantizer and decoder of the VQ-GAN family as one network.

Shape letters: B images of H x W pixels, C length of a code, h and w grid sides.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.layouts.layout import Indices
from pipeline.models.layouts.scales import Scales
from pipeline.models.networks.images import check_images, whole_grid
from pipeline.models.networks.multiscale import MultiscaleQuantizer
from pipeline.models.networks.quantizer import VectorQuantizer
from pipeline.models.networks.vqgan.architecture import Architecture
from pipeline.models.networks.vqgan.blocks import dtype_of
from pipeline.models.networks.vqgan.coders import Decoder, Encoder


class Vqgan(nn.Module):
    """Images to codes of one grid, or of several scales, and back.

    Args:
        cosine: compare vectors and codes by their angle. With one grid the codes are used normalised as well.
        patch_nums: tokens along the side of each scale; without any there is one grid.
        phis: convolutions that the scales share.

    The other options are those of `VectorQuantizer`, and only steer training.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        cosine: bool = False,
        patch_nums: Sequence[int] | None = None,
        phis: int = 4,
        beta: float = 0.25,
        ema_decay: float | None = None,
        kmeans_init: bool = False,
        revive_after: int | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.downsampling = architecture.downsampling
        self.encoder = Encoder(architecture)
        K, C = architecture.vocab_size, architecture.embedding_dim
        upkeep: Any = {"ema_decay": ema_decay, "kmeans_init": kmeans_init, "revive_after": revive_after}
        self.quantize: VectorQuantizer = (
            VectorQuantizer(K, C, beta, cosine=cosine, **upkeep)
            if patch_nums is None
            else MultiscaleQuantizer(K, C, beta, patch_nums=patch_nums, phis=phis, cosine=cosine, **upkeep)
        )
        self.decoder = Decoder(architecture)

    def forward(self, img_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct images: (reconstruction [B, 3, H, W], the quantizer's loss, indices int64 [all tokens]).

        Raises TokenizerError for images of another shape or dtype than the class takes.
        """
        q_BChw, loss, indices = self.quantize(self.encode(img_B3HW))
        return self.decode(q_BChw), loss, indices

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Images to the vectors that are quantized, [B, C, h, w]. Raises TokenizerError as `forward` does."""
        check_images(img_B3HW)
        height, width = img_B3HW.shape[2:]
        whole_grid(height, width, self.downsampling)
        z_BChw: Tensor = self.encoder(img_B3HW.to(dtype_of(self.encoder)))
        return z_BChw

    def decode(self, q_BChw: Tensor) -> Tensor:
        """Codes [B, C, h, w] to images [B, 3, H, W], in the dtype the decoder computes in."""
        img_B3HW: Tensor = self.decoder(q_BChw.to(dtype_of(self.decoder)))
        return img_B3HW

    @torch.no_grad()
    def search(self, img_B3HW: Tensor) -> Indices:
        """The indices of images: int64 [B, h, w], or such of each scale. Raises TokenizerError as `forward` does."""
        return self.quantize.search(self.encode(img_B3HW))

    def decode_indices(self, idx: Indices) -> Tensor:
        """Indices as `search` finds them, or those of the first scales, to images [B, 3, H, W].

        Raises TokenizerError for an index outside the codebook.
        """
        return self.decode(self.quantize.features(idx))

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Token rows and columns (h, w) of an image of so many pixels.

        Raises TokenizerError when a side is not a positive multiple of the downsampling factor, and where scales end
        in another grid.
        """
        grid = whole_grid(height, width, self.downsampling)
        if isinstance(self.quantize, MultiscaleQuantizer):
            Scales(self.quantize.patch_nums).block_lengths(grid)
        return grid

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that decide what the model computes."""
        quantize = self.quantize
        plain = {"architecture": self.architecture, "cosine": quantize.cosine}
        if not isinstance(quantize, MultiscaleQuantizer):
            return plain
        return {**plain, "patch_nums": quantize.patch_nums, "phis": quantize.phis}
