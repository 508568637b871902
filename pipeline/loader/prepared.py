"""Loops that would share out what a loader has shared out already."""

import sys
from types import FrameType

from pipeline.errors import StoreError

_SHARING = "accelerate.data_loader"
"""The module whose DataLoaders give each process a share of what they read."""
_SKIPPING = "SkipDataLoader"
"""Of these, those that hand on all but the first batches, which share out nothing."""
_CUTTING = "DataLoaderDispatcher"
"""Those that read in one process and cut each batch into one for each."""


def refuse_sharing(world_size: int, transform: object) -> None:
    """Raise StoreError where `accelerator.prepare` was given a DataLoader of a loader that it cannot share out.

    Of one with a rank Accelerate would give each process a share of the share of one rank, and the rows of the others
    to nobody. Of one without a `transform` it would have to cut TokenBatches, which it cannot.

    Nothing that it asks of a data set tells it apart from other callers, so the stack of calls is looked at: once in an
    epoch, and in `set_epoch`, which Accelerate calls before each, also where workers iterate or another rank reads.
    """
    kind = _sharing_kind(sys._getframe(1))
    if kind is not None and world_size > 1:
        raise StoreError(
            f"the loader has a rank of its own (world_size={world_size}), and accelerator.prepare would share out "
            "its rows once more: do not prepare a DataLoader of it, iterate the loader itself; or make it with "
            "rank=0, world_size=1, transform=TokenBatch.as_dict and let Accelerate share out the batches"
        )
    if kind == _CUTTING and transform is None:
        raise StoreError(
            "accelerator.prepare made a DataLoader that cuts batches of tensors, and the loader gives TokenBatches: "
            "make it with transform=TokenBatch.as_dict; or do not prepare a DataLoader of it, give it rank and "
            "world_size, and iterate the loader itself"
        )


def _sharing_kind(frame: FrameType | None) -> str | None:
    """The class of the DataLoader of Accelerate that makes one of the calls and shares out what it reads, if any."""
    while frame is not None:
        if frame.f_globals.get("__name__") == _SHARING:
            kind = type(frame.f_locals.get("self")).__name__
            if kind != _SKIPPING:
                return kind
        frame = frame.f_back
    return None
