"""Before a faster search is used, it has to find what the plain one finds, on the device and in the shapes of the job.

Shape letters: B images, h and w grid sides, N vectors, K codes, C their length, D vectors that got different codes.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.networks.search import Search, nearest_codes


@runtime_checkable
class Searcher(Protocol):
    """A quantizer whose search can be exchanged."""

    nearest: Search

    def get_codebook(self) -> Tensor:
        """The table [K, C]."""

    def search(self, z_BChw: Tensor, /) -> object:
        """The indices of vectors [B, C, h, w], found by `nearest`."""


def use_if_equal(fast: Search, quantizer: Searcher, images: int, grid: tuple[int, int]) -> None:
    """Have a quantizer use another search from now on, unless that differs from the plain one for a batch of vectors.

    Differences that rounding in float32 explains are none. Raises TokenizerError where there are others, and where the
    search fails; the quantizer then uses the plain one.
    """
    z_BChw = _vectors(quantizer.get_codebook(), images, grid)
    quantizer.nearest = _Compared(fast)
    try:
        quantizer.search(z_BChw)
    except Exception as error:  # of Triton, its compiler and the driver, whatever they raise
        quantizer.nearest = nearest_codes
        raise TokenizerError(str(error).strip() or type(error).__name__) from error
    quantizer.nearest = fast


@torch.no_grad()
def _vectors(codebook_KC: Tensor, images: int, grid: tuple[int, int]) -> Tensor:
    """Vectors [B, C, h, w] half-way between two codes or nearly so, which only an exact search tells apart."""
    generator = torch.Generator(codebook_KC.device).manual_seed(0)
    device = codebook_KC.device
    ends_2Bhw = torch.randint(len(codebook_KC), (2, images, *grid), generator=generator, device=device)
    z_BhwC = codebook_KC[ends_2Bhw].float().mean(dim=0)
    z_BhwC += 0.1 * z_BhwC.std(correction=0) * torch.randn(z_BhwC.shape, generator=generator, device=device)
    return z_BhwC.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Compared:
    """A search that raises TokenizerError where it differs from the plain one."""

    fast: Search

    def __call__(self, z_NC: Tensor, codebook_KC: Tensor) -> Tensor:
        indices_N, found_N = nearest_codes(z_NC, codebook_KC), self.fast(z_NC, codebook_KC)
        differ_N = found_N != indices_N
        if not equally_near(z_NC[differ_N], codebook_KC, found_N[differ_N], indices_N[differ_N]):
            raise TokenizerError(f"it finds other codes for {int(differ_N.sum()):,} of {len(z_NC):,} vectors")
        return indices_N


def equally_near(z_DC: Tensor, codebook_KC: Tensor, a_D: Tensor, b_D: Tensor) -> bool:
    """Whether float32 cannot tell which of two codes is nearer to each vector.

    A distance |e|² − 2 z·e passes C + 2 roundings, each off by at most 2^-24 of the sizes of what it adds up, and a
    search compares two of them.
    """
    K, C = codebook_KC.shape
    if not bool(((a_D >= 0) & (a_D < K)).all()):
        return False
    z_DC, a_DC, b_DC = z_DC.double(), codebook_KC[a_D].double(), codebook_KC[b_D].double()
    distance_D = (a_DC.square() - b_DC.square() - 2 * z_DC * (a_DC - b_DC)).sum(dim=1).abs()
    sizes_D = sum((e.square() + 2 * (z_DC * e).abs()).sum(dim=1) for e in (a_DC, b_DC))
    return bool((distance_D <= (C + 2) * 2.0**-24 * sizes_D).all())
