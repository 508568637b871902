"""The multi-scale residual quantizer of VAR (Tian et al. 2024, https://arxiv.org/abs/2404.02905, algorithm 1).

Shape letters: B images, C embedding_dim, S scales, p tokens along the side of a scale, P of the finest, K codes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import TokenizerError
from pipeline.models.arithmetic import float32_arithmetic
from pipeline.models.networks.search import check_same_device, nearest_codes
from pipeline.models.rules.multiscale import (
    PATCH_NUMS,
    PHI_BIAS,
    PHI_WEIGHT,
    Phi,
    downsample,
    running_sums,
    upsample,
)


def phi_numbers(phis: int, scales: int) -> list[int]:
    """Which of the convolutions serves each scale: the one whose tick is nearest to where the scale stands in 0 .. 1.

    Some scales of the published tokenizers stand just between two ticks, and rounding decides: the ticks are computed
    as there.
    """
    edge = 1 / 3 / phis if phis == 4 else 1 / 2 / phis
    ticks = np.linspace(edge, 1 - edge, phis)
    return [int(np.argmin(np.abs(ticks - scale / max(scales - 1, 1)))) for scale in range(scales)]


class MultiscaleQuantizer(nn.Module):
    """Codes a feature map [B, C, P, P] at several scales, each of which codes what the coarser ones have left over.

    Args:
        patch_nums: p of each scale, the coarsest first, P the last.
        phis: convolutions that the scales share, at most one for each.
        cosine: search by the angle between vector and code. The code itself is used as it is.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        beta: float = 0.25,
        *,
        patch_nums: Sequence[int],
        phis: int = 4,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.beta = beta
        self.patch_nums = tuple(patch_nums)
        self.cosine = cosine
        self.phis = phis
        self.embedding = nn.Embedding(num_embeddings, embedding_dim)
        nn.init.uniform_(self.embedding.weight, -1 / num_embeddings, 1 / num_embeddings)
        self.phi = nn.ModuleList(nn.Conv2d(embedding_dim, embedding_dim, 3, padding=1) for _ in range(phis))
        self._phi_S = phi_numbers(phis, len(self.patch_nums))

    def forward(self, z_BCPP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize z [B, C, P, P] of any floating dtype.

        Returns the sum of all scales in z's place and dtype, with the gradient of z passed straight through; the mean
        over scales of mean((sum − sg[z])²) + beta mean((sg[sum] − z)²), a float32 scalar; and the indices of all
        scales, int64 [B * sum of p²], image after image.

        Raises TokenizerError for a z of another shape, of integers, or on another device.
        """
        self._check(z_BCPP)
        z = z_BCPP.float()
        losses, blocks, sum_BCPP = [], [], z
        with float32_arithmetic("ieee"), torch.autocast(z.device.type, enabled=False):
            for idx_Bpp, sum_BCPP in self._scales(z.detach()):
                losses.append(F.mse_loss(sum_BCPP, z.detach()) + self.beta * F.mse_loss(sum_BCPP.detach(), z))
                blocks.append(idx_Bpp.flatten(1))
            straight_BCPP = sum_BCPP.detach() + (z - z.detach())
        return straight_BCPP.to(z_BCPP.dtype), torch.stack(losses).mean(), torch.cat(blocks, dim=1).flatten()

    def get_codebook(self) -> Tensor:
        """The table [num_embeddings, embedding_dim] whose rows are added up."""
        return self.embedding.weight

    @torch.no_grad()
    def search(self, z_BCPP: Tensor) -> list[Tensor]:
        """Indices of each scale, int64 [B, p, p]; float32 throughout, whatever z is.

        Raises TokenizerError as `forward` does.
        """
        self._check(z_BCPP)
        with float32_arithmetic("ieee"), torch.autocast(z_BCPP.device.type, enabled=False):
            return [idx_Bpp for idx_Bpp, _ in self._scales(z_BCPP.float())]

    def features(self, idx: Sequence[Tensor]) -> Tensor:
        """The sum [B, C, P, P], float32, of the first scales, int [B, p, p] each: of all of them, or of fewer.

        Raises TokenizerError for an index outside the codebook.
        """
        sum_BCPP = None
        with float32_arithmetic("ieee"), torch.autocast(self.embedding.weight.device.type, enabled=False):
            for sum_BCPP in running_sums(idx, self.patch_nums, self.embedding.weight, self._phi()):  # noqa: B007
                pass
        assert sum_BCPP is not None, "there is at least one scale"
        return sum_BCPP

    def rule_arrays(self) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
        """What the rule `multiscale` needs beside the codebook: the scales, and a convolution for each."""
        phi = self._phi()
        return {
            PATCH_NUMS: np.array(self.patch_nums, np.int64),
            PHI_WEIGHT: phi.weight_SCC33.detach().float().cpu().numpy(),
            PHI_BIAS: phi.bias_SC.detach().float().cpu().numpy(),
        }

    def _phi(self) -> Phi:
        weights, biases = ([getattr(conv, name) for conv in self.phi] for name in ("weight", "bias"))
        return Phi(torch.stack([weights[n] for n in self._phi_S]), torch.stack([biases[n] for n in self._phi_S]))

    def _scales(self, z_BCPP: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Indices int64 [B, p, p] of each scale, and the sum [B, C, P, P] up to it."""
        phi, P = self._phi(), self.patch_nums[-1]
        rest_BCPP, sum_BCPP = z_BCPP, torch.zeros_like(z_BCPP)
        for scale, p in enumerate(self.patch_nums):
            last = scale == len(self.patch_nums) - 1
            idx_Bpp = self._nearest(downsample(rest_BCPP, p, last))
            codes_BCpp = self.embedding(idx_Bpp).permute(0, 3, 1, 2)
            h_BCPP = phi(scale, upsample(codes_BCpp, P, last).contiguous())
            sum_BCPP = sum_BCPP + h_BCPP
            rest_BCPP = rest_BCPP - h_BCPP.detach()
            yield idx_Bpp, sum_BCPP

    def _nearest(self, rest_BCpp: Tensor) -> Tensor:
        B, C, p, _ = rest_BCpp.shape
        rest_NC, codes_KC = rest_BCpp.permute(0, 2, 3, 1).reshape(-1, C), self.embedding.weight.detach()
        if self.cosine:
            rest_NC, codes_KC = F.normalize(rest_NC, dim=1), F.normalize(codes_KC, dim=1)
        return nearest_codes(rest_NC, codes_KC).reshape(B, p, p)

    def _check(self, z_BCPP: Tensor) -> None:
        P = self.patch_nums[-1]
        if z_BCPP.dim() != 4 or tuple(z_BCPP.shape[1:]) != (self.embedding_dim, P, P):
            raise TokenizerError(
                f"the quantizer of scales up to {P} takes vectors [B, {self.embedding_dim}, {P}, {P}], "
                f"not {list(z_BCPP.shape)}"
            )
        if not z_BCPP.is_floating_point():
            raise TokenizerError(f"the quantizer takes floating-point vectors, not {z_BCPP.dtype}")
        check_same_device(z_BCPP, self.embedding.weight)
