"""Loops that would share out what a loader has shared out already."""

import sys

from pipeline.errors import StoreError

_SHARING = "accelerate.data_loader"
"""The module whose DataLoaders give each process a share of what they read."""


def refuse_sharing(world_size: int) -> None:
    """Raise StoreError where a loader with a rank is iterated by what `accelerator.prepare` made of a DataLoader of it.

    Accelerate would give each process a share of the share of one rank, and the rows of the others to nobody. Nothing
    that it asks of a data set tells it apart from other callers, so the stack of calls is looked at: once in an epoch,
    and in `set_epoch`, which Accelerate calls before each, also where workers iterate or another rank reads.
    """
    frame = sys._getframe(1) if world_size > 1 else None
    while frame is not None:
        if frame.f_globals.get("__name__") == _SHARING and not _only_skips(frame.f_locals.get("self")):
            raise StoreError(
                f"the loader has a rank of its own (world_size={world_size}), and accelerator.prepare would share out "
                "its rows once more: do not prepare a DataLoader of it, iterate the loader itself; or make it with "
                "rank=0, world_size=1 and let Accelerate share out the batches"
            )
        frame = frame.f_back


def _only_skips(data_loader: object) -> bool:
    """Whether it is one of those that hand on all but the first batches, which share out nothing."""
    return type(data_loader).__name__ == "SkipDataLoader"
