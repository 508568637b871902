"""A training with the Trainer of transformers, for torchrun: who gets which rows. Arguments: store, output folder."""

import json
import sys
from pathlib import Path

import torch
import transformers

from pipeline.loader import TokenLoader
from pipeline.loader.trainers.huggingface import TokenTrainer
from pipeline.store import TokenStore
from pipeline.store.batch import TokenBatch
from pipeline.world import end_process

BATCH_SIZE, EPOCHS, ACCUMULATED = 10, 2, 2
RESUMED = (2, 3, 5)
"""Steps of the checkpoints that training goes on from: in an epoch, at its end, in the second."""


class Model(torch.nn.Module):
    """Counts rows, those apart that it is evaluated on."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 2)
        self.rows: list[list[int]] = []
        self.evaluated: list[list[int]] = []

    def forward(
        self, tokens: torch.Tensor, row: torch.Tensor, label: torch.Tensor, mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        own = row if mask is None else row[mask]
        (self.rows if self.training else self.evaluated).append(own.tolist())
        return {"loss": self.embedding(tokens).square().mean()}


def train(store: TokenStore, out: Path, checkpoint: Path | None = None) -> Model:
    """Train from the beginning or from a checkpoint."""
    args = transformers.TrainingArguments(
        output_dir=str(out),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=ACCUMULATED,
        save_steps=1,
        eval_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo",
        remove_unused_columns=False,
        logging_steps=1000,
    )
    model = Model()
    place = {"rank": args.process_index, "world_size": args.world_size}
    loader = TokenLoader(store, BATCH_SIZE, seed=1, transform=TokenBatch.as_dict, **place)
    held_out = loader.evaluation(rows=range(0, len(store), 3), batch_size=7)
    trainer = TokenTrainer(model, args, train_dataset=loader, eval_dataset=held_out)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return model


def main(path: str, out: str) -> None:
    store, folder = TokenStore(path), Path(out)
    whole = train(store, folder / "whole")
    told = {"whole": whole.rows, "evaluated": whole.evaluated}
    for step in RESUMED:
        told[str(step)] = train(store, folder / "resumed", folder / "whole" / f"checkpoint-{step}").rows
    (folder / f"rows-{torch.distributed.get_rank()}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()
    end_process()


if __name__ == "__main__":
    main(*sys.argv[1:])
