"""The stream of training images, on real tars and in real worker processes."""

import itertools
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from support import encoded, write_tar

from pipeline.config import Config
from pipeline.errors import SourceError
from pipeline.jobs.training import collection as collection_module
from pipeline.jobs.training import window_reader as reading
from pipeline.jobs.training.collection import Collection, Ranks, count_samples
from pipeline.jobs.training.index_cache import FILE, IndexCache
from pipeline.jobs.training.shards import training_shards
from pipeline.jobs.training.stream import Place, training_batches
from pipeline.jobs.training.window_reader import WindowReader

SIDE = 4
BATCH = 4


def picture(number: int) -> bytes:
    """A PNG whose upper corners tell its number, and of which half is lighter, so that mirrored ones are known."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[0, :, 0], pixels[0, :, 1] = number % 256, number // 256
    pixels[1, : SIDE // 2] = 200
    return encoded(Image.fromarray(pixels), "PNG")


def write_images(path: Path, numbers: Sequence[int], bad: Sequence[int] = ()) -> Path:
    members = []
    for number in numbers:
        members += [(f"{number}.png", b"bad" if number in bad else picture(number)), (f"{number}.cls", b"1")]
    return write_tar(path, members, tarfile.PAX_FORMAT)


class Images(NamedTuple):
    """A collection of `count` images, numbers 0 to count - 1."""

    shards: list[str]
    count: int


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Images]:
    """One large tar, many small ones, the output of commands, and all of them mixed."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "large.tar", range(90))
    sizes = [3, 9, 1, 6, 0, 5, 8, 2, 7, 4, 3, 9]
    for i, (size, end) in enumerate(zip(sizes, itertools.accumulate(sizes), strict=True)):
        write_images(folder / f"small-{i:02}.tar", range(end - size, end))
    write_images(folder / "more.tar", range(90, 120))
    write_images(folder / "forward.tar", range(120, 143))
    pipe = f"pipe:cat {folder}/"
    return {
        "large": Images([f"{folder}/large.tar"], 90),
        "small": Images([f"{folder}/small-*.tar"], sum(sizes)),
        "pipe": Images([f"{pipe}large.tar", f"{pipe}more.tar"], 120),
        "mixed": Images([f"{folder}/large.tar", f"{folder}/more.tar", f"{pipe}forward.tar"], 143),
    }


def configuration(shards: Sequence[str], **train: Any) -> Config:
    return Config.model_validate(
        {
            "source": {"shards": list(shards), "allow_pipe": True},
            "image": {"size": SIDE},
            "tokenizer": {"path": "unused"},
            "tokenize": {"store": "unused"},
            "train": {"batch_size": BATCH, "shuffle_buffer": 20, **train},
        }
    )


def counted(config: Config) -> Collection:
    return count_samples(config, training_shards(config), needed=10**6)


def drawn(
    config: Config, collection: Collection, steps: int, position: int = 0, ranks: int = 1
) -> list[tuple[int, bool]]:
    """(number, mirrored) of what all ranks draw in some steps: one step after the other, in each by rank."""
    streams = [training_batches(config, collection, Place(position, rank, ranks), False) for rank in range(ranks)]
    batches = [next(stream) for _ in range(steps) for stream in streams]
    for stream in streams:
        stream.close()
    return [item for batch in batches for item in numbers(batch.img_B3HW)]


def numbers(img_B3HW: torch.Tensor) -> Iterator[tuple[int, bool]]:
    """(number, mirrored) of each image."""
    for values in img_B3HW.int():
        yield int(values[0, 0, 0] + 256 * values[1, 0, 0]), int(values[0, 1, 0]) == 0


def assert_every_image_comes_once_an_epoch(found: list[tuple[int, bool]], count: int) -> None:
    images = [number for number, _ in found]
    for start in range(0, len(images), count):
        epoch = images[start : start + count]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(count))
    assert len(images) > 2 * count


@pytest.mark.parametrize("kind", ["large", "small", "pipe", "mixed"])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (1, 3)])
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
        batches = training_batches(config, counted(config), Place(BATCH * 9, 0, 1), False)
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
    batches = training_batches(some, counted(some), Place(0, 0, 1), False)
    for step in range(15):
        batch = next(batches)
        expected = [item for item in whole[step * BATCH :][:BATCH] if item[0] not in bad]
        assert list(numbers(batch.img_B3HW)) == expected
        assert batch.skipped == BATCH - len(expected)
    batches.close()


def test_a_batch_of_bad_samples_holds_no_image(tmp_path: Path) -> None:
    config = configuration([str(write_images(tmp_path / "x.tar", range(9), range(9)))], workers=1)
    batches = training_batches(config, counted(config), Place(0, 0, 1), False)
    batch = next(batches)
    batches.close()
    assert (batch.img_B3HW.shape, batch.img_B3HW.dtype, batch.skipped) == ((0, 3, SIDE, SIDE), torch.uint8, BATCH)


