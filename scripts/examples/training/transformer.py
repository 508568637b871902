"""A transformer over embedding sequences. Put your own in its place.

Shape letters: B images, L tokens of an image, l of them so far, S start tokens, C length of a code, D width of the
model, K codes, H heads, d width of a head.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.store import TokenStore


class Size(NamedTuple):
    """Of a transformer."""

    dim: int
    """D."""
    depth: int
    """Blocks."""
    heads: int
    """H, a divisor of D."""


Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values, [B, H, L, d] each, to [B, H, L, d]."""


def attend_to_all(q_BHLd: Tensor, k_BHLd: Tensor, v_BHLd: Tensor) -> Tensor:
    """Every position sees every other one."""
    return F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd)


def attend_to_earlier(q_BHLd: Tensor, k_BHLd: Tensor, v_BHLd: Tensor) -> Tensor:
    """A position sees itself and those before it."""
    return F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd, is_causal=True)


class AttendToEarlierBlocks(nn.Module):
    """A position sees all of its own block, and of the blocks before it.

    1 . . . .
    1 1 1 1 1      blocks of 1 and 4 tokens
    1 1 1 1 1
    1 1 1 1 1
    1 1 1 1 1
    """

    sees_LL: Tensor

    def __init__(self, block_lengths: Sequence[int]) -> None:
        super().__init__()
        block_L = torch.repeat_interleave(torch.arange(len(block_lengths)), torch.tensor(block_lengths))
        self.register_buffer("sees_LL", block_L[:, None] >= block_L, persistent=False)

    def forward(self, q_BHLd: Tensor, k_BHLd: Tensor, v_BHLd: Tensor) -> Tensor:
        L = q_BHLd.shape[2]
        return F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd, attn_mask=self.sees_LL[:L, :L])


class Block(nn.Module):
    """Self-attention, then an MLP, each behind a LayerNorm and beside a residual connection."""

    def __init__(self, dim: int, heads: int, attention: Attention) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.attend(self.norm1(x_BLD))
        return x_BLD + self.mlp(self.norm2(x_BLD))

    def attend(self, x_BLD: Tensor) -> Tensor:
        q_BHLd, k_BHLd, v_BHLd = self.qkv(x_BLD).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y_BHLd = self.attention(q_BHLd, k_BHLd, v_BHLd)
        return self.out(y_BHLd.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """From a class and the embeddings of l tokens to logits at S + l positions, of which the first S start it all.

    Class `num_classes` means none.

    Args:
        positions: the most that S + l may be.
        attention: which positions see which.
        starts: S.
    """

    def __init__(
        self,
        store: TokenStore,
        num_classes: int,
        size: Size,
        positions: int,
        attention: Attention,
        starts: int = 1,
    ) -> None:
        super().__init__()
        dim, depth, heads = size
        self.starts = starts
        self.start = nn.Embedding(num_classes + 1, dim)
        self.embed = nn.Sequential(nn.Linear(store.embedding_dim, dim), nn.LayerNorm(dim))
        self.position_LD = nn.Parameter(torch.randn(positions, dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, heads, attention) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, store.vocab_size)
        nn.init.zeros_(self.head.weight)

    def forward(self, x_BlC: Tensor, class_B: Tensor) -> Tensor:
        return self.logits(self.embed(x_BlC), class_B)

    def logits(self, x_BlD: Tensor, class_B: Tensor) -> Tensor:
        """Those of embeddings that have the width of the model already."""
        start_BSD = self.start(class_B)[:, None].expand(-1, self.starts, -1)
        x_BLD = torch.cat([start_BSD, x_BlD], dim=1)
        x_BLD = x_BLD + self.position_LD[: x_BLD.shape[1]]
        return self.head(self.norm(self.blocks(x_BLD)))
