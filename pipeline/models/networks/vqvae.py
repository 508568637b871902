"""A small convolutional VQ-VAE (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

Shape letters: B images of H x W pixels, h = H/4 and w = W/4 tokens, C embedding_dim, L_i tokens of block i,
L all tokens of one image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import TokenizerError
from pipeline.models.layouts.cuts import cut_named
from pipeline.models.networks.images import check_images, whole_grid
from pipeline.models.networks.quantizer import VectorQuantizer
from pipeline.models.rules.lookup import code_indices, listed


class ResidualBlock(nn.Module):
    """x + a 3x3 and a 1x1 convolution of x; inside it is `hidden` wide, so that narrow codes cost no depth."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, x_BChw: Tensor) -> Tensor:
        out: Tensor = x_BChw + self.body(x_BChw)
        return out


class SimpleVQVAE(nn.Module):
    """Two strided convolutions, a vector quantizer, two transposed convolutions.

    Images are float [B, 3, H, W] with sides that are multiples of 4 and any aspect ratio. `final_relu=False`
    lets codes leave the positive orthant; `residual_blocks` stand at token resolution, behind the encoder's
    convolutions and before the decoder's. The other options are those of `VectorQuantizer`.
    """

    downsampling = 4
    """Pixels per token along each side."""

    def __init__(
        self,
        vocab_size: int = 16,
        embedding_dim: int = 64,
        hidden_dim: int = 128,
        *,
        beta: float = 0.25,
        residual_blocks: int = 0,
        final_relu: bool = True,
        ema_decay: float | None = None,
        kmeans_init: bool = False,
        revive_after: int | None = None,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding_dim = embedding_dim
        self.hidden_dim = hidden_dim
        self.residual_blocks = residual_blocks
        self.final_relu = final_relu
        self.encoder = nn.Sequential(
            nn.Conv2d(3, hidden_dim, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden_dim, embedding_dim, 4, stride=2, padding=1),
            *(ResidualBlock(embedding_dim, hidden_dim) for _ in range(residual_blocks)),
            *([nn.ReLU()] if final_relu else []),
        )
        self.quantize = VectorQuantizer(
            vocab_size,
            embedding_dim,
            beta,
            ema_decay=ema_decay,
            kmeans_init=kmeans_init,
            revive_after=revive_after,
            cosine=cosine,
        )
        self.decoder = nn.Sequential(
            *(ResidualBlock(embedding_dim, hidden_dim) for _ in range(residual_blocks)),
            nn.ConvTranspose2d(embedding_dim, hidden_dim, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(hidden_dim, 3, 4, stride=2, padding=1),
        )

    @property
    def arguments(self) -> dict[str, int | bool]:
        """The arguments that decide what the trained model computes; the others only steer training."""
        return {
            "vocab_size": self.vocab_size,
            "embedding_dim": self.embedding_dim,
            "hidden_dim": self.hidden_dim,
            "residual_blocks": self.residual_blocks,
            "final_relu": self.final_relu,
            "cosine": self.quantize.cosine,
        }

    def forward(self, img_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct images: (reconstruction [B, 3, H, W], loss of the quantizer, indices int64 [B*h*w]).

        Raises TokenizerError for images of another shape or dtype than the class takes.
        """
        quantized_BChw, vq_loss, indices_N = self.quantize(self.encode(img_B3HW))
        return self.decode(quantized_BChw), vq_loss, indices_N

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Images to the vectors that are quantized, [B, C, h, w], in the dtype the encoder computes in.

        Raises TokenizerError as `forward` does.
        """
        self._check(img_B3HW)
        z_BChw: Tensor = self.encoder(img_B3HW.to(_dtype_of(self.encoder)))
        return z_BChw

    def decode(self, q_BChw: Tensor) -> Tensor:
        """Codes [B, C, h, w] to images [B, 3, H, W], in the dtype the decoder computes in."""
        img_B3HW: Tensor = self.decoder(q_BChw.to(_dtype_of(self.decoder)))
        return img_B3HW

    @torch.no_grad()
    def img_to_idxBl(self, imgs_B3HW: Tensor, layout: str = "diagonal") -> list[Tensor]:
        """Images to block index lists: int64 [B, L_i] for each block of the layout. No gradient.

        Raises TokenizerError as `forward` does, and ConfigError for an unknown layout.
        """
        return cut_named(layout).split(self.quantize.search(self.encode(imgs_B3HW)))

    def idxBl_to_var_input(self, idx_Bl: Sequence[Tensor]) -> Tensor:
        """Block index lists of any integer dtype to the embedding sequence x_BLC [B, L, C], block after block.

        Raises TokenizerError for indices that are no integers or not in the codebook, and for blocks of
        other shapes than [B, L_i].
        """
        shapes = [list(block.shape) for block in listed(idx_Bl)]
        if not shapes or any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
            raise TokenizerError(f"expected a list of blocks [B, L_i] with one B, not shapes {shapes}")
        return self.quantize.lookup(torch.cat([code_indices(block_BL) for block_BL in idx_Bl], dim=1))

    def idxBl_to_img(self, idx_Bl: Sequence[Tensor], layout: str, grid: tuple[int, int] | None = None) -> Tensor:
        """Block index lists to images [B, 3, 4h, 4w]. Without a grid (h, w) it is taken to be square.

        Raises TokenizerError as `GridCut.join` and `lookup` do, and ConfigError for an unknown layout.
        """
        return self.decode_indices(cut_named(layout).join(listed(idx_Bl), grid))

    def decode_indices(self, idx_Bhw: Tensor) -> Tensor:
        """Indices [B, h, w] of any integer dtype to images [B, 3, 4h, 4w]. Raises TokenizerError as `lookup` does."""
        return self.decode(self.quantize.features(idx_Bhw))

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Token rows and columns (h, w) of an image of so many pixels.

        Raises TokenizerError when a side is not a positive multiple of the downsampling factor.
        """
        return whole_grid(height, width, self.downsampling)

    def _check(self, img_B3HW: Tensor) -> None:
        check_images(img_B3HW)
        self.grid_of(*img_B3HW.shape[2:])


def _dtype_of(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