def test_the_generator_of_a_checkpoint_is_not_drawn_from(collections: dict[str, Images]) -> None:
    config = configuration(collections["large"].shards)
    before = torch.get_rng_state()
    drawn(config, counted(config), 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("later", ["fails", "prints-less", "prints-more"])
def test_a_command_that_fails_or_prints_something_else_is_an_error(tmp_path: Path, later: str) -> None:
    for name, count in (("first", 12), ("fails", 12), ("prints-less", 11), ("prints-more", 13)):
        write_images(tmp_path / f"{name}.tar", range(count))
    (tmp_path / "name").write_text("first")
    config = configuration([f"pipe:cd {tmp_path}; cat $(cat name).tar; ! grep -q fails name"])
    collection = counted(config)
    (tmp_path / "name").write_text(later)
    with pytest.raises(SourceError, match=r"exit status 1|other samples than when it was counted"):
        drawn(config, collection, 10)


def test_a_command_that_begins_while_reading_is_closed_is_never_left_to_itself(
    collections: dict[str, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a thread may, at any time, that had been told to read from it before."""
    config = configuration(collections["pipe"].shards)
    collection = counted(config)
    reader = WindowReader(collection, config.source)
    late: list[Any] = []
    original = reading._Stream.stop

    def stop(stream: Any) -> None:
        late.append(reader._read_on(1, np.arange(3), 2))
        original(stream)

    monkeypatch.setattr(reading._Stream, "stop", stop)
    assert [sample.index for sample in reader._read_on(0, np.arange(2), 1)] == [0, 1]
    reader.close()
    assert late == [[]]
    assert list(reader._streams) == [0]


def test_a_truncated_source_shard_is_named_before_training(tmp_path: Path) -> None:
    tar = write_images(tmp_path / "x.tar", range(12))
    tar.write_bytes(tar.read_bytes()[:9000])
    write_images(tmp_path / "y.tar", range(12, 24))
    config = configuration([f"{tmp_path}/*.tar"])
    gathered: list[Any] = []

    def gather(found: list[Any]) -> list[Any]:
        gathered.extend(found)
        return gathered

    shards = training_shards(config)
    # The process that meets the error brings it to the others instead of leaving them to wait.
    for rank in (0, 1):
        error = isinstance(count_or_error(config, shards, Ranks(rank, 2, gather)), SourceError)
        assert error == any(isinstance(found, SourceError) for _, found in gathered)
    assert error


def count_or_error(config: Config, shards: Sequence[Any], ranks: Ranks) -> Collection | SourceError:
    try:
        return count_samples(config, shards, 10**6, ranks)
    except SourceError as error:
        assert "x.tar: at byte" in str(error)
        return error


def test_no_more_is_counted_than_training_comes_to(tmp_path: Path) -> None:
    for i in range(130):
        write_images(tmp_path / f"{i:03}.tar", [2 * i, 2 * i + 1])
    config = configuration([f"{tmp_path}/*.tar"])
    collection = count_samples(config, training_shards(config), needed=100)
    assert sum(index is not None for index in collection.indexes) == 64
    batches = training_batches(config, collection, Place(0, 0, 1), False)
    assert len(list(batches)) == 128 // BATCH
    whole = counted(config)
    assert drawn(config, whole, 25) == drawn(config, collection, 25)


def test_a_resumed_training_counts_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "a.tar", range(5))
    write_images(tmp_path / "b.tar", range(5, 9))
    config = configuration([f"{tmp_path}/?.tar", f"pipe:cat {tmp_path}/a.tar"])
    walked: list[str] = []
    original = collection_module.index_shard

    def index_shard(shard: Any, source: Any) -> Any:
        walked.append(Path(shard.path).name)
        return original(shard, source)

    monkeypatch.setattr(collection_module, "index_shard", index_shard)

    def count() -> list[int]:
        walked.clear()
        found = count_samples(config, training_shards(config), 100, cache=IndexCache(tmp_path / "out", config.source))
        return sorted(index.samples for index in found.indexes if index)

    (tmp_path / "out").mkdir()
    assert (count(), sorted(walked)) == ([4, 5, 5], ["a.tar", "a.tar", "b.tar"])
    assert (count(), walked) == ([4, 5, 5], ["a.tar"])  # the command's output alone
    write_images(tmp_path / "b.tar", range(5, 12))
    assert (count(), sorted(walked)) == ([5, 5, 7], ["a.tar", "b.tar"])
    (tmp_path / "out" / FILE).write_bytes(b"PK damaged")
    assert (count(), sorted(walked)) == ([5, 5, 7], ["a.tar", "a.tar", "b.tar"])


def test_the_index_follows_files_to_another_folder_and_forgets_those_that_are_gone(tmp_path: Path) -> None:
    for name in "abc":
        write_images(tmp_path / f"one/{name}.tar", range(5))
    (tmp_path / "out").mkdir()

    def count(folder: str) -> tuple[int, int]:
        """Indexes that were there before, and that are there afterwards."""
        config = configuration([f"{tmp_path}/{folder}/*.tar"])
        shards, cache = training_shards(config), IndexCache(tmp_path / "out", config.source)
        there = sum(cache.find(shard) is not None for shard in shards)
        count_samples(config, shards, 100, cache=cache)
        with np.load(tmp_path / "out" / FILE) as arrays:
            return there, len(arrays.files)

    assert count("one") == (0, 3)
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # with the times of the files
    assert count("two") == (3, 3)
    write_images(tmp_path / "two/b.tar", range(6))
    (tmp_path / "two/c.tar").unlink()
    assert count("two") == (1, 2)


def test_what_was_counted_before_an_end_is_kept(tmp_path: Path) -> None:
    for i in range(70):
        write_images(tmp_path / f"{i:03}.tar", [i])
    config = configuration([f"{tmp_path}/*.tar"])
    shards = training_shards(config)

    def gather(found: list[Any]) -> list[Any]:
        if len(found) < 64:
            raise KeyboardInterrupt
        return found

    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        count_samples(config, shards, 10**6, Ranks(gather=gather), IndexCache(tmp_path / "out", config.source))
    cache = IndexCache(tmp_path / "out", config.source)
    assert sum(cache.find(shard) is not None for shard in shards) == 64
