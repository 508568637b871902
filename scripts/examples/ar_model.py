"""The model of train_ar.py: a decoder-only transformer over embedding sequences. Put your own in its place.

What the training needs of a model: `model(x_BlC, class_B)` turns the embeddings of l tokens and a class into logits
for l + 1 tokens.

Shape letters: B images, L tokens of an image, l of them so far, C length of a code, D width of the model, K codes,
H heads, d width of a head.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from pipeline.loader import TokenBatch
from pipeline.store import TokenStore

MAX_CLASSES = 100_000


class Block(nn.Module):
    """Causal self-attention, then an MLP, each behind a LayerNorm and beside a residual connection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.attend(self.norm1(x_BLD))
        return x_BLD + self.mlp(self.norm2(x_BLD))

    def attend(self, x_BLD: Tensor) -> Tensor:
        q_BHLd, k_BHLd, v_BHLd = self.qkv(x_BLD).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y_BHLd = F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd, is_causal=True)
        return self.out(y_BHLd.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """From the embeddings of l tokens and a class to logits for l + 1 tokens. Class `num_classes` means none."""

    def __init__(self, store: TokenStore, num_classes: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.start = nn.Embedding(num_classes + 1, dim)
        self.embed = nn.Sequential(nn.Linear(store.embedding_dim, dim), nn.LayerNorm(dim))
        self.position_LD = nn.Parameter(torch.randn(store.geometry.num_tokens, dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, store.vocab_size)
        nn.init.zeros_(self.head.weight)

    def forward(self, x_BlC: Tensor, class_B: Tensor) -> Tensor:
        x_BLD = torch.cat([self.start(class_B)[:, None], self.embed(x_BlC)], dim=1)
        x_BLD = x_BLD + self.position_LD[: x_BLD.shape[1]]
        return self.head(self.norm(self.blocks(x_BLD)))


def count_classes(store: TokenStore) -> int:
    """Classes are the labels from 0 on; 0 without labels. Raises ConfigError for labels that are no classes."""
    largest = int(store.labels.max())
    if largest >= MAX_CLASSES:
        raise ConfigError(f"label {largest} is too large for a class (limit {MAX_CLASSES:,}); use --no-classes")
    return largest + 1


def classes_of(batch: TokenBatch, num_classes: int, hidden: float, seed: Sequence[int] = (0,)) -> Tensor:
    """int64 [B]: the label, or `num_classes` where there is none, and for a share `hidden` of the images."""
    hidden_B = torch.from_numpy(np.random.default_rng(seed).random(len(batch)) < hidden)
    return batch.label.masked_fill(hidden_B | (batch.label < 0) | (batch.label >= num_classes), num_classes)


def next_token_loss(model: nn.Module, store: TokenStore, batch: TokenBatch, class_B: Tensor) -> Tensor:
    """Nats per token with teacher forcing: token l is predicted from the embeddings of those before it."""
    x_BLC = store.idxBl_to_var_input(batch.idx_Bl)
    idx_BL = torch.cat(batch.idx_Bl, dim=1)
    logits_BLK = model(x_BLC[:, :-1], class_B)
    return F.cross_entropy(logits_BLK.float().flatten(0, 1), idx_BL.flatten())


@torch.no_grad()
def sample(
    model: nn.Module, store: TokenStore, class_B: Tensor, temperature: float, top_k: int, seed: int
) -> list[Tensor]:
    """New block index lists, int64 [B, L_i], one for each class: each token is drawn from the `top_k` likeliest."""
    model.eval()
    generator = torch.Generator(class_B.device).manual_seed(seed)
    idx_BL = class_B.new_empty(len(class_B), 0)
    for _ in range(store.geometry.num_tokens):
        logits_BK = model(store.idxBl_to_var_input([idx_BL]), class_B)[:, -1].float() / temperature
        least_B1 = logits_BK.topk(min(top_k, store.vocab_size)).values[:, -1:]
        p_BK = logits_BK.masked_fill(logits_BK < least_B1, -math.inf).softmax(dim=1)
        idx_BL = torch.cat([idx_BL, torch.multinomial(p_BK, 1, generator=generator)], dim=1)
    return list(idx_BL.split(list(store.block_lengths), dim=1))
