"""`TokenDataModule`: a store as the trainers of Lightning take their data.

Lightning saves and restores the state of a loader that it is given, also in the middle of an epoch, and tells it no
epoch.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning import Callback, LightningDataModule

from pipeline.loader.arguments import open_store
from pipeline.loader.epochs import Rows
from pipeline.loader.loader import TokenLoader
from pipeline.store.reader import TokenStore


class TokenDataModule(LightningDataModule):
    """Batches of a store to train, to validate and to test on, to each rank its share.

        data = TokenDataModule(store, batch_size=64, rows=train, val_rows=held_out)
        Trainer(...).fit(model, datamodule=data, ckpt_path=...)

    A checkpoint says where the loader stands, and training goes on there, also in the middle of an epoch. What is
    validated or tested on comes in the order of the store, all of it every time: a sanity check takes nothing off it.

    Args:
        store: an open store.
        batch_size: rows of a batch of each rank.
        val_rows: int64, sorted, without repeats: rows to validate on; none by default.
        test_rows: rows to test on; none by default.
        options: arguments of TokenLoader, but for rank and world_size, which are the trainer's. With several ranks
            `remainder` is `drop` unless told otherwise; evaluations always pad, and `batch.mask` says which rows count.

    Raises ValueError for a rank or a world size among the options.
    """

    def __init__(
        self,
        store: TokenStore,
        batch_size: int = 256,
        val_rows: Sequence[int] | Rows | None = None,
        test_rows: Sequence[int] | Rows | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if given := {"rank", "world_size"} & options.keys():
            raise ValueError(f"{' and '.join(sorted(given))}: the trainer's are taken; leave them out")
        self.store = open_store(store)
        self.loader: TokenLoader | None = None
        """What the model is trained on, once training has begun."""
        self._val_rows, self._test_rows = val_rows, test_rows
        self._options = {"batch_size": batch_size, **options}

    def _warn_of_shared_rows(self, rows: Sequence[int] | Rows | None) -> None:
        for name, held_out in (("val_rows", self._val_rows), ("test_rows", self._test_rows)):
            if held_out is not None:
                shared = len(held_out) if rows is None else len(np.intersect1d(rows, held_out))
                if shared:
                    warnings.warn(
                        f"{shared:,} of {len(held_out):,} {name} are trained on, too: leave them out of rows, as "
                        "`train, held_out = split_rows(store, 0.01)` does, with rows=train",
                        stacklevel=2,
                    )

    def setup(self, stage: str) -> None:
        """Let the trainer tell the loader its epochs."""
        if stage == "fit":
            self._warn_of_shared_rows(self._options.get("rows"))
        callbacks = self._trainer.callbacks
        if stage == "fit" and not any(isinstance(callback, _Epochs) for callback in callbacks):
            callbacks.append(_Epochs())

    def train_dataloader(self) -> TokenLoader:
        """The loader itself, which Lightning asks for its state."""
        self.loader = self._made()
        return self.loader

    def val_dataloader(self) -> TokenLoader | list[Any]:
        """The rows to validate on."""
        return self._evaluation(self._val_rows)

    def test_dataloader(self) -> TokenLoader | list[Any]:
        """The rows to test on."""
        return self._evaluation(self._test_rows)

    def _evaluation(self, rows: Sequence[int] | Rows | None) -> TokenLoader | list[Any]:
        return [] if rows is None else self._made().evaluation(rows=rows)

    @property
    def _trainer(self) -> Any:
        """Lightning has set it before it asks for anything."""
        return self.trainer

    def _made(self) -> TokenLoader:
        rank, world_size = self._trainer.global_rank, self._trainer.world_size
        options = {"remainder": "drop", **self._options} if world_size > 1 else self._options
        return TokenLoader(self.store, rank=rank, world_size=world_size, **options)


class _Epochs(Callback):
    """Tells the loader of the trainer's data module which epoch begins."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # An epoch that is gone on with begins with this, and not with on_train_epoch_start.
        _tell(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        _tell(trainer)


def _tell(trainer: Any) -> None:
    data = trainer.datamodule
    if isinstance(data, TokenDataModule) and data.loader is not None:
        data.loader.set_epoch(trainer.current_epoch)
