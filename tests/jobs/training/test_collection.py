"""Source shards are counted by all processes together, and no more of them than training comes to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fixtures_stream import BATCH, configuration, counted, drawn, write_images

from pipeline.config import Config
from pipeline.errors import SourceError
from pipeline.jobs.training.collection import Collection, Ranks, count_samples
from pipeline.jobs.training.shards import training_shards
from pipeline.jobs.training.stream import Place, training_batches


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
    batches = training_batches(config, collection, Place(0, 0, 1), torch.device("cpu"))
    assert len(list(batches)) == 128 // BATCH
    whole = counted(config)
    assert drawn(config, whole, 25) == drawn(config, collection, 25)
