"""PSNR and code use as integer sums: adding up those of several processes gives exactly those of one."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Tally:
    """What a number of images and their reconstructions add up to."""

    sums: Tensor
    """int64 [2 + K]: squared error over all uint8 values, number of values, uses of each code."""

    @classmethod
    def empty(cls, vocab_size: int, device: torch.device) -> "Tally":
        """A tally of no images."""
        return cls(torch.zeros(2 + vocab_size, dtype=torch.int64, device=device))

    def add(self, img_B3HW: Tensor, reconstruction_B3HW: Tensor, indices_N: Tensor) -> None:
        """Count uint8 images, their uint8 reconstructions, and the codes of all their positions."""
        error = img_B3HW.int() - reconstruction_B3HW.int()
        self.sums[0] += error.square().sum()
        self.sums[1] += error.numel()
        self.sums[2:] += torch.bincount(indices_N, minlength=self.vocab_size)

    @property
    def vocab_size(self) -> int:
        """K, the number of codes."""
        return len(self.sums) - 2

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in dB, from the mean squared error over all images: 10·log10(255²/MSE).

        0 for no images.
        """
        if not self.sums[1]:
            return 0.0
        mean_squared_error = self.sums[0].item() / self.sums[1].item()
        # One unit of error in all values together bounds what a perfect reconstruction would make infinite.
        return 10 * math.log10(255**2 / max(mean_squared_error, 1 / self.sums[1].item()))

    @property
    def perplexity(self) -> float:
        """exp of the entropy of code use: K for even use, 1 when one code takes everything."""
        uses_K = self.sums[2:].double()
        shares = uses_K[uses_K > 0] / uses_K.sum()
        return math.exp(-(shares * shares.log()).sum().item())

    @property
    def codes_used(self) -> int:
        """Codes with at least one use."""
        return int((self.sums[2:] > 0).sum())
