"""A trial of a quantizer on fixed vectors, before it is trusted with a collection.

Shape letters: B images, C length of a code, h and w grid sides.
"""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.layouts.layout import Indices
from pipeline.models.networks.vqgan.model import Vqgan

_TOKENS = 4
"""Along each side of the images that are tried."""


@torch.no_grad()
def try_out(model: Vqgan, side: int, path: Path) -> None:
    """Raise TokenizerError unless the model uses the codes that its indices stand for.

    Args:
        side: of the grid that the quantizer takes.
        path: of the folder, for the error.
    """
    z_BChw = model.encode(fixed_images(_TOKENS * model.downsampling)).repeat(
        1, 1, -(-side // _TOKENS), -(-side // _TOKENS)
    )
    z_BChw = z_BChw[:, :, :side, :side].contiguous()
    idx: Indices = model.quantize.search(z_BChw)
    compare(model.quantize(z_BChw)[0], model.quantize.features(idx), path)


def compare(used: Tensor, stood_for: Tensor, path: Path) -> None:
    """Raise TokenizerError unless codes of one shape are equal but for float32 rounding."""
    difference = (used - stood_for).abs().max().item()
    scale = stood_for.abs().max().item()
    if not difference <= 1e-5 * max(scale, 1e-30):
        raise TokenizerError(
            f"{path}: on a test image the model itself used other codes than its indices stand for: they differ by up "
            f"to {difference:.3g}, where the largest value is {scale:.3g}; import the tokenizer anew"
        )


def fixed_images(side: int, count: int = 2) -> Tensor:
    """Float images [count, 3, side, side] in -1 .. 1, always the same: waves in every direction."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [
        torch.sin((channel + 1) * x / (7.0 + image) + (image + 2) * y / (5.0 + channel))
        for image in range(count)
        for channel in range(3)
    ]
    return torch.stack(waves).reshape(count, 3, side, side)
