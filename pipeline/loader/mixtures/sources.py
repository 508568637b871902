"""Whether the sources of a mixture go together, and in which proportions."""

import math
from collections.abc import Sequence
from typing import Any

from pipeline.errors import StoreError
from pipeline.loader.loader import TokenLoader
from pipeline.store.reader import TokenStore


def check_sources(sources: Any) -> None:
    """Raises TypeError for one store, whose rows would pass for stores."""
    if isinstance(sources, TokenStore | TokenLoader):
        raise TypeError(
            f"a mixture takes a list of stores or loaders, such as [{type(sources).__name__}(...)], not one"
        )


def check_places(loaders: Sequence[TokenLoader], rank: int, world_size: int) -> None:
    """Raises ValueError for a loader of another rank than the mixture, or one with a transform."""
    for number, loader in enumerate(loaders):
        if (loader.rank, loader.world_size) != (rank, world_size):
            raise ValueError(
                f"loader {number} is rank {loader.rank} of {loader.world_size}, the mixture rank {rank} of "
                f"{world_size}; make the loaders with the rank and world_size of the mixture"
            )
        if loader.transform is not None:
            raise ValueError(f"loader {number} has a transform, which no batch of it alone would meet: pass it here")


def give_whole_rows(loaders: Sequence[TokenLoader]) -> bool:
    """Whether batches have all views of each image. Raises ValueError, StoreError where loaders do not go together."""
    whole = [loader.ordered.views.whole for loader in loaders]
    if len(set(whole)) > 1:
        raise ValueError(f"loaders {[n for n, gives in enumerate(whole) if gives]} give all views, the others do not")
    first = loaders[0].store
    for store in (loader.store for loader in loaders) if whole[0] else ():
        if store.num_views != first.num_views:
            raise StoreError(
                f"{first.root} has {first.num_views} views of each image, {store.root} has {store.num_views}: no batch "
                "holds all of both; take views='random', or a number"
            )
    return whole[0]


def normalised(weights: Sequence[float] | None, loaders: Sequence[TokenLoader]) -> tuple[float, ...]:
    """Proportions of sum 1, by default those of the rows. Raises ValueError, StoreError for those that cannot be."""
    rows = [len(loader.ordered) for loader in loaders]
    given = [float(weight) for weight in (rows if weights is None else weights)]
    if len(given) != len(loaders):
        raise ValueError(f"{len(given)} weights for {len(loaders)} stores")
    total = sum(given)
    if not all(weight >= 0 for weight in given) or not 0 < total < math.inf:
        raise ValueError(f"weights must be finite, not negative, and not all 0, but are {given}")
    for loader, weight, count in zip(loaders, given, rows, strict=True):
        if weight and not count:
            raise StoreError(f"{loader.store.root}: no rows to give the mixture; leave it out, or give it the weight 0")
    return tuple(weight / total for weight in given)
