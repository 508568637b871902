"""Batches of training images: an endless stream that five numbers make again, bit for bit.

    endless order ─▶ this worker's ─▶ SampleReader ─▶ shuffle ─▶ decode, flip ─▶ batches
    of source shards     share

The stream is made anew for every interval between two checkpoints, from (seed, interval, rank, worker) and
the number of workers. So a run that resumes from a checkpoint sees what an uninterrupted run sees, without
storing or fast-forwarding a position. The price: an interval starts with source shards drawn afresh, so in
a collection larger than an interval reads, images take their turns at random instead of once per epoch.
"""

import itertools
import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.config import Config, SourceConfig
from pipeline.errors import BadSample, ConfigError, SourceError, VqtokError
from pipeline.files import is_url
from pipeline.records import SourceShard
from pipeline.source.images import ImageTransform
from pipeline.source.opening import source_at
from pipeline.source.samples import Sample, SampleReader
from pipeline.source.selection import Selection
from pipeline.source.shards import find_source_shards, location


class TrainBatch(NamedTuple):
    """Images for one forward pass."""

    img_B3HW: Tensor
    """uint8, always `train.batch_size` images."""
    skipped: int
    """Bad samples met since the batch before."""


@dataclass(frozen=True)
class Place:
    """Which of the parallel streams of which interval."""

    interval: int
    rank: int
    world_size: int


class TrainStream(IterableDataset[TrainBatch | VqtokError]):
    """The endless stream of one process, or of each of its worker processes.

    An error for the user is handed on as an item: raised in a worker, the DataLoader would bury its message
    in a traceback.
    """

    def __init__(self, config: Config, shards: Sequence[SourceShard], place: Place) -> None:
        super().__init__()
        self._config = config
        self._shards = shards
        self._place = place

    def __iter__(self) -> Iterator[TrainBatch | VqtokError]:
        try:
            yield from self._pipeline()
        except VqtokError as error:
            yield error

    def _pipeline(self) -> Iterator[TrainBatch]:
        train, place = self._config.train, self._place
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        common = f"{train.seed}/{place.interval}"
        own = f"{common}/{place.rank}/{worker}"
        pipeline = wds.DataPipeline(
            # All workers of all ranks walk through one order and take turns, whatever their number.
            partial(
                itertools.islice,
                endless_order(self._shards, random.Random(common)),
                place.rank * workers + worker,
                None,
                place.world_size * workers,
            ),
            partial(read_all, source=self._config.source),
            wds.shuffle(train.shuffle_buffer, initial=train.shuffle_buffer, seed=f"{own}/order"),
            partial(_decode, config=self._config, flips=random.Random(f"{own}/flips")),
            partial(_batched, batch_size=train.batch_size),
        )
        yield from pipeline


def training_batches(
    config: Config, shards: Sequence[SourceShard], place: Place, pin_memory: bool
) -> Generator[TrainBatch, None, None]:
    """The endless stream of one process, decoded by `train.workers` worker processes.

    Raises SourceError for a source shard that cannot be read.
    """
    stream = TrainStream(config, shards, place)
    # The threads of an object store's client do not survive a fork; starting workers anew takes seconds.
    remote = config.train.workers and any(is_url(shard.base) for shard in shards)
    loader = DataLoader(
        stream,
        batch_size=None,
        num_workers=config.train.workers,
        pin_memory=pin_memory,
        multiprocessing_context="forkserver" if remote else None,
    )
    for item in loader:
        if isinstance(item, VqtokError):
            raise item
        yield item


def training_shards(config: Config) -> list[SourceShard]:
    """The source shards to train on: those of `source.shards` that `train.holdout` does not name.

    Raises ConfigError for patterns without files, and when nothing is left.
    """
    held_out = {location(shard) for shard in held_out_shards(config)}
    shards = [shard for shard in find_source_shards(config.source) if location(shard) not in held_out]
    if not shards:
        raise ConfigError("train.holdout: names every source shard; leave some of source.shards to train on")
    return shards


def held_out_shards(config: Config) -> list[SourceShard]:
    """The source shards that `train.holdout` names; none when it is empty. Raises ConfigError."""
    if not config.train.holdout:
        return []
    patterns = {"shards": config.train.holdout, "base": None, "exclude": ()}
    try:
        return find_source_shards(config.source.model_copy(update=patterns))
    except ConfigError as error:
        raise ConfigError(str(error).replace("source.shards", "train.holdout")) from error


def require_usable_image(config: Config, shards: Iterable[SourceShard]) -> None:
    """Raise SourceError when no sample of all `shards` gives an image: the stream would search for ever."""
    selection, transform = Selection(config.source), ImageTransform(config.image)
    count, reason = 0, "they hold no samples"
    for sample in read_all(shards, config.source):
        try:
            transform(selection.image(sample))
            return
        except BadSample as error:
            reason = reason if count else f"the first: {sample.key}: {error}"
            count += 1
    raise SourceError(f"source.shards: none of {count} samples has a usable image to train on; {reason}")


def endless_order(shards: Sequence[SourceShard], draw: random.Random) -> Iterator[SourceShard]:
    """One random permutation of `shards` after the other."""
    while True:
        yield from draw.sample(shards, len(shards))


def read_all(shards: Iterable[SourceShard], source: SourceConfig) -> Iterator[Sample]:
    """The samples of one source shard after the other, with the members that `source` asks for."""
    wants = Selection(source).wants
    for shard in shards:
        yield from SampleReader(source_at(shard.base), shard.path, wants, source.allow_unterminated)


def _decode(samples: Iterable[Sample], config: Config, flips: random.Random) -> Iterator[Tensor | None]:
    """uint8 [3, H, W] images, half of them mirrored; None for each bad sample."""
    selection, transform = Selection(config.source), ImageTransform(config.image)
    for sample in samples:
        try:
            img_3HW = transform(selection.image(sample))
        except BadSample:
            yield None
        else:
            yield img_3HW.flip(-1) if flips.random() < 0.5 else img_3HW


def _batched(images: Iterable[Tensor | None], batch_size: int) -> Iterator[TrainBatch]:
    batch: list[Tensor] = []
    skipped = 0
    for img_3HW in images:
        if img_3HW is None:
            skipped += 1
            continue
        batch.append(img_3HW)
        if len(batch) == batch_size:
            yield TrainBatch(torch.stack(batch), skipped)
            batch, skipped = [], 0
