"""Batches of training images: an endless stream that a seed and one number, the position, make again, bit for bit.

    Order ─▶ windows ─▶ WindowReader ─▶ batches of encoded images ─▶ worker processes: decode, mirror ─▶ TrainBatch
                        this process's share

The processes take batches of the order in turn. So the order depends neither on their number nor on that of the
workers: these only decode, and batches come in the order in which they were drawn.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.config import Config, ImageConfig
from pipeline.errors import BadImage, VqtokError
from pipeline.files import is_url
from pipeline.jobs.training.collection import Collection
from pipeline.jobs.training.window_reader import Drawn, WindowReader
from pipeline.process.signals import leave_signals_to_parent
from pipeline.source.images.transform import ImageTransform


class TrainBatch(NamedTuple):
    """Images for one forward pass."""

    img_B3HW: Tensor
    """uint8, of `train.batch_size` samples: fewer images where some are bad, none where all are."""
    skipped: int
    """Bad samples among them."""


@dataclass(frozen=True)
class Place:
    """Where in the order, and which of the processes."""

    position: int
    """Samples that all processes together have drawn before."""
    rank: int
    world_size: int


def training_batches(
    config: Config, collection: Collection, place: Place, device: torch.device
) -> Generator[TrainBatch, None, None]:
    """The stream of one process, decoded by `train.workers` worker processes.

    It ends where the collection has not been counted, and else never. The images are on the CPU or already on `device`,
    which trains: see `image.decoder`.

    Raises SourceError for a source shard that cannot be read.
    """
    # Threads of an object store's client do not survive a fork; starting workers anew takes seconds.
    remote = config.train.workers and any(is_url(shard.base) for shard in collection.shards)
    with closing(encoded_batches(config, collection, place)) as encoded:
        loader = DataLoader(
            _Decoder(config.image.centered),
            batch_size=None,
            # Read in this process, which hands each batch to a worker in turn.
            sampler=encoded,
            collate_fn=_unchanged,
            num_workers=config.train.workers,
            # Pixels that nvJPEG leaves on the device have no pages to pin.
            pin_memory=device.type == "cuda" and config.image.decoder != "nvjpeg",
            multiprocessing_context="forkserver" if remote else None,
            worker_init_fn=leave_signals_to_parent,
            # Without one of its own it would draw from the generator whose state a checkpoint holds.
            generator=torch.Generator(),
        )
        for item in loader:
            if isinstance(item, VqtokError):
                raise item
            yield item


def encoded_batches(config: Config, collection: Collection, place: Place) -> Generator[list[Drawn], None, None]:
    """What one process draws, `train.batch_size` samples at a time. Raises SourceError."""
    size = config.train.batch_size
    windows = collection.order(config).windows(place.position)
    batch: list[Drawn] = []
    with closing(WindowReader(collection, config.source)) as reader:
        for drawn in reader.read(
            windows, lambda window: window.share(place.position, size, place.rank, place.world_size)
        ):
            batch += drawn
            for _ in range(len(batch) // size):
                yield batch[:size]
                del batch[:size]


class _Decoder(Dataset[TrainBatch | VqtokError]):
    """Decodes batches: the index of an item is the encoded batch itself.

    An error for the user is handed on as an item: raised in a worker, the DataLoader would bury its message
    in a traceback.
    """

    def __init__(self, image: ImageConfig) -> None:
        self._image = image
        self._transform: ImageTransform | None = None

    def __getitem__(self, batch: list[Drawn]) -> TrainBatch | VqtokError:
        try:
            # Here and not in the constructor, so that each worker has one of its own.
            self._transform = self._transform or ImageTransform(self._image)
            return _decode(batch, self._transform)
        except VqtokError as error:
            return error


def _decode(batch: list[Drawn], transform: ImageTransform) -> TrainBatch:
    drawn = [(image, mirrored) for image, mirrored in batch if image is not None]
    found = transform.many([image for image, _ in drawn], [""] * len(drawn))
    images = [
        shots[0].img_3HW.flip(-1) if mirrored else shots[0].img_3HW
        for shots, (_, mirrored) in zip(found, drawn, strict=True)
        if not isinstance(shots, BadImage)
    ]
    height, width = transform.size
    img_B3HW = torch.stack(images) if images else torch.empty((0, 3, height, width), dtype=torch.uint8)
    return TrainBatch(img_B3HW.contiguous(), len(batch) - len(images))


def _unchanged(item: Any) -> Any:
    return item
