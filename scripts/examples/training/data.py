"""What is trained on and what is held out, and the classes of the images."""

import math
from collections.abc import Iterator

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.loader import TokenBatch, TokenLoader, split_rows
from pipeline.store import TokenStore

HELD_OUT, MAX_HELD_OUT = 0.05, 2048
"""Share of the images that training never sees, and how many they are at most."""
HIDDEN_CLASSES = 0.1
"""Share of the training images whose class is not given, so that the model can do without."""
MAX_CLASSES = 100_000


def open_loaders(
    store: TokenStore, batch_size: int, seed: int, rank: int, world_size: int
) -> tuple[TokenLoader, TokenLoader]:
    """Images to train on and images held out, the same in every run, shared out among the processes.

    Raises ConfigError where the images fill no batch in each process.
    """
    rows, held_out_rows = split_rows(store, min(MAX_HELD_OUT, math.ceil(HELD_OUT * len(store))))
    if len(rows) < batch_size * world_size:
        raise ConfigError(
            f"--batch-size {batch_size}: {len(rows)} images to train on ({len(held_out_rows)} are held out) "
            f"fill no batch in each of {world_size} processes; choose a smaller one"
        )
    loader = TokenLoader(
        store,
        batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        rows=rows,
        remainder="drop",  # all processes make equally many steps, as they must to share gradients
        # Such as mirror images: each epoch has other ones. Of images held out the first counts.
        views="random" if store.num_views > 1 else 0,
        label_dropout=HIDDEN_CLASSES,
    )
    return loader, loader.evaluation(rows=held_out_rows, remainder="uneven")


def forever(loader: TokenLoader) -> Iterator[TokenBatch]:
    """The rest of the epoch, then one epoch after the other."""
    while True:
        yield from loader


def count_classes(store: TokenStore) -> int:
    """Classes are the labels from 0 on; 0 without labels. Raises ConfigError for labels that are no classes."""
    largest = int(store.labels.max()) if len(store) else -1
    if largest >= MAX_CLASSES:
        raise ConfigError(f"label {largest} is too large for a class (limit {MAX_CLASSES:,}); use --no-classes")
    return largest + 1


def classes_of(batch: TokenBatch, num_classes: int) -> Tensor:
    """int64 [B]: the label, or `num_classes` where there is none or it is hidden."""
    return batch.label.masked_fill((batch.label < 0) | (batch.label >= num_classes), num_classes)
