"""Whether two ways lead to the same tokens, and why not where they do not."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.networks.vqvae import SimpleVQVAE

_EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Agreement:
    """Tokens of some images, compared one by one."""

    tokens: int
    different: int
    ties: int = 0
    """Of the different ones, those whose two codes are equally near as far as float32 can tell."""

    @property
    def share(self) -> float:
        """Of equal tokens."""
        return 1 - self.different / self.tokens


def compare(ours_BL: Tensor, theirs_BL: Tensor) -> Agreement:
    """Two int64 [B, L]."""
    return Agreement(ours_BL.numel(), int((ours_BL != theirs_BL).sum()))


@torch.no_grad()
def compare_with_plain(ours_BL: Tensor, model: SimpleVQVAE, pixels_B3HW: Tensor) -> Agreement:
    """Tokens int64 [B, L], row-major, beside those of a plain float32 path that is searched in float64.

    Args:
        pixels_B3HW: normalised float32, encoded in one batch, in contiguous memory, by the model as it was built.
    """
    z_BChw = model.encoder(pixels_B3HW.contiguous())
    z_NC = z_BChw.permute(0, 2, 3, 1).reshape(-1, z_BChw.shape[1]).double()
    codes_KC = model.quantize.embedding.weight.double()
    theirs_N = torch.cat([_distances(z_nC, codes_KC).argmin(1) for z_nC in z_NC.split(4096)])
    ours_N = ours_BL.reshape(-1)
    differs_D = (ours_N != theirs_N).nonzero().squeeze(1)
    z_DC, ours_DC, theirs_DC = z_NC[differs_D], codes_KC[ours_N[differs_D]], codes_KC[theirs_N[differs_D]]
    farther_D = (z_DC - ours_DC).square().sum(1) - (z_DC - theirs_DC).square().sum(1)
    # The search sums C products of each code; a sum of n terms may be off by n roundings of the sum of their sizes.
    sizes_D = sum((code.square() + 2 * (z_DC * code).abs()).sum(1) for code in (ours_DC, theirs_DC))
    ties = int((farther_D <= codes_KC.shape[1] * _EPSILON * sizes_D).sum())
    return Agreement(len(ours_N), len(differs_D), ties)


def _distances(z_nC: Tensor, codes_KC: Tensor) -> Tensor:
    return codes_KC.square().sum(1) - 2 * z_nC @ codes_KC.T
