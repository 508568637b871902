"""The stream of training images, on real tars and in real worker processes."""

import gzip
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fixtures_stream import BATCH, SIDE, Images, configuration, counted, drawn, numbers, picture, write_images
from support import write_tar

from pipeline.jobs.training import stream
from pipeline.jobs.training.stream import Place, training_batches

pytest_plugins = ["fixtures_stream"]

IN_SHORT = {("mixed", 1, 3), ("small", 1, 0), ("mixed", 2, 0)}
"""Kinds of collections, ranks and workers that the short run tries."""


def assert_every_image_comes_once_an_epoch(found: list[tuple[int, bool]], count: int) -> None:
    images = [number for number, _ in found]
    for start in range(0, len(images), count):
        epoch = images[start : start + count]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(count))
    assert len(images) > 2 * count


@pytest.mark.parametrize(
    ("kind", "ranks", "workers"),
    [
        pytest.param(*drawing, marks=[] if drawing in IN_SHORT else pytest.mark.slow)
        for drawing in product(("large", "small", "pipe", "mixed"), (1, 2), (0, 3))
        if drawing[1:] != (2, 3)
    ],
)
def test_every_image_is_drawn_once_before_any_is_drawn_twice(
    collections: dict[str, Images], kind: str, ranks: int, workers: int
) -> None:
    """Begun anew every few steps, as after interruptions: in the midst of windows, source shards and epochs."""
    images = collections[kind]
    config = configuration(images.shards, workers=workers)
    collection = counted(config)
    steps = 2 * images.count // (BATCH * ranks) + 3
    straight = drawn(config, collection, steps, ranks=ranks)
    assert_every_image_comes_once_an_epoch(straight, images.count)
    apart = 7 if workers == 0 else 40
    interrupted = [
        item
        for begin in range(0, steps, apart)
        for item in drawn(config, collection, min(apart, steps - begin), begin * BATCH * ranks, ranks)
    ]
    assert interrupted == straight


def test_workers_change_nothing(collections: dict[str, Images]) -> None:
    images = collections["mixed"]
    found = []
    for workers in (0, 1, 3):
        config = configuration(images.shards, workers=workers)
        batches = training_batches(config, counted(config), Place(BATCH * 9, 0, 1), torch.device("cpu"))
        found.append(torch.cat([next(batches).img_B3HW for _ in range(45)]))
        batches.close()
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_another_number_of_ranks_goes_on_with_what_is_left(collections: dict[str, Images]) -> None:
    images = collections["mixed"]
    config = configuration(images.shards)
    collection = counted(config)
    found: list[tuple[int, bool]] = []
    for ranks, steps in ((1, 11), (3, 5), (2, 9), (1, 30), (5, 4)):
        found += drawn(config, collection, steps, position=len(found), ranks=ranks)
    assert_every_image_comes_once_an_epoch(found, images.count)
    # The order is the same whoever draws it.
    assert found == drawn(config, collection, len(found) // BATCH)


def test_images_are_mirrored_as_a_whole_and_anew_each_epoch(collections: dict[str, Images]) -> None:
    images = collections["large"]
    config = configuration(images.shards)
    found = drawn(config, counted(config), 2 * images.count // BATCH)
    first, second = dict(found[: images.count]), dict(found[images.count :])
    assert 25 < sum(first.values()) < 65
    assert 25 < sum(first[number] != second[number] for number in first) < 65
    assert drawn(configuration(images.shards, seed=1), counted(config), 3) != found[: 3 * BATCH]


def test_bad_samples_leave_their_batch_smaller_and_move_nothing(tmp_path: Path) -> None:
    bad = [3, 5, 8, 13, 21]
    good = configuration([str(write_images(tmp_path / "a/x.tar", range(30)))])
    some = configuration([str(write_images(tmp_path / "b/x.tar", range(30), bad))])
    whole = drawn(good, counted(good), 15)
    batches = training_batches(some, counted(some), Place(0, 0, 1), torch.device("cpu"))
    for step in range(15):
        batch = next(batches)
        expected = [item for item in whole[step * BATCH :][:BATCH] if item[0] not in bad]
        assert list(numbers(batch.img_B3HW)) == expected
        assert batch.skipped == BATCH - len(expected)
    batches.close()


def test_a_batch_of_bad_samples_holds_no_image(tmp_path: Path) -> None:
    config = configuration([str(write_images(tmp_path / "x.tar", range(9), range(9)))], workers=1)
    batches = training_batches(config, counted(config), Place(0, 0, 1), torch.device("cpu"))
    batch = next(batches)
    batches.close()
    assert (batch.img_B3HW.shape, batch.img_B3HW.dtype, batch.skipped) == ((0, 3, SIDE, SIDE), torch.uint8, BATCH)


def test_the_generator_of_a_checkpoint_is_not_drawn_from(collections: dict[str, Images]) -> None:
    config = configuration(collections["large"].shards)
    before = torch.get_rng_state()
    drawn(config, counted(config), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_order_is_the_same_whatever_the_images_lie_in(tmp_path: Path) -> None:
    files = {f"{number:03}.png": picture(number) for number in range(60)}
    write_tar(tmp_path / "x.tar", files)
    (tmp_path / "x").mkdir()
    for name, data in files.items():
        (tmp_path / "x" / name).write_bytes(data)
    images = [{"bytes": data, "path": name} for name, data in files.items()]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet", row_group_size=7)
    (tmp_path / "x.tgz").write_bytes(gzip.compress((tmp_path / "x.tar").read_bytes()))
    orders = {}
    for name in ("x.tar", "x", "x.parquet", "x.tgz"):
        config = configuration([f"{tmp_path}/{name}"], workers=0)
        orders[name] = drawn(config, counted(config), 30)
    assert orders["x"] == orders["x.parquet"] == orders["x.tar"]
    for order in orders.values():
        for epoch in (order[:60], order[60:]):
            assert sorted(number for number, _ in epoch) == list(range(60))
    config = configuration(
        [f"{tmp_path}/x.tgz"], workers=0
    )  # in windows, not at random: but the same anew, and resumed
    assert drawn(config, counted(config), 15, position=60) == orders["x.tgz"][60:]


@pytest.mark.parametrize(
    ("device", "decoder", "pins"), [("cpu", "pillow", False), ("cuda", "pillow", True), ("cuda", "nvjpeg", False)]
)
def test_pixels_that_are_on_the_device_are_not_pinned(
    device: str, decoder: str, pins: bool, collections: dict[str, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch pins memory of the host only."""
    asked: list[bool] = []

    def loader(dataset: object, pin_memory: bool, **_: object) -> list[object]:
        asked.append(pin_memory)
        return []

    config = configuration(collections["small"].shards)
    config = config.model_copy(update={"image": config.image.model_copy(update={"decoder": decoder})})
    monkeypatch.setattr(stream, "DataLoader", loader)
    assert list(training_batches(config, counted(config), Place(0, 0, 1), torch.device(device))) == []
    assert asked == [pins]
