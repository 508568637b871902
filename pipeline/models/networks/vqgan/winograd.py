"""3x3 convolutions with a quarter of the products, or four ninths of small images, for VQ-GANs on a CPU.

Winograd's minimal filtering, F(4x4, 3x3) and F(2x2, 3x3) of Lavin and Gray, https://arxiv.org/abs/1509.09308:

    out = A^T [ (G w G^T) * (B^T x B) ] A        for each tile of m x m results, of m + 2 x m + 2 values of x

The products in the middle, summed over channels, are one matrix product for each of the (m + 2)^2 places of a tile.
Sums are taken in another order than by a plain convolution, so results differ in their last bits.

Shape letters: B images, D and E channels before and after, H and W sides; P places of a tile, T tiles of a strip.
"""

from functools import cache

import torch
from torch import Tensor, nn

_LEAST_CHANNELS = 64
"""With fewer, moving values about takes longer than the products that are saved."""
_LEAST_SIDE = 16
"""Of smaller images there are too few tiles even of 2x2."""
_STRIP_TILES = 64
"""So many at a time, at least a row: what is made of them stays in a cache, and the weights come from memory once."""
_LARGE_SIDE = 32
"""From here on tiles are of 4x4: of smaller images there are too few of these for 36 matrix products."""

_BT_4 = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G_4 = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_AT_4 = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_BT_2 = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_G_2 = ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1))
_AT_2 = ((1, 1, 1, 0), (0, 1, -1, -1))
_MATRICES = {2: (_BT_2, _G_2, _AT_2), 4: (_BT_4, _G_4, _AT_4)}


class Conv3x3(nn.Conv2d):
    """A convolution that keeps the size of images."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(inner, outer, 3, padding=1)
        self._transformed: tuple[tuple[int, int, int], Tensor] | None = None

    def forward(self, x_BDHW: Tensor) -> Tensor:
        """[B, D, H, W] to [B, E, H, W]."""
        if not self._pays(x_BDHW):
            return super().forward(x_BDHW)
        m = 4 if min(x_BDHW.shape[2:]) >= _LARGE_SIDE else 2
        return _convolved(x_BDHW, self._weights(m), self.bias, m)

    @property
    def is_wide(self) -> bool:
        """Whether it has so many channels that tiles are faster, of images that are not tiny."""
        return min(self.in_channels, self.out_channels) >= _LEAST_CHANNELS

    def _pays(self, x_BDHW: Tensor) -> bool:
        """Whether tiles are faster: float32 on a CPU in channels_last memory, where no gradient is asked for."""
        return (
            x_BDHW.is_cpu
            and x_BDHW.dtype == torch.float32
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and type(x_BDHW) is Tensor  # neither a shape without values nor anything else that stands for a tensor
            and self.is_wide
            and min(x_BDHW.shape[2:]) >= _LEAST_SIDE
            and not any(side % 4 for side in x_BDHW.shape[2:])
            and x_BDHW.is_contiguous(memory_format=torch.channels_last)
        )

    def _weights(self, m: int) -> Tensor:
        """G w G^T, float32 [P, D, E]; made once for weights that stay as they are."""
        key = (m, self.weight.data_ptr(), 0 if self.weight.is_inference() else self.weight._version)
        known = self._transformed  # read once: another thread may be here, too
        if known is None or known[0] != key:
            G = torch.tensor(_MATRICES[m][1], dtype=torch.float64)
            weights_PDE = torch.einsum("pi,edij,qj->pqde", G, self.weight.detach().double(), G).flatten(0, 1)
            known = self._transformed = key, weights_PDE.float().contiguous()
        return known[1]


@cache
def _transforms(m: int) -> tuple[Tensor, Tensor]:
    """What makes P places of the (m + 2)^2 values of a tile, [P, P], and its m^2 results of P products, [m^2, P]."""
    BT, _, AT = (torch.tensor(matrix, dtype=torch.float32) for matrix in _MATRICES[m])
    return torch.kron(BT, BT), torch.kron(AT, AT)


def _convolved(x_BDHW: Tensor, weights_PDE: Tensor, bias_E: Tensor | None, m: int) -> Tensor:
    """Strip by strip of each image, so that an image has the same results in whatever batch it comes."""
    x_BHWD = x_BDHW.permute(0, 2, 3, 1)
    B, H, W, _ = x_BHWD.shape
    out_BHWE = x_BHWD.new_empty(B, H, W, weights_PDE.shape[2])
    height = m * min(max(_STRIP_TILES * m // W, 1), H // m)
    for x_HWD, out_HWE in zip(x_BHWD, out_BHWE, strict=True):
        for top in range(0, H, height):
            strip = _with_surroundings(x_HWD, top, min(top + height, H))
            _strip(strip, weights_PDE, bias_E, m, out_HWE[top : top + height])
    return out_BHWE.permute(0, 3, 1, 2)


def _with_surroundings(x_HWD: Tensor, top: int, end: int) -> Tensor:
    """Rows top to end, and a value more at each side, zero outside of the image: [end - top + 2, W + 2, D]."""
    H, W, D = x_HWD.shape
    strip = x_HWD.new_empty(end - top + 2, W + 2, D)
    strip[:, :: W + 1] = 0
    first, last = max(top - 1, 0), min(end + 1, H)
    strip[: first - top + 1] = 0
    strip[last - top + 1 :] = 0
    strip[first - top + 1 : last - top + 1, 1:-1] = x_HWD[first:last]
    return strip


def _strip(x_HWD: Tensor, weights_PDE: Tensor, bias_E: Tensor | None, m: int, out: Tensor) -> None:
    """The results [H - 2, W - 2, E] of a strip with a value of its surroundings at each side."""
    into_places, of_products = _transforms(m)
    P, D, E = weights_PDE.shape
    tiles = x_HWD.unfold(0, m + 2, m).unfold(1, m + 2, m).permute(3, 4, 0, 1, 2)  # [m + 2, m + 2, rows, columns, D]
    rows, columns = tiles.shape[2:4]
    places_PTD = torch.mm(into_places, tiles.reshape(P, -1)).view(P, rows * columns, D)
    products_PTE = torch.bmm(places_PTD, weights_PDE)
    results = torch.mm(of_products, products_PTE.view(P, -1)).view(m, m, rows, columns, E)
    if bias_E is not None:
        results += bias_E
    out.view(rows, m, columns, m, E).copy_(results.permute(2, 0, 3, 1, 4))
