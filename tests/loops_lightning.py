"""A training loop with Lightning, for torchrun: who gets which rows.

Arguments: store, output folder, how the loader is handed over, remainder, [checkpoint to resume from].
Handed over as `module`, a TokenDataModule, there is a validation at the end of every epoch, too.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from pipeline.loader import TokenBatch, TokenLoader
from pipeline.loader.trainers.lightning import TokenDataModule
from pipeline.store import TokenStore
from pipeline.world import end_process

BATCH_SIZE, EPOCHS = 20, 3
VALIDATED = range(0, 331, 5)


class Module(lightning.LightningModule):
    """Counts rows."""

    def __init__(self, store: TokenStore, handed: str, remainder: str) -> None:
        super().__init__()
        self.store, self.handed, self.remainder = store, handed, remainder
        self.embedding = torch.nn.Embedding(store.vocab_size, 4)
        self.rows: dict[int, list[int]] = {}
        self.validated: dict[int, list[int]] = {}

    def train_dataloader(self) -> Any:
        self.loader = TokenLoader(
            self.store,
            batch_size=BATCH_SIZE,
            seed=1,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            remainder=self.remainder,  # type: ignore[arg-type]
        )
        if self.handed == "itself":
            return self.loader
        if self.handed == "workers":
            return DataLoader(self.loader, batch_size=None, num_workers=2)
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(self.loader, batch_size=None, num_workers=2)

    def on_train_start(self) -> None:
        # Of a checkpoint after the last batch of an epoch Lightning goes on without calling on_train_epoch_start.
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        if self.handed != "module":
            self.loader.set_epoch(self.current_epoch)

    def training_step(self, batch: TokenBatch, _: int) -> torch.Tensor:
        self.rows.setdefault(self.current_epoch, []).extend(rows_of(batch))
        return self.embedding(batch.idx_Bl[0]).square().mean()

    def validation_step(self, batch: TokenBatch, _: int) -> None:
        if not self.trainer.sanity_checking:
            self.validated.setdefault(self.current_epoch, []).extend(rows_of(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def rows_of(batch: TokenBatch) -> list[int]:
    """Those that do not only fill it up."""
    return batch.row.tolist() if batch.mask is None else batch.row[batch.mask.cpu().numpy()].tolist()


def main(store: str, out: str, handed: str, remainder: str, checkpoint: str | None = None) -> None:
    module = Module(TokenStore(store), handed, remainder)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=int(os.environ.get("WORLD_SIZE", "1")),
        strategy="ddp" if "WORLD_SIZE" in os.environ else "auto",
        max_epochs=EPOCHS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(dirpath=out, filename="{step}", every_n_train_steps=1, save_top_k=-1),
            ModelCheckpoint(dirpath=out, filename="end-{epoch}", save_on_train_epoch_end=True, save_top_k=-1),
        ],
    )
    data = None
    if handed == "module":
        data = TokenDataModule(module.store, BATCH_SIZE, VALIDATED, seed=1, remainder=remainder)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    name = "resumed" if checkpoint else "rows"
    for what, rows in ((name, module.rows), (f"{name}-validated", module.validated)):
        (Path(out) / f"{what}-{trainer.global_rank}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_process()
