"""Train a small autoregressive transformer on the tokens of a store: an example to read, copy and change.

    python scripts/examples/train_ar.py --config configs/sample.yaml
    torchrun --standalone --nproc-per-node 8 scripts/examples/train_ar.py --store runs/my/store --tokenizer runs/my/tok
    accelerate launch --mixed_precision bf16 scripts/examples/train_ar.py --config my.yaml --dim 512 --depth 12

The transformer sees the embeddings of the tokens so far and predicts the next one, given the class of the image where
there is one. Run the same command again to resume: it goes on in the middle of the epoch, to the same figures as if it
had never stopped. Everything is in one folder, by default STORE-ar/:

    settings.json             what the figures depend on; a run with other settings is refused
    checkpoint.safetensors    weights, optimizer and place in the data, replaced as a whole
    metrics.jsonl             bits per token: cross entropy / ln 2
    samples.png               new images

What is here is the task alone; the loop, the transformer and the rest are in training/, and the same for all. Your own
loop needs three lines:

    loader = TokenLoader(store, batch_size, rank=accelerator.process_index, world_size=accelerator.num_processes)
    for batch in loader:                                  # as it is: never `accelerator.prepare` it
        x_BLC = store.idxBl_to_var_input(batch.idx_Bl)    # without the tokenizer

Shape letters: B images, L tokens of an image, L_i of block i, l of them so far, C length of a code, K codes.
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
from training.transformer import Size, Transformer, attend_to_earlier

from pipeline.loader import TokenBatch
from pipeline.store import TokenStore


class NextToken(Task):
    """Tokens one after the other, in the order of the store's blocks."""

    name = "ar"

    def model(self, store: TokenStore, num_classes: int, size: Size) -> nn.Module:
        """`model(x_BlC, class_B)` turns the embeddings of l tokens and a class into logits for l + 1 tokens."""
        return Transformer(store, num_classes, size, store.geometry.num_tokens, attend_to_earlier)

    def nats(
        self, model: nn.Module, store: TokenStore, batch: TokenBatch, class_B: Tensor, seed: Sequence[int]
    ) -> Tensor:
        """[B, L] with teacher forcing: token l is predicted from the embeddings of those before it."""
        x_BLC = store.idxBl_to_var_input(batch.idx_Bl)
        idx_BL = torch.cat(batch.idx_Bl, dim=1)
        logits_BLK = model(x_BLC[:, :-1], class_B)
        return F.cross_entropy(logits_BLK.float().transpose(1, 2), idx_BL, reduction="none")

    @torch.no_grad()
    def sample(self, model: nn.Module, store: TokenStore, class_B: Tensor, drawing: Drawing) -> list[Tensor]:
        """Token by token."""
        generator = drawing.generator(class_B.device)
        idx_BL = class_B.new_empty(len(class_B), 0)
        for _ in range(store.geometry.num_tokens):
            logits_BlK = model(store.idxBl_to_var_input([idx_BL]), class_B)
            drawn_B1, _ = drawing.tokens(logits_BlK[:, -1:], generator)
            idx_BL = torch.cat([idx_BL, drawn_B1], dim=1)
        return list(idx_BL.split(list(store.block_lengths), dim=1))


@training_command
def main(**options: Any) -> None:
    """Train a small autoregressive transformer on a token store, or go on where it was interrupted."""
    run(NextToken(), **options)


if __name__ == "__main__":
    main()
