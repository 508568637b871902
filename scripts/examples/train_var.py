"""Train a small transformer that predicts an image scale by scale, as VAR does: an example to read, copy and change.

    vqtok run --config configs/sample-var.yaml                       a tokenizer of several scales, and its tokens
    python scripts/examples/train_var.py --config configs/sample-var.yaml

Next-scale prediction (Tian et al. 2024, https://arxiv.org/abs/2404.02905): what the tokens of the coarser scales add up
to, resized to the grid of the next scale, tells the transformer all tokens of that scale at once.

    given        class    sum of scale 1    sum of scales 1 and 2
                   │       at 2 x 2           at 3 x 3
                   ▼          ▼                  ▼
    predicted    1 x 1      2 x 2              3 x 3             ...

A token sees its own scale and the coarser ones, none of the finer: the mask is causal by blocks. What is given comes
from the store, by the rule of its tokenizer. The run is resumed as that of train_ar.py is, and its folder, by default
STORE-var/, holds the same files; metrics.jsonl tells the bits per token of each scale, too. In samples.png each column
is one new image, and each row has one more scale of it.

What is here is the task alone; the loop, the transformer and the rest are in training/.

Shape letters: B images, L tokens of an image, L_i of scale i, C length of a code, K codes.
"""

from pipeline.process.openmp import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before torch is imported

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training.command import run, training_command
from training.drawing import Drawing
from training.task import Task
from training.transformer import AttendToEarlierBlocks, Size, Transformer

from pipeline.errors import ConfigError
from pipeline.loader import TokenBatch
from pipeline.models.rules.multiscale import MULTISCALE
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.store import TokenStore


class NextScale(Task):
    """All tokens of a scale at once, from those of the coarser ones."""

    name = "var"
    samples = 8
    by_block = True

    def check(self, store: TokenStore) -> None:
        if store.rule.name != MULTISCALE.name:
            raise ConfigError(
                f"{store.root}: its embeddings follow the rule {store.rule.name!r}, and scales are predicted by the "
                f"rule {MULTISCALE.name!r}; name a store of a tokenizer of several scales, as configs/sample-var.yaml "
                "makes one"
            )

    def model(self, store: TokenStore, num_classes: int, size: Size) -> nn.Module:
        """`model(x_BLC, class_B)` turns what is given for the second scale and later ones into logits for all of them.

        The class stands in the places of the first scale, of which nothing is known before. Given less, for the second
        to the i-th scale, it gives the logits of the first i.
        """
        lengths = store.block_lengths
        return Transformer(store, num_classes, size, sum(lengths), AttendToEarlierBlocks(lengths), starts=lengths[0])

    def nats(
        self, model: nn.Module, store: TokenStore, batch: TokenBatch, class_B: Tensor, seed: Sequence[int]
    ) -> Tensor:
        """[B, L] with teacher forcing: each scale is predicted from the true tokens of the coarser ones."""
        x_BLC = store.idxBl_to_var_input(batch.idx_Bl)
        idx_BL = torch.cat(batch.idx_Bl, dim=1)
        logits_BLK = model(x_BLC, class_B)
        return F.cross_entropy(logits_BLK.float().transpose(1, 2), idx_BL, reduction="none")

    @torch.no_grad()
    def sample(self, model: nn.Module, store: TokenStore, class_B: Tensor, drawing: Drawing) -> list[Tensor]:
        """Scale by scale, all tokens of a scale at once."""
        generator = drawing.generator(class_B.device)
        # The rule takes all scales. Those to come are zeros, and what is given for a scale does not depend on them.
        idx_Bl = [class_B.new_zeros(len(class_B), length) for length in store.block_lengths]
        given = 0
        for scale, length in enumerate(store.block_lengths):
            x_BLC = store.idxBl_to_var_input(idx_Bl)[:, :given]
            logits_BLK = model(x_BLC, class_B)[:, -length:]
            idx_Bl[scale], _ = drawing.tokens(logits_BLK, generator)
            given = sum(store.block_lengths[1 : scale + 2])
        return idx_Bl

    def images(self, tokenizer: Tokenizer, idx_Bl: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """The images as the first scale has them, then as the first two have them, and so on."""
        return torch.cat([tokenizer.decode(idx_Bl[: scale + 1], grid) for scale in range(len(idx_Bl))])


@training_command
def main(**options: Any) -> None:
    """Train a small transformer on the scales of a token store, or go on where it was interrupted."""
    run(NextScale(), **options)


if __name__ == "__main__":
    main()
