"""New tokens from logits."""

import math

import torch
from torch import Tensor


def draw(logits_BLK: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A token for each position from its `top_k` likeliest, int64 [B, L], and the probability that each had."""
    B, L, K = logits_BLK.shape
    logits_NK = logits_BLK.float().flatten(0, 1) / temperature
    least_N1 = logits_NK.topk(min(top_k, K)).values[:, -1:]
    p_NK = logits_NK.masked_fill(logits_NK < least_N1, -math.inf).softmax(dim=1)
    idx_N1 = torch.multinomial(p_NK, 1, generator=generator)
    return idx_N1.view(B, L), p_NK.gather(1, idx_N1).view(B, L)
