"""Batches of one source shard, read and decoded ahead of the encoder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from torch import Tensor

from pipeline.errors import BadSample
from pipeline.overlap import ordered_map
from pipeline.records import Reject
from pipeline.source.filling import Filling, FillingInPlace, FillingOnDevice, Places
from pipeline.source.images.fitting import Shot
from pipeline.source.images.transform import ImageTransform
from pipeline.source.images.views import View
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection

# For small images, handing each one to a thread takes longer than decoding it.
_TASK_SAMPLES = 16
# Larger ones are rare, and twice as many samples as a batch has are in flight.
_USUAL_BYTES = 8 << 20


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


@dataclass
class Task:
    """Samples that one thread decodes, one after the other."""

    samples: list[Sample] = field(default_factory=list)
    places: list[Places] = field(default_factory=list)
    """Where the views of each are to be written; nothing for memory of their own."""
    bytes: int = 0
    """Of all members together."""

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return repr(self.samples)

    def weight(self) -> int:
        """In samples of a usual size; one that takes much more memory counts as several."""
        return max(len(self.samples), self.bytes // _USUAL_BYTES)


Prepare = Callable[[Task], list[Outcome]]


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
    pinned: bool = False,
) -> Iterator[ImageBatch]:
    """Select and decode `samples` on `decoders`, into batches of `batch_size` images.

    A batch has whole samples, `samples_of_batch` of them.

    Order is kept; a bad sample becomes a reject of the batch in which it is met. The last batch may hold
    fewer rows, or rejects alone. Whatever else goes wrong is raised, for it is not the image's fault.

    Args:
        threads: how many `decoders` has; at least twice as many tasks are in flight, so that none is idle.
        wrapped: puts something around what decodes some samples, such as a clock.
        pinned: whether batches in the memory of the host are pinned, for a CUDA device that will copy them.
    """

    def prepare(task: Task) -> list[Outcome]:
        return prepare_samples(task, selection, transform)

    size = samples_of_batch(batch_size, transform.views)
    filling = _filling(size, transform, pinned)
    count = transform.task_files or max(1, min(_TASK_SAMPLES, size // 4))
    tasks = split_into_tasks(samples, count, transform.task_bytes, filling.expect)
    chosen: list[tuple[Row, list[View]]] = []
    rejects: list[Reject] = []
    for outcomes in ordered_map(wrapped(prepare), tasks, decoders, 2 * size, Task.weight, at_least=2 * threads):
        for outcome in outcomes:
            if isinstance(outcome, Reject):
                filling.reject()
                rejects.append(outcome)
                continue
            row, shots = outcome
            filling.add(shots)
            chosen.append((row, [shot.view for shot in shots]))
            if len(chosen) == size:
                yield _batch(chosen, rejects, filling)
                chosen, rejects = [], []
    if chosen or rejects:
        yield _batch(chosen, rejects, filling)


def _filling(size: int, transform: ImageTransform, pinned: bool) -> Filling:
    if transform.device.type == "cpu":
        return FillingInPlace(size, transform.views, transform.size, pinned)
    return FillingOnDevice(size * transform.views, transform.size, transform.device)


def _batch(chosen: Sequence[tuple[Row, list[View]]], rejects: list[Reject], filling: Filling) -> ImageBatch:
    return ImageBatch(filling.take(), [row for row, _ in chosen], [views for _, views in chosen], rejects)


def split_into_tasks(
    samples: Iterable[Sample], count: int, size: int, expect: Callable[[], Places] = tuple
) -> Iterator[Task]:
    """Runs of at most `count` samples; one that holds `size` bytes or more is not added to.

    Args:
        expect: called for each sample; where its views are to be written.
    """
    task = Task()
    for sample in samples:
        task.samples.append(sample)
        task.places.append(expect())
        task.bytes += sum(map(len, filter(None, sample.members.values())))
        if len(task) == count or task.bytes >= size:
            yield task
            task = Task()
    if task:
        yield task


def prepare_samples(task: Task, selection: Selection, transform: ImageTransform) -> list[Outcome]:
    """For each sample its row and its views, or the reject that it becomes."""
    selected: list[Row | BadSample] = []
    files: list[bytes] = []
    for sample in task.samples:
        try:
            row = Row(sample.key, selection.label(sample), selection.fields(sample))
            files.append(selection.image(sample))
            selected.append(row)
        except BadSample as error:
            selected.append(error)
    rows = [(found, places) for found, places in zip(selected, task.places, strict=True) if isinstance(found, Row)]
    images = iter(transform.many(files, [row.key for row, _ in rows], [places for _, places in rows]))
    outcomes: list[Outcome] = []
    for sample, found in zip(task.samples, selected, strict=True):
        shots = next(images) if isinstance(found, Row) else found
        if isinstance(found, Row) and isinstance(shots, list):
            outcomes.append((found, shots))
        elif isinstance(shots, BadSample):
            outcomes.append(Reject(key=sample.key, index=sample.index, stage=shots.stage, reason=str(shots)))
    return outcomes
