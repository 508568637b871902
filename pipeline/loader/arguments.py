"""What users pass, and what is no such thing: stores, functions, places among ranks."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.store.reader import TokenStore
from pipeline.store.requested import whole_number
from pipeline.world import launched_rank


def open_store(store: Any) -> TokenStore:
    """An open store. Raises TypeError for its path, for several, and for anything else."""
    if isinstance(store, str | os.PathLike):
        raise TypeError(f"an open store is wanted, not its path: TokenStore({str(store)!r})")
    if isinstance(store, TokenStore):
        return store
    remedy = ""
    if isinstance(getattr(store, "store", None), TokenStore):
        remedy = "; that of a loader is loader.store"
    elif isinstance(store, Sequence):
        remedy = "; MixtureLoader takes several"
    raise TypeError(f"an open store is wanted, not a {type(store).__name__}{remedy}")


def transform_of(transform: Any) -> Callable[..., Any] | None:
    """A function, or None. Raises TypeError for anything else."""
    if transform is None or callable(transform):
        function: Callable[..., Any] | None = transform
        return function
    raise TypeError(f"transform must be a function of a batch, not {transform!r}")


def probability(name: str, value: Any) -> float:
    """A number in 0 .. 1. Raises ValueError naming the argument for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a probability in 0 .. 1, not {value!r}") from None
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError(f"{name} must be a probability in 0 .. 1, not {value if isinstance(value, bool) else number}")
    return number


def place_of(rank: int, world_size: int) -> tuple[int, int]:
    """Rank and number of ranks. Warns where several processes are as if each were alone.

    Raises ValueError for a rank outside the world.
    """
    rank, world_size = whole_number("rank", rank), whole_number("world_size", world_size)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not in 0 .. world_size - 1 = {world_size - 1}")
    launched = launched_rank()[1]
    if world_size == 1 and launched > 1:
        warnings.warn(
            f"{launched} processes were started together, but this loader gives every row to every process, unless "
            "Accelerate shares out a DataLoader of it; pass rank and world_size to share them out",
            stacklevel=3,
        )
    return rank, world_size
