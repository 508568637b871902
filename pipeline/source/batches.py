"""Batches of one source shard, read and decoded ahead of the encoder."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.errors import BadSample
from pipeline.overlap import ordered_map
from pipeline.records import Reject
from pipeline.source.images import ImageTransform, memory_errors
from pipeline.source.samples import Sample
from pipeline.source.selection import Selection


@dataclass(frozen=True)
class Row:
    """What a sample brings into the store beside its tokens."""

    key: str
    label: int
    fields: dict[str, bytes | None]


@dataclass
class ImageBatch:
    """Up to B samples in source order, and the rejects met on the way."""

    img_B3HW: Tensor
    """uint8; images behind the last row are black, so that every batch has one shape."""
    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def image_batches(
    samples: Iterable[Sample],
    selection: Selection,
    transform: ImageTransform,
    batch_size: int,
    decoders: Executor,
) -> Iterator[ImageBatch]:
    """Select and decode `samples` on `decoders`, and stack them into batches of `batch_size`.

    Order is kept; a bad sample becomes a reject of the batch in which it is met. The last batch may hold
    fewer rows, or rejects alone. Whatever else goes wrong is raised, for it is not the image's fault.
    """

    def prepare(sample: Sample) -> tuple[Row, Tensor] | Reject:
        try:
            row = Row(sample.key, selection.label(sample), selection.fields(sample))
            return row, transform(selection.image(sample))
        except BadSample as error:
            return Reject(key=sample.key, index=sample.index, stage=error.stage, reason=str(error))

    def empty() -> ImageBatch:
        with memory_errors():
            return ImageBatch(torch.zeros((batch_size, 3, *transform.size), dtype=torch.uint8))

    batch = empty()
    for item in ordered_map(prepare, samples, decoders, ahead=2 * batch_size):
        if isinstance(item, Reject):
            batch.rejects.append(item)
            continue
        row, batch.img_B3HW[len(batch.rows)] = item
        batch.rows.append(row)
        if len(batch.rows) == batch_size:
            yield batch
            batch = empty()
    if batch.rows or batch.rejects:
        yield batch
