"""A trial of a tokenizer on fixed images when it is loaded, before it is trusted with a collection."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import TokenizerError

TOKENS = 4
"""Along each side of the images that are tried."""


def compare(used: Tensor, stood_for: Tensor, path: Path) -> None:
    """Raise TokenizerError unless the codes that a model used are those that its indices stand for, but for rounding.

    Args:
        path: of the tokenizer folder, for the error.
    """
    if used.shape != stood_for.shape:
        raise TokenizerError(
            f"{path}: on a test image the model itself used codes of shape {list(used.shape)}, and its indices stand "
            f"for {list(stood_for.shape)}; import the tokenizer anew"
        )
    difference, scale = (used - stood_for).abs().max().item(), stood_for.abs().max().item()
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
