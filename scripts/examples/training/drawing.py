"""New tokens from logits.

Shape letters: B images, L positions of each, N of all, K codes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drawing:
    """How new tokens are drawn."""

    temperature: float
    top_k: int
    """Of how many of the likeliest codes."""
    seed: int

    def generator(self, device: torch.device) -> torch.Generator:
        """The source of all that is random in one picture."""
        return torch.Generator(device).manual_seed(self.seed)

    def tokens(self, logits_BLK: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A token for each position, int64 [B, L], and the probability that each had."""
        B, L, K = logits_BLK.shape
        logits_NK = logits_BLK.float().flatten(0, 1) / self.temperature
        least_N1 = logits_NK.topk(min(self.top_k, K)).values[:, -1:]
        p_NK = logits_NK.masked_fill(logits_NK < least_N1, -math.inf).softmax(dim=1)
        idx_N1 = torch.multinomial(p_NK, 1, generator=generator)
        return idx_N1.view(B, L), p_NK.gather(1, idx_N1).view(B, L)
