"""Batches of one source shard, read and decoded ahead of the encoder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import BadSample
from pipeline.overlap import ordered_map
from pipeline.records import Reject
from pipeline.shortage import memory_errors
from pipeline.source.images.transform import ImageTransform
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection

# For small images, handing each one to a thread takes longer than decoding it.
_TASK_SAMPLES = 16


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
    """uint8, channels last in memory; images behind the last row are black, so that every batch has one shape."""
    rows: list[Row]
    rejects: list[Reject]


Outcome = tuple[Row, Tensor] | Reject
Prepare = Callable[[Sequence[Sample]], list[Outcome]]


def image_batches(
    samples: Iterable[Sample],
    selection: Selection,
    transform: ImageTransform,
    batch_size: int,
    decoders: Executor,
    threads: int = 1,
    wrapped: Callable[[Prepare], Prepare] = lambda prepare: prepare,
) -> Iterator[ImageBatch]:
    """Select and decode `samples` on `decoders`, and stack them into batches of `batch_size`.

    Order is kept; a bad sample becomes a reject of the batch in which it is met. The last batch may hold
    fewer rows, or rejects alone. Whatever else goes wrong is raised, for it is not the image's fault.

    Args:
        threads: how many `decoders` has; at least twice as many tasks are in flight, so that none is idle.
        wrapped: puts something around what decodes some samples, such as a clock.
    """

    def prepare(task: Sequence[Sample]) -> list[Outcome]:
        return prepare_samples(task, selection, transform)

    tasks = split_into_tasks(samples, max(1, min(_TASK_SAMPLES, batch_size // 4)), transform.task_bytes)
    rows: list[Row] = []
    images: list[Tensor] = []
    rejects: list[Reject] = []
    for outcomes in ordered_map(wrapped(prepare), tasks, decoders, 2 * batch_size, weight=len, at_least=2 * threads):
        for outcome in outcomes:
            if isinstance(outcome, Reject):
                rejects.append(outcome)
                continue
            rows.append(outcome[0])
            images.append(outcome[1])
            if len(rows) == batch_size:
                yield ImageBatch(stacked(images, batch_size, transform), rows, rejects)
                rows, images, rejects = [], [], []
    if rows or rejects:
        yield ImageBatch(stacked(images, batch_size, transform), rows, rejects)


def split_into_tasks(samples: Iterable[Sample], count: int, size: int) -> Iterator[list[Sample]]:
    """Runs of at most `count` samples; one that holds `size` bytes or more is not added to."""
    task: list[Sample] = []
    task_bytes = 0
    for sample in samples:
        task.append(sample)
        task_bytes += sum(map(len, filter(None, sample.members.values())))
        if len(task) == count or task_bytes >= size:
            yield task
            task, task_bytes = [], 0
    if task:
        yield task


def prepare_samples(samples: Sequence[Sample], selection: Selection, transform: ImageTransform) -> list[Outcome]:
    """For each sample its row and pixels uint8 [3, H, W], or the reject that it becomes."""
    selected: list[Row | BadSample] = []
    files: list[bytes] = []
    for sample in samples:
        try:
            row = Row(sample.key, selection.label(sample), selection.fields(sample))
            files.append(selection.image(sample))
            selected.append(row)
        except BadSample as error:
            selected.append(error)
    images = iter(transform.many(files))
    outcomes: list[Outcome] = []
    for sample, found in zip(samples, selected, strict=True):
        image = next(images) if isinstance(found, Row) else found
        if isinstance(found, Row) and isinstance(image, Tensor):
            outcomes.append((found, image))
        elif isinstance(image, BadSample):
            outcomes.append(Reject(key=sample.key, index=sample.index, stage=image.stage, reason=str(image)))
    return outcomes


def stacked(images: Sequence[Tensor], batch_size: int, transform: ImageTransform) -> Tensor:
    """At most `batch_size` images as one uint8 tensor [batch_size, 3, H, W], channels last in memory, black where there
    is no image."""
    with memory_errors():
        # The layout in which decoders give them, so that stacking copies whole images.
        img_BHW3 = torch.empty((batch_size, *transform.size, 3), dtype=torch.uint8, device=transform.device)
        img_BHW3[len(images) :].zero_()
        if images and img_BHW3.is_cpu:
            # torch would wake threads for it, on cores that are decoding.
            np.stack([img_3HW.permute(1, 2, 0).numpy() for img_3HW in images], out=img_BHW3[: len(images)].numpy())
        elif images:
            torch.stack([img_3HW.permute(1, 2, 0) for img_3HW in images], out=img_BHW3[: len(images)])
        return img_BHW3.permute(0, 3, 1, 2)
