"""The multi-scale residual quantizer of VAR (Tian et al. 2024, https://arxiv.org/abs/2404.02905, algorithm 1).

Shape letters: B images, C embedding_dim, S scales, p tokens along the side of a scale, P of the finest, K codes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import TokenizerError
from pipeline.models.arithmetic import float32_arithmetic
from pipeline.models.networks.quantizer import VectorQuantizer
from pipeline.models.rules.multiscale import PATCH_NUMS, PHI_BIAS, PHI_WEIGHT, Phi, running_sums
from pipeline.models.rules.resizing import downsample, upsample


def phi_numbers(phis: int, scales: int) -> list[int]:
    """Which of the convolutions serves each scale: the one whose tick is nearest to where the scale stands in 0 .. 1.

    Some scales of the published tokenizers stand just between two ticks, and rounding decides: the ticks are computed
    as there.
    """
    edge = 1 / 3 / phis if phis == 4 else 1 / 2 / phis
    ticks = np.linspace(edge, 1 - edge, phis)
    return [int(np.argmin(np.abs(ticks - scale / max(scales - 1, 1)))) for scale in range(scales)]


@dataclass(frozen=True)
class _Scale:
    """What comes of one scale."""

    idx_Bpp: Tensor
    """int64 [B, p, p]."""
    rest_NC: Tensor
    """What it was given to code, [B * p * p, C]."""
    sum_BCPP: Tensor
    """The sum up to it."""


class MultiscaleQuantizer(VectorQuantizer):
    """Codes a feature map [B, C, P, P] at several scales, each of which codes what the coarser ones have left over.

    The options of training are those of `VectorQuantizer`; what the codebook follows are the rests of all scales.

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
        ema_decay: float | None = None,
        kmeans_init: bool = False,
        revive_after: int | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            beta,
            ema_decay=ema_decay,
            kmeans_init=kmeans_init,
            revive_after=revive_after,
            cosine=cosine,
        )
        self.patch_nums = tuple(patch_nums)
        self.phis = phis
        self.phi = nn.ModuleList(nn.Conv2d(embedding_dim, embedding_dim, 3, padding=1) for _ in range(phis))
        self._phi_S = phi_numbers(phis, len(self.patch_nums))
        for number in set(range(phis)) - set(self._phi_S):
            self.phi[number].requires_grad_(False)  # ranks of a training would wait for its gradient

    def forward(self, z_BCPP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize z [B, C, P, P] of any floating dtype.

        Returns the sum of all scales in z's place and dtype, with the gradient of z passed straight through; the mean
        over scales of mean((sum − sg[z])²) + beta mean((sg[sum] − z)²), a float32 scalar; and the indices of all
        scales, int64 [B * sum of p²], image after image.

        Raises TokenizerError for a z of another shape, of integers, or on another device.
        """
        self._check(z_BCPP)
        z = z_BCPP.float()
        learns = self.training and torch.is_grad_enabled() and self._keeps_up
        with _exactly(z):
            if learns and self.codes_wait:
                self._place_codes(self._rests(z.detach()))
            found = list(self._scales(z.detach()))
            losses = [
                _mean_squared(scale.sum_BCPP, z.detach()) + self.beta * _mean_squared(scale.sum_BCPP.detach(), z)
                for scale in found
            ]
            if learns:
                self._count_use(
                    torch.cat([scale.rest_NC for scale in found]),
                    torch.cat([scale.idx_Bpp.flatten() for scale in found]),
                )
            straight_BCPP = found[-1].sum_BCPP.detach() + (z - z.detach())
        indices = torch.cat([scale.idx_Bpp.flatten(1) for scale in found], dim=1).flatten()
        return straight_BCPP.to(z_BCPP.dtype), torch.stack(losses).mean(), indices

    def get_codebook(self) -> Tensor:
        """The table [num_embeddings, embedding_dim] whose rows are added up."""
        return self.embedding.weight

    @torch.no_grad()
    def search(self, z_BCPP: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Indices of each scale, int64 [B, p, p]; float32 throughout, whatever z is.

        Raises TokenizerError as `forward` does.
        """
        self._check(z_BCPP)
        with _exactly(z_BCPP):
            return [scale.idx_Bpp for scale in self._scales(z_BCPP.float())]

    @torch.no_grad()
    def place_codes(self, z_BCPP: Tensor) -> None:
        """As of `VectorQuantizer`, to rests of the scales."""
        self._check(z_BCPP)
        with _exactly(z_BCPP):
            self._place_codes(self._rests(z_BCPP.float()))

    def features(self, idx: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """The sum [B, C, P, P], float32, of the first scales, int [B, p, p] each: of all of them, or of fewer.

        Raises TokenizerError for an index outside the codebook.
        """
        sum_BCPP = None
        with _exactly(self.embedding.weight):
            for sum_BCPP in running_sums(idx, self.patch_nums, self.embedding.weight, self._phi()):  # noqa: B007
                pass
        assert sum_BCPP is not None, "there is at least one scale"
        return sum_BCPP

    def rule_arrays(self) -> dict[str, npt.NDArray[Any]]:
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

    def _scales(self, z_BCPP: Tensor) -> Iterator[_Scale]:
        phi, P = self._phi(), self.patch_nums[-1]
        rest_BCPP, sum_BCPP = z_BCPP, torch.zeros_like(z_BCPP)
        for scale, p in enumerate(self.patch_nums):
            last = scale == len(self.patch_nums) - 1
            rest_NC = downsample(rest_BCPP, p, last).permute(0, 2, 3, 1).reshape(-1, self.embedding_dim)
            idx_Bpp = self._nearest(rest_NC).reshape(-1, p, p)
            codes_BCpp = self.embedding(idx_Bpp).permute(0, 3, 1, 2)
            h_BCPP = phi(scale, upsample(codes_BCpp, P, last).contiguous())
            sum_BCPP = sum_BCPP + h_BCPP
            rest_BCPP = rest_BCPP - h_BCPP.detach()
            yield _Scale(idx_Bpp, rest_NC, sum_BCPP)

    @torch.no_grad()
    def _rests(self, z_BCPP: Tensor) -> Tensor:
        """What the scales are given to code, [N, C]."""
        return torch.cat([scale.rest_NC for scale in self._scales(z_BCPP)])

    def _nearest(self, rest_NC: Tensor) -> Tensor:
        codes_KC = self.embedding.weight.detach()
        if self.cosine:
            rest_NC, codes_KC = F.normalize(rest_NC, dim=1), F.normalize(codes_KC, dim=1)
        return self.nearest(rest_NC, codes_KC)

    def _check(self, z_BCPP: Tensor) -> None:
        P = self.patch_nums[-1]
        if z_BCPP.dim() != 4 or tuple(z_BCPP.shape[2:]) != (P, P):
            raise TokenizerError(
                f"the quantizer of scales up to {P} takes vectors [B, {self.embedding_dim}, {P}, {P}], "
                f"not {list(z_BCPP.shape)}"
            )
        super()._check(z_BCPP)


@contextlib.contextmanager
def _exactly(where: Tensor) -> Iterator[None]:
    """Float32 arithmetic on the device of a tensor: a code that is chosen otherwise changes all finer scales."""
    with float32_arithmetic("ieee"), torch.autocast(where.device.type, enabled=False):
        yield


def _mean_squared(a: Tensor, b: Tensor) -> Tensor:
    """0, with a gradient of nothing, for no images at all: other processes wait for the gradient."""
    return F.mse_loss(a, b) if a.numel() > 0 else (a - b).square().sum()
