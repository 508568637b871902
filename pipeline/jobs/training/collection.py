"""The source shards to train on, counted as far as the training will come."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from tqdm import tqdm

from pipeline.config import Config, SourceConfig
from pipeline.errors import VqtokError
from pipeline.jobs.training.index_cache import IndexCache
from pipeline.jobs.training.order import GROUP_SHARDS, Extent, Order, shard_order
from pipeline.overlap import ordered_map
from pipeline.records import SourceShard
from pipeline.source.containers.container import ShardIndex
from pipeline.source.reading import index_shard

_THREADS = 8
# A small collection is counted before a bar would be of use.
_BAR_AFTER_SECONDS = 3.0


class Ranks(NamedTuple):
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    gather: Callable[[list[Any]], list[Any]] = list
    """One list of what all processes bring, in the order of their ranks; all of them call it together."""


ALONE = Ranks()


@dataclass(frozen=True)
class Collection:
    """Source shards and where their samples are."""

    shards: Sequence[SourceShard]
    indexes: Sequence[ShardIndex | None]
    """None for what the training will not come to."""

    def order(self, config: Config) -> Order:
        """The endless order in which training draws the samples."""
        extents = [
            None if index is None else Extent(index.samples, jumps=index.starts is not None) for index in self.indexes
        ]
        return Order(extents, config.train.shuffle_buffer, config.train.seed)


def count_samples(
    config: Config,
    shards: Sequence[SourceShard],
    needed: int,
    ranks: Ranks = ALONE,
    cache: IndexCache | None = None,
) -> Collection:
    """Index the source shards to which a training of `needed` samples comes, each by one of the processes.

    Raises SourceError, on all processes, for a source shard that cannot be read to its end.
    """
    indexes: list[ShardIndex | None] = [None] * len(shards)
    order = shard_order(config.train.seed, 0, len(shards))
    counted = 0
    with _bar(len(shards), ranks) as bar:
        for start in range(0, len(order), GROUP_SHARDS):
            if counted >= needed:
                break
            group = order[start : start + GROUP_SHARDS]
            mine = [int(shard) for shard in group[ranks.rank :: ranks.size]]
            found = _indexed([shards[number] for number in mine], config.source, cache)
            for number, index in sorted(ranks.gather(list(zip(mine, found, strict=True))), key=lambda pair: pair[0]):
                if isinstance(index, VqtokError):
                    raise index
                indexes[number] = index
                counted += index.samples
            bar.update(len(group))
            if cache and ranks.rank == 0:  # the job may end before the last one
                cache.save(shards, indexes, final=False)
    if cache and ranks.rank == 0:
        cache.save(shards, indexes)
    return Collection(shards, indexes)


def _indexed(
    shards: Sequence[SourceShard], source: SourceConfig, cache: IndexCache | None
) -> list[ShardIndex | VqtokError]:
    """The index of each source shard, or why there is none: an error on one process must not make the others wait."""

    def index(shard: SourceShard) -> ShardIndex | VqtokError:
        try:
            return (cache and cache.find(shard)) or index_shard(shard, source)
        except VqtokError as error:
            return error

    with ThreadPoolExecutor(_THREADS, "count") as threads:
        return list(ordered_map(index, shards, threads, 2 * _THREADS))


def _bar(shards: int, ranks: Ranks) -> Any:
    return tqdm(
        desc="count samples",
        total=shards,
        unit="shard",
        delay=_BAR_AFTER_SECONDS,
        disable=ranks.rank != 0,
        leave=False,
        # In a log file, where each state of the bar is a new line, now and then is often enough.
        mininterval=0.2 if sys.stderr.isatty() else 10,
        dynamic_ncols=True,
    )
