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
from pipeline.source.images.fitting import Shot
from pipeline.source.images.nvjpeg import in_use_here
from pipeline.source.images.transform import ImageTransform
from pipeline.source.images.views import View
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
    """Samples in source order, and the rejects met on the way. Each sample is V images, its views."""

    img_B3HW: Tensor
    """uint8, channels last in memory: the V views of the first sample, then those of the second. Images behind the last
    row are black, so that every batch has one shape."""
    rows: list[Row]
    views: list[list[View]]
    """The V views of each row."""
    rejects: list[Reject]

    @property
    def images(self) -> int:
        """How many images count: V for each row."""
        return sum(map(len, self.views))


Outcome = tuple[Row, list[Shot]] | Reject
Prepare = Callable[[Sequence[Sample]], list[Outcome]]


def samples_of_batch(batch_size: int, views: int) -> int:
    """How many samples make a batch of at most `batch_size` images; one, where that has more views."""
    return max(batch_size // views, 1)


def images_of_batch(batch_size: int, views: int) -> int:
    """How many images of a batch are encoded at once, at most: all, but never more than `batch_size`."""
    return min(samples_of_batch(batch_size, views) * views, batch_size)


def image_batches(
    samples: Iterable[Sample],
    selection: Selection,
    transform: ImageTransform,
    batch_size: int,
    decoders: Executor,
    threads: int = 1,
    wrapped: Callable[[Prepare], Prepare] = lambda prepare: prepare,
) -> Iterator[ImageBatch]:
    """Select and decode `samples` on `decoders`, and stack them into batches of `batch_size` images.

    A batch has whole samples, `samples_of_batch` of them.

    Order is kept; a bad sample becomes a reject of the batch in which it is met. The last batch may hold
    fewer rows, or rejects alone. Whatever else goes wrong is raised, for it is not the image's fault.

    Args:
        threads: how many `decoders` has; at least twice as many tasks are in flight, so that none is idle.
        wrapped: puts something around what decodes some samples, such as a clock.
    """

    def prepare(task: Sequence[Sample]) -> list[Outcome]:
        return prepare_samples(task, selection, transform)

    size = samples_of_batch(batch_size, transform.views)
    count = transform.task_files or max(1, min(_TASK_SAMPLES, size // 4))
    tasks = split_into_tasks(samples, count, transform.task_bytes)
    chosen: list[tuple[Row, list[Shot]]] = []
    rejects: list[Reject] = []
    for outcomes in ordered_map(wrapped(prepare), tasks, decoders, 2 * size, weight=len, at_least=2 * threads):
        for outcome in outcomes:
            if isinstance(outcome, Reject):
                rejects.append(outcome)
                continue
            chosen.append(outcome)
            if len(chosen) == size:
                yield _batch(chosen, rejects, size, transform)
                chosen, rejects = [], []
    if chosen or rejects:
        yield _batch(chosen, rejects, size, transform)


def _batch(
    chosen: Sequence[tuple[Row, list[Shot]]], rejects: list[Reject], size: int, transform: ImageTransform
) -> ImageBatch:
    images = [shot.img_3HW for _, shots in chosen for shot in shots]
    return ImageBatch(
        stacked(images, size * transform.views, transform),
        [row for row, _ in chosen],
        [[shot.view for shot in shots] for _, shots in chosen],
        rejects,
    )


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
    """For each sample its row and its views, or the reject that it becomes."""
    selected: list[Row | BadSample] = []
    files: list[bytes] = []
    for sample in samples:
        try:
            row = Row(sample.key, selection.label(sample), selection.fields(sample))
            files.append(selection.image(sample))
            selected.append(row)
        except BadSample as error:
            selected.append(error)
    images = iter(transform.many(files, [found.key for found in selected if isinstance(found, Row)]))
    outcomes: list[Outcome] = []
    for sample, found in zip(samples, selected, strict=True):
        shots = next(images) if isinstance(found, Row) else found
        if isinstance(found, Row) and isinstance(shots, list):
            outcomes.append((found, shots))
        elif isinstance(shots, BadSample):
            outcomes.append(Reject(key=sample.key, index=sample.index, stage=shots.stage, reason=str(shots)))
    return outcomes


def stacked(images: Sequence[Tensor], count: int, transform: ImageTransform) -> Tensor:
    """At most `count` images as one uint8 tensor [count, 3, H, W], channels last in memory, black where there is no
    image."""
    with memory_errors():
        # The layout in which decoders give them, so that stacking copies whole images.
        img_BHW3 = torch.empty((count, *transform.size, 3), dtype=torch.uint8, device=transform.device)
        img_BHW3[len(images) :].zero_()
        if images and img_BHW3.is_cpu:
            # torch would wake threads for it, on cores that are decoding.
            np.stack([img_3HW.permute(1, 2, 0).numpy() for img_3HW in images], out=img_BHW3[: len(images)].numpy())
        elif images:
            torch.stack([in_use_here(img_3HW).permute(1, 2, 0) for img_3HW in images], out=img_BHW3[: len(images)])
        return img_BHW3.permute(0, 3, 1, 2)
