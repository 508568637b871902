"""Batches of one source shard: every sample once, as a row or as a reject, in source order."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import encoded, examples, picture, shared_data, tar_bytes
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.io import decode_jpeg

from pipeline.config import ImageConfig, SourceConfig
from pipeline.errors import BadImage, SourceError
from pipeline.files import LocalFiles
from pipeline.overlap import prefetch
from pipeline.records import Reject
from pipeline.source.batches import (
    ImageBatch,
    Row,
    Task,
    image_batches,
    images_of_batch,
    prepare_samples,
    split_into_tasks,
)
from pipeline.source.containers.tar.reader import TarReader
from pipeline.source.images.fitting import Shot
from pipeline.source.images.transform import ImageTransform
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection

TRANSFORM = ImageTransform(ImageConfig(size=(8, 12)))


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


def plain(shade: int) -> bytes:
    return encoded(Image.new("RGB", (12, 8), (shade, shade, shade)), "PNG")


def sample(index: int, **members: bytes | None) -> Sample:
    return Sample(index, f"key-{index}", members or {"png": plain(index + 1), "cls": str(index).encode()})


def selection(**options: Any) -> Selection:
    return Selection(SourceConfig(shards="x.tar", **options))


def batches(samples: Any, pool: ThreadPoolExecutor, batch_size: int = 4, **options: Any) -> Iterator[ImageBatch]:
    return image_batches(samples, selection(**options), TRANSFORM, batch_size, pool)


SIZES = [(0, []), (1, [1]), (3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (11, [4, 4, 3])]


@pytest.mark.parametrize(("count", "rows"), SIZES)
def test_batches_are_full_but_for_the_last(pool: ThreadPoolExecutor, count: int, rows: list[int]) -> None:
    found = list(batches(map(sample, range(count)), pool))
    assert [len(batch.rows) for batch in found] == rows
    assert [row for batch in found for row in batch.rows] == [Row(f"key-{n}", n, {}) for n in range(count)]
    for number, batch in enumerate(found):
        assert (batch.img_B3HW.shape, batch.img_B3HW.dtype) == ((4, 3, 8, 12), torch.uint8)
        shades = [number * 4 + row + 1 if row < len(batch.rows) else 0 for row in range(4)]  # black behind the last
        assert torch.equal(
            batch.img_B3HW, torch.tensor(shades, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 8, 12)
        )


def test_batches_do_not_share_memory(pool: ThreadPoolExecutor) -> None:
    first, second = batches(map(sample, range(8)), pool)
    first.img_B3HW.zero_()
    assert second.img_B3HW.min() == 5


def bad(index: int) -> Sample:
    return sample(index, jpg=b"text named .jpg", cls=b"1")


REASONS = [
    (sample(0, jpg=b"not a picture", cls=b"1"), "decode", "not an image of a known format"),
    (sample(0, jpg=b"", cls=b"1"), "decode", "empty"),
    (sample(0, txt=b"no picture", cls=b"1"), "select", "no image member among .cls, .txt"),
    (sample(0, jpg=plain(1), png=plain(1)), "select", "several image members"),
    (sample(0, png=plain(1), cls=b"cat"), "label", "not an integer"),
]


@pytest.mark.parametrize(("rejected", "stage", "reason"), REASONS, ids=[row[2] for row in REASONS])
def test_a_bad_sample_is_a_reject_with_its_stage_and_reason(
    pool: ThreadPoolExecutor, rejected: Sample, stage: str, reason: str
) -> None:
    (batch,) = batches([rejected], pool)
    (reject,) = batch.rejects
    assert (reject.key, reject.index, reject.stage, batch.rows) == ("key-0", 0, stage, [])
    assert reason in reject.reason
    assert not batch.img_B3HW.any()


@settings(max_examples=examples(40))
@given(st.lists(st.booleans(), max_size=20), st.integers(1, 6))
def test_every_sample_is_a_row_or_a_reject_in_source_order(good: list[bool], batch_size: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        samples = [sample(n) if fine else bad(n) for n, fine in enumerate(good)]
        found = list(batches(samples, pool, batch_size))
    assert [([row.label for row in b.rows], [reject.index for reject in b.rejects]) for b in found] == split(
        good, batch_size
    )
    for batch in found:
        for row, img_3HW in zip(batch.rows, batch.img_B3HW, strict=False):
            assert img_3HW.unique().tolist() == [row.label + 1]  # a reject leaves no gap


def split(good: list[bool], batch_size: int) -> list[tuple[list[int], list[int]]]:
    """Rows and rejects of every batch: a reject belongs to the batch that is being filled when it is met."""
    found: list[tuple[list[int], list[int]]] = [([], [])]
    for index, fine in enumerate(good):
        rows, rejects = found[-1]
        (rows if fine else rejects).append(index)
        if len(rows) == batch_size:
            found.append(([], []))
    return found if any(found[-1]) else found[:-1]


def test_rejects_alone_make_a_batch_without_rows(pool: ThreadPoolExecutor) -> None:
    (batch,) = batches(map(bad, range(9)), pool)
    assert (batch.rows, len(batch.rejects)) == ([], 9)
    assert isinstance(batch.rejects[0], Reject)


def test_labels_and_kept_members_come_with_the_rows(pool: ThreadPoolExecutor) -> None:
    members = [{"png": plain(1), "txt": b""}, {"png": plain(1), "cls": b"5"}]
    (batch,) = batches([Sample(n, "k", parts) for n, parts in enumerate(members)], pool, keep="txt")
    assert batch.rows == [Row("k", -1, {"txt": b""}), Row("k", 5, {"txt": None})]


def reader(folder: Path, data: bytes) -> TarReader:
    files = LocalFiles(folder)
    files.put("x.tar", data)
    return TarReader(files, "x.tar")


def test_an_error_of_the_reader_surfaces_behind_the_good_batches(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    data = tar_bytes({f"{n:02}.png": plain(n) for n in range(40)})
    seen: list[str] = []
    with pytest.raises(SourceError, match="cut off"):
        for batch in batches(reader(tmp_path, data[: len(data) // 2]), pool, 2):
            seen += [row.key for row in batch.rows]
    assert seen == [f"{n:02}" for n in range(len(seen))]
    assert 2 <= len(seen) < 25


# Samples, batch_size, and how many rows and images batches have: of three views each.
VIEWED = [(5, 7, [2, 2, 1], 6), (4, 6, [2, 2], 6), (3, 2, [1, 1, 1], 3), (2, 3, [1, 1], 3), (2, 100, [2], 99)]


@pytest.mark.parametrize(("count", "batch_size", "rows", "images"), VIEWED)
def test_batches_hold_all_views_of_whole_samples(
    pool: ThreadPoolExecutor, count: int, batch_size: int, rows: list[int], images: int
) -> None:
    apply = ImageTransform(ImageConfig(size=(8, 12), views={"random": 3, "scale": (0.5, 1.0)}))
    found = list(image_batches([*map(sample, range(count)), bad(count)], selection(), apply, batch_size, pool))
    assert sum(len(batch.rejects) for batch in found) == 1
    found = [batch for batch in found if batch.rows]
    assert [len(batch.rows) for batch in found] == rows
    assert {len(batch.img_B3HW) for batch in found} == {images}
    done = 0
    for batch in found:
        assert batch.images == 3 * len(batch.rows)
        assert not batch.img_B3HW[batch.images :].any()
        for number, views in enumerate(batch.views):
            data = sample(done).members["png"] or b""
            (shots,) = apply.many([data], [batch.rows[number].key])
            assert isinstance(shots, list)
            assert [shot.view for shot in shots] == views
            assert torch.equal(batch.img_B3HW[3 * number : 3 * number + 3], torch.stack([s.img_3HW for s in shots]))
            done += 1
    assert done == count
    assert images_of_batch(batch_size, 3) == min(images, batch_size)


@pytest.mark.parametrize("error", [MemoryError("no memory"), RuntimeError("CUDA error"), ImportError("no codec")])
def test_a_fault_of_the_machine_is_raised_and_never_a_reject(pool: ThreadPoolExecutor, error: Exception) -> None:
    class Failing(ImageTransform):
        def many(self, files: Sequence[bytes], *rest: Any) -> list[list[Shot] | BadImage]:
            if plain(6) in files:
                raise error
            return super().many(files, *rest)

    found = image_batches(map(sample, range(9)), selection(), Failing(ImageConfig(size=(8, 12))), 4, pool)
    assert next(found).rejects == []
    with pytest.raises(type(error), match=str(error)):
        next(found)


def test_reading_ahead_is_bounded(pool: ThreadPoolExecutor) -> None:
    taken = 0

    def counted() -> Iterator[Sample]:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield sample(number)

    found = batches(counted(), pool, 4)
    for done in range(1, 6):
        next(found)
        assert 4 * done <= taken <= 4 * done + 2 * 4


# Bytes of the samples; samples and bytes of a task at most; samples of each task.
TASKS = [
    ([], 4, 100, []),
    ([1] * 9, 4, 100, [4, 4, 1]),
    ([1] * 8, 4, 100, [4, 4]),
    ([40] * 7, 4, 100, [3, 3, 1]),  # it is full when its bytes are reached, not before
    ([200, 1, 1, 200, 1], 4, 100, [1, 3, 1]),
    ([200] * 3, 1, 100, [1, 1, 1]),
]


@pytest.mark.parametrize(("sizes", "count", "size", "expected"), TASKS)
def test_tasks_are_bounded_by_samples_and_bytes(sizes: list[int], count: int, size: int, expected: list[int]) -> None:
    samples = [Sample(n, str(n), {"jpg": bytes(length), "txt": None}) for n, length in enumerate(sizes)]
    tasks = list(split_into_tasks(samples, count, size))
    assert [len(task) for task in tasks] == expected
    assert [item for task in tasks for item in task.samples] == samples


def test_samples_of_a_task_keep_their_order_and_their_faults() -> None:
    task = [sample(0), bad(1), sample(2, txt=b"no picture"), sample(3), sample(4, png=plain(1), cls=b"cat"), sample(5)]
    outcomes = prepare_samples(Task(task, [()] * len(task)), selection(), TRANSFORM)
    found = [item.stage if isinstance(item, Reject) else item[0].label for item in outcomes]
    assert found == [0, "decode", "select", 3, "label", 5]
    shades = [item[1][0].img_3HW.unique().tolist() for item in outcomes if not isinstance(item, Reject)]
    assert shades == [[1], [4], [6]]


def test_small_images_are_decoded_many_at_a_time(pool: ThreadPoolExecutor) -> None:
    calls: list[int] = []

    class Counting(ImageTransform):
        def many(self, files: Sequence[bytes], *rest: Any) -> list[list[Shot] | BadImage]:
            calls.append(len(files))
            return super().many(files, *rest)

    apply = Counting(ImageConfig(size=(8, 12)))
    assert len(list(image_batches(map(sample, range(128)), selection(), apply, 64, pool))) == 2
    assert calls == [16] * 8


def test_batches_smaller_than_the_machine_occupy_all_threads() -> None:
    meeting = threading.Barrier(12, timeout=20)  # passed only by twelve tasks at once

    class Meeting(ImageTransform):
        def many(self, files: Sequence[bytes], *rest: Any) -> list[list[Shot] | BadImage]:
            meeting.wait()
            return super().many(files, *rest)

    apply = Meeting(ImageConfig(size=(8, 12)))
    with ThreadPoolExecutor(12) as pool:
        assert len(list(image_batches(map(sample, range(96)), selection(), apply, 16, pool, threads=12))) == 6


def test_batches_are_channels_last_in_memory(pool: ThreadPoolExecutor) -> None:
    for batch in batches(map(sample, range(6)), pool):
        assert batch.img_B3HW.is_contiguous(memory_format=torch.channels_last)


def test_closing_a_prefetched_stage_leaves_no_thread_and_closes_the_reader(
    pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    closed = threading.Event()

    def tracked() -> Iterator[Sample]:
        try:
            yield from reader(tmp_path, tar_bytes({f"{n:03}.png": plain(n) for n in range(200)}))
        finally:
            closed.set()

    stage = prefetch(batches(tracked(), pool, 4), 2)
    next(stage)
    assert not closed.is_set()
    stage.close()
    assert closed.is_set()
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_batch_size_and_threads_do_not_change_the_pixels() -> None:
    """Real photographs of many sizes, some of them grey."""
    shards = shared_data("photos/photos-0000.tar")
    apply = ImageTransform(ImageConfig(size=64))

    def pixels(threads: int, batch_size: int) -> np.ndarray:
        samples = (item for item in TarReader(LocalFiles(shards.parent), shards.name) if item.index < 40)
        with ThreadPoolExecutor(threads) as pool:
            found = list(image_batches(samples, selection(), apply, batch_size, pool))
        assert not any(batch.rejects for batch in found)
        return torch.cat([batch.img_B3HW[: len(batch.rows)] for batch in found]).numpy()

    once = pixels(1, 1)
    assert once.shape == (40, 3, 64, 64)
    assert np.array_equal(once, pixels(4, 16))


def test_batches_hold_what_the_transform_makes_of_each_image() -> None:
    """CIFAR-10: small JPEGs, decoded in groups."""
    shards = shared_data("cifar10/cifar10-test-0000.tar")
    apply = ImageTransform(ImageConfig(size=32))
    samples = [item for item in TarReader(LocalFiles(shards.parent), shards.name) if item.index < 100]
    with ThreadPoolExecutor(2) as pool:
        (batch,) = image_batches(samples, selection(), apply, 100, pool)
    for item, img_3HW in zip(samples, batch.img_B3HW, strict=True):
        assert torch.equal(img_3HW, apply(item.members["jpg"] or b""))


class _Operators(TorchDispatchMode):
    """Counts what torch is asked for. Each gives way to other threads, and waits for its turn to come again."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


class _Here(Executor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@pytest.mark.parametrize(("have", "most"), [(48, 4), (32, 2), ((40, 48), 5)])
def test_few_operators_make_the_pixels_of_an_image(have: int | tuple[int, int], most: int) -> None:
    """Where many threads decode, Python's lock decides, and operators cost more than their own time."""
    height, width = have if isinstance(have, tuple) else (have, have)
    data = encoded(Image.fromarray(picture(height, width)), "JPEG")
    samples = [sample(number, jpg=data) for number in range(64)]
    encoded_N = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    with _Operators() as decoding:  # one operator; in older versions of torchvision those in it, too
        decode_jpeg(encoded_N)
    with _Operators() as operators:
        (batch,) = image_batches(samples, selection(), ImageTransform(ImageConfig(size=32)), 64, _Here())
    assert len(batch.rows) == 64
    assert operators.count <= 64 * (most - 1 + decoding.count + 0.2)
