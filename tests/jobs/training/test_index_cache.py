"""What was counted once is not counted again, unless it was written anew."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_stream import configuration, write_images

from pipeline.jobs.training import collection as collection_module
from pipeline.jobs.training.collection import Ranks, count_samples
from pipeline.jobs.training.index_cache import FILE, IndexCache
from pipeline.jobs.training.shards import training_shards


def test_a_resumed_training_counts_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "a.tar", range(5))
    write_images(tmp_path / "b.tar", range(5, 9))
    (tmp_path / "b.tar").write_bytes(gzip.compress((tmp_path / "b.tar").read_bytes()))  # read from its beginning
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
