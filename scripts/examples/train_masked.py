"""Train a small transformer to fill in hidden tokens, as MaskGIT does: an example to read, copy and change.

    python scripts/examples/train_masked.py --config configs/sample.yaml

Masked token modelling (Chang et al. 2022, https://arxiv.org/abs/2202.04200): a random share of the tokens is hidden,
and a transformer that sees all others predicts them. A new image begins with all of its tokens hidden. In each of a few
rounds all hidden tokens are drawn, the surest of them stay, and the rest is hidden again:

    hidden      ████████    ███·████    ·█··███·    ········      · stays, █ is drawn anew
    round           0           1           2      ...

How many are hidden falls by a quarter cosine, in training as over the rounds. The run is resumed as that of train_ar.py
is, and its folder, by default STORE-masked/, holds the same files. The bits per token of held-out images are those of a
bound on the likelihood, so that they compare with other models' (see `held_out_nats`); those of training are of the
tokens that happened to be hidden.

What is here is the task alone; the loop, the transformer and the rest are in training/.

Shape letters: B images, L tokens of an image, L_i of block i, C length of a code, D width of the model, K codes.
"""

from pipeline.process.openmp import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before torch is imported

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training.command import run, training_command
from training.drawing import Drawing
from training.task import Task
from training.transformer import Size, Transformer, attend_to_all

from pipeline.loader import TokenBatch
from pipeline.store import TokenStore


class MaskedTransformer(nn.Module):
    """`model(x_BLC, class_B, hidden_BL)` turns embeddings, of which some are hidden, into logits for all tokens."""

    def __init__(self, store: TokenStore, num_classes: int, size: Size) -> None:
        super().__init__()
        positions = 1 + store.geometry.num_tokens  # the class stands before the tokens
        self.transformer = Transformer(store, num_classes, size, positions, attend_to_all)
        self.hidden_D = nn.Parameter(torch.randn(size.dim) * 0.02)

    def forward(self, x_BLC: Tensor, class_B: Tensor, hidden_BL: Tensor) -> Tensor:
        x_BLD = torch.where(hidden_BL[..., None], self.hidden_D, self.transformer.embed(x_BLC))
        return self.transformer.logits(x_BLD, class_B)[:, 1:]


def cosine_share(progress: float | np.ndarray) -> Any:
    """The share of the tokens that is hidden, from 1 at progress 0 to 0 at progress 1."""
    return np.cos(0.5 * np.pi * progress)


def hide(batch: TokenBatch, seed: Sequence[int], cosine: bool) -> Tensor:
    """bool [B, L]: tokens to hide, at least one of each image: a share by the cosine, or any number equally often.

    A function of the seed and the row in the store: other ranks and batches hide the same.
    """
    L = batch.tokens.shape[1]
    random_B1L = np.stack([np.random.default_rng((*seed, row)).random(1 + L) for row in batch.row.tolist()])
    share_B1, order_BL = random_B1L[:, :1], random_B1L[:, 1:].argsort(axis=1).argsort(axis=1)
    if cosine:
        share_B1 = cosine_share(share_B1)
    return torch.from_numpy(order_BL < np.ceil(share_B1 * L).clip(1)).to(batch.stored.device)


def hidden_token_nats(
    model: nn.Module, store: TokenStore, batch: TokenBatch, class_B: Tensor, hidden_BL: Tensor
) -> Tensor:
    """[B, L], 0 for tokens that are not hidden."""
    idx_BL = torch.cat(batch.idx_Bl, dim=1)
    logits_BLK = model(store.idxBl_to_var_input([idx_BL]), class_B, hidden_BL)
    return F.cross_entropy(logits_BLK.float().transpose(1, 2), idx_BL, reduction="none") * hidden_BL


@dataclass(frozen=True)
class HiddenTokens(Task):
    """Tokens from any others, wherever they are."""

    rounds: int
    """In which a new image is drawn."""
    noise: float
    """In the choice of the tokens that stay after the first rounds."""
    name = "masked"

    def model(self, store: TokenStore, num_classes: int, size: Size) -> nn.Module:
        return MaskedTransformer(store, num_classes, size)

    def nats(
        self, model: nn.Module, store: TokenStore, batch: TokenBatch, class_B: Tensor, seed: Sequence[int]
    ) -> Tensor:
        """Their mean is that of all hidden tokens of the batch."""
        hidden_BL = hide(batch, seed, cosine=True)
        return hidden_token_nats(model, store, batch, class_B, hidden_BL) / hidden_BL.float().mean()

    def held_out_nats(self, model: nn.Module, store: TokenStore, batch: TokenBatch, class_B: Tensor) -> Tensor:
        """Their expectation is what the tokens cost when they are told one by one, in a random order.

        So it is no less than the negative log likelihood of the model that draws an order and then the tokens
        (Hoogeboom et al. 2022, https://arxiv.org/abs/2110.02037): the token at any place of the order is predicted
        from those before it, with all others hidden.
        """
        hidden_BL = hide(batch, (), cosine=False)
        share_B1 = hidden_BL.float().mean(dim=1, keepdim=True)
        return hidden_token_nats(model, store, batch, class_B, hidden_BL) / share_B1

    @torch.no_grad()
    def sample(self, model: nn.Module, store: TokenStore, class_B: Tensor, drawing: Drawing) -> list[Tensor]:
        """In a few rounds, the surest tokens first."""
        generator = drawing.generator(class_B.device)
        B, L = len(class_B), store.geometry.num_tokens
        idx_BL = class_B.new_zeros(B, L)
        hidden_BL = torch.ones_like(idx_BL, dtype=torch.bool)
        for done in range(1, self.rounds + 1):
            logits_BLK = model(store.idxBl_to_var_input([idx_BL]), class_B, hidden_BL)
            drawn_BL, p_BL = drawing.tokens(logits_BLK, generator)
            idx_BL = torch.where(hidden_BL, drawn_BL, idx_BL)
            # Noise keeps the first rounds from choosing alike tokens everywhere; it ends with the rounds.
            uniform_BL = torch.rand(B, L, device=class_B.device, generator=generator).clamp(1e-9, 1 - 1e-7)
            gumbel_BL = -torch.log(-torch.log(uniform_BL))
            sure_BL = p_BL.log() + self.noise * (1 - done / self.rounds) * gumbel_BL
            order_BL = sure_BL.masked_fill(~hidden_BL, math.inf).argsort(dim=1).argsort(dim=1)
            hidden_BL = order_BL < int(cosine_share(done / self.rounds) * L)
        return list(idx_BL.split(list(store.block_lengths), dim=1))


@training_command
@click.option("--rounds", type=click.IntRange(1), default=12, help="In which a new image is drawn.")
@click.option("--noise", type=click.FloatRange(0), default=4.5, help="In the choice of the tokens that stay.")
def main(rounds: int, noise: float, **options: Any) -> None:
    """Train a small transformer to fill in tokens of a store, or go on where it was interrupted."""
    run(HiddenTokens(rounds, noise), **options)


if __name__ == "__main__":
    main()
