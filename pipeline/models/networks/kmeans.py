"""Starting points for codes, taken from encoder vectors.

Shape letters: N vectors, K codes, C their length.
"""

import torch
from torch import Tensor

from pipeline.models.networks.float64 import in_float64
from pipeline.models.networks.search import nearest_codes

_VECTORS_PER_CODE = 64  # more do not move the centres enough to pay for the time


def draw_vectors(vectors_NC: Tensor, count: int) -> Tensor:
    """`count` random rows of at least one, [count, C]: distinct ones while they last, then repeats with a little noise.

    Equal codes would never part: the lowest index wins every tie, so the others are never chosen.
    """
    N = len(vectors_NC)
    order_N = torch.randperm(N, device=vectors_NC.device)
    drawn = vectors_NC[order_N[torch.arange(count, device=vectors_NC.device) % N]]
    if count > N:
        # In float64, for the sum of many finite squares can be too large for float32.
        scale = in_float64(vectors_NC).square().mean().sqrt().to(drawn)
        drawn[N:] += 0.01 * scale * torch.randn_like(drawn[N:])
    return drawn


@torch.no_grad()
def kmeans(vectors_NC: Tensor, K: int, iterations: int = 10) -> Tensor:
    """K centres [K, C] of float vectors by Lloyd's algorithm from random rows; N may be smaller than K.

    A centre that loses all its vectors is moved to a random one. A random subset stands in for more than
    64 K vectors.
    """
    vectors_NC = draw_vectors(vectors_NC, min(len(vectors_NC), _VECTORS_PER_CODE * K))
    centres_KC = draw_vectors(vectors_NC, K)
    for _ in range(iterations):
        nearest_N = nearest_codes(vectors_NC, centres_KC)
        counts_K1 = torch.bincount(nearest_N, minlength=K)[:, None]
        sums_KC = torch.zeros_like(centres_KC).index_add_(0, nearest_N, vectors_NC)
        centres_KC = torch.where(counts_K1 > 0, sums_KC / counts_K1, draw_vectors(vectors_NC, K))
    return centres_KC
