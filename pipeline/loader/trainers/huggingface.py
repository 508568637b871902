"""The Trainer of transformers over a loader, resumed in the middle of an epoch without reading what it skips.

Trainer makes of what `get_train_dataloader` gives, when it resumes, a data loader that throws away as many batches as
have been trained on. The position is in the checkpoint, so that here these batches are empty ones, which cost nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from pipeline.loader.loader import TokenLoader
from pipeline.loader.mixtures.loader import MixtureLoader
from pipeline.store.reader import TokenStore

Loader = TokenLoader | MixtureLoader


class TokenTrainer(Trainer):
    """Takes a TokenLoader as `train_dataset`, or a MixtureLoader with rows_per_epoch, and saves and restores where it
    stands.

        def inputs(batch):
            return {"input_ids": batch.tokens, "labels": batch.tokens}

        loader = TokenLoader(store, 64, rank=args.process_index, world_size=args.world_size, transform=inputs)
        TokenTrainer(model, args, train_dataset=loader).train(resume_from_checkpoint=True)

    The loader makes the batches: it has the batch size of `args.per_device_train_batch_size`, and the rank and number
    of processes of `args`. One that is evaluated, such as `loader.evaluation()`, may have another batch size. Other
    data sets are read as by Trainer.

    A checkpoint goes on with as many processes, the batch size and the accumulated steps that it was written with, for
    Trainer counts steps. TokenLoader itself needs none of them to be the same.

    Raises ValueError for a loader of another batch size or rank, and for a mixture without epochs; TypeError for an
    open store. A loader whose batches are no dicts of inputs is a TypeError with the first of them.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if isinstance(self.train_dataset, TokenLoader | MixtureLoader):
            _check(self.train_dataset, self.args, batch_size=self.args.train_batch_size)
            if self.train_dataset.steps_left is None:
                raise ValueError("Trainer goes by epochs: give the mixture its rows_per_epoch")
            self.add_callback(LoaderPosition())
        elif isinstance(self.train_dataset, TokenStore):
            raise TypeError(
                f"{self.train_dataset.root}: a store makes no batches; train_dataset=TokenLoader(store, "
                "args.per_device_train_batch_size, rank=args.process_index, world_size=args.world_size, transform=...)"
            )

    def get_train_dataloader(self) -> Any:
        """The loader as it is: Trainer would have Accelerate share out its rows once more."""
        if isinstance(self.train_dataset, TokenLoader | MixtureLoader):
            return _Batches(self.train_dataset)
        return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The same of what is evaluated. Raises ValueError for a loader of another rank."""
        own: Any = self.eval_dataset
        named = own[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset
        return self._as_it_is(own if named is None else named) or super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """The same of what is predicted. Raises ValueError for a loader of another rank."""
        return self._as_it_is(test_dataset) or super().get_test_dataloader(test_dataset)

    def _as_it_is(self, loader: Any) -> "_Batches | None":
        if not isinstance(loader, TokenLoader | MixtureLoader):
            return None
        _check(loader, self.args)
        return _Batches(loader)


class LoaderPosition(TrainerCallback, ExportableState):
    """Keeps where a loader stands in `trainer_state.json` of every checkpoint, and goes there when training resumes."""

    def __init__(self) -> None:
        self.position: dict[str, Any] = {}
        self.loader: Loader | None = None

    def state(self) -> dict[str, Any]:
        """What the checkpoint has of the loader; the same on every rank."""
        position = self.position if self.loader is None else self.loader.state_dict()
        return {"args": {}, "attributes": {"position": position}}

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        """Go to where the checkpoint was written, or to the first epoch.

        Raises ValueError for a checkpoint that does not say where, or that Trainer would go on from elsewhere;
        StoreError as `TokenLoader.load_state_dict` does.
        """
        self.loader = train_dataloader.loader
        if not state.global_step:
            self.loader.set_epoch(0)
            return
        saved = state.stateful_callbacks.get(type(self).__name__)
        if not saved:
            raise ValueError(
                f"the checkpoint of step {state.global_step} does not say where the loader stood: it is not that of a "
                "TokenTrainer"
            )
        self.loader.load_state_dict(saved["attributes"]["position"])
        _check_steps(self.loader, state.global_step, args.gradient_accumulation_steps)


class _Batches:
    """What Trainer iterates, asks for its length, and tells the epoch."""

    # What Accelerate asks where it makes a DataLoader that skips batches: these are made already, by no worker.
    batch_size = None
    drop_last = False
    prefetch_factor = None

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return _inputs(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)

    @property
    def dataset(self) -> "_Skipped":
        """What is read where the first batches are to be skipped."""
        return _Skipped(self.loader)


class _Skipped(IterableDataset[Any]):
    """An epoch in which the batches before the position of the loader are there, and empty."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        yield from [{}] * self._loader.steps_done
        yield from _inputs(self._loader)

    def __len__(self) -> int:
        loader = self._loader
        if isinstance(loader, TokenLoader):
            return len(loader.ordered)
        return len(loader) * loader.batch_size * loader.world_size


def _inputs(loader: Loader) -> Iterator[Mapping[str, Any]]:
    """Batches as Trainer takes them. Raises TypeError for others."""
    for batch in loader:
        made: object = batch  # of a transform it is what that made
        if not isinstance(made, Mapping):
            raise TypeError(
                f"the loader gives a {type(made).__name__}, where Trainer takes the inputs of the model by name: give "
                "the loader a transform, such as lambda batch: {'input_ids': batch.tokens, 'labels': batch.tokens}, or "
                "lambda batch: sequences(batch).as_dict() for texts and images"
            )
        yield made


def _check(loader: Loader, args: Any, **batch_size: int) -> None:
    """Raises ValueError for a loader of another rank, or of another batch size where one is given."""
    theirs = {**batch_size, "rank": args.process_index, "world_size": args.world_size}
    ours = {name: getattr(loader, name) for name in theirs}
    if ours != theirs:
        raise ValueError(
            f"the loader has {ours}, the training arguments say {theirs}; make it with rank=args.process_index, "
            "world_size=args.world_size" + (", batch_size=args.per_device_train_batch_size" if batch_size else "")
        )


def _check_steps(loader: Loader, global_step: int, accumulated: int) -> None:
    """Raises ValueError where Trainer would skip other batches than those before the position of the loader."""
    epoch, rest = divmod(global_step, max(-(-len(loader) // accumulated), 1))
    at_its_end = loader.epoch == epoch - 1 and not loader.steps_left and not rest
    if not at_its_end and (loader.epoch, loader.steps_done) != (epoch, rest * accumulated):
        raise ValueError(
            f"the checkpoint of step {global_step} is {loader.steps_done} of {len(loader)} batches into epoch "
            f"{loader.epoch}, and Trainer would go on {rest * accumulated} into epoch {epoch}: resume with as many "
            "processes, the batch size and the gradient_accumulation_steps that it was written with"
        )
