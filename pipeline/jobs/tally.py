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
        uses_K = self.sums[2:].cpu().double()  # not every accelerator has float64
        shares = uses_K[uses_K > 0] / uses_K.sum()
        return math.exp(-(shares * shares.log()).sum().item())

    @property
    def codes_used(self) -> int:
        """Codes with at least one use."""
        return int((self.sums[2:] > 0).sum())


@dataclass
class MeanImage:
    """What a number of images have in common: how well each is predicted by the mean of all the others."""

    sums: Tensor
    """int64 [2 + 3HW]: number of images, squares of all values, and each value summed over the images."""

    @classmethod
    def of(cls, img_B3HW: Tensor) -> "MeanImage":
        """That of uint8 images."""
        sums = img_B3HW.new_zeros(2 + img_B3HW.shape[1:].numel(), dtype=torch.int64)
        for img_b3HW in img_B3HW.split(64):  # eight bytes a value, and not for all of them at once
            values = img_b3HW.long()
            sums[0] += len(values)
            sums[1] += values.square().sum()
            sums[2:] += values.sum(dim=0).flatten()
        return cls(sums)

    @property
    def psnr(self) -> float | None:
        """PSNR of the prediction in dB.

        None where it says nothing: for a single image, and for images that differ by less than a grey level.
        """
        count = int(self.sums[0])
        if count < 2:
            return None
        sums = self.sums.cpu()  # not every accelerator has float64
        total = sums[1].item() - sums[2:].double().square().sum().item() / count
        # An image differs from the mean of the others by n / (n - 1) of its difference from that of all.
        error = total / count / (len(self.sums) - 2) * (count / (count - 1)) ** 2
        return 10 * math.log10(255**2 / error) if error > 1 else None
