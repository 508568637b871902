"""Source shards that are opened one after the other, until another thread wants an end of it."""

from pathlib import Path

import pytest
from support import write_tar

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.records import SourceShard
from pipeline.source.find import find_source_shards
from pipeline.source.reading import Opener
from pipeline.source.shards.opening import PIPE


def test_what_is_opened_after_the_stop_is_stopped_too(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"1", "b.jpg": b"2"})
    (shard,) = find_source_shards(SourceConfig(shards=(str(tar),)))
    command = f"{PIPE}cat {tar}; sleep 20"
    opener = Opener(SourceConfig(shards=(str(tar),)))
    assert [sample.key for sample in opener.open(shard)] == ["a", "b"]
    opener.stop()
    for _ in range(2):
        with pytest.raises(SourceError, match="exit status -15"):
            list(opener.open(SourceShard(path="x.tar", base=command, part="x-0", bytes=None)))
    assert [sample.key for sample in opener.open(shard)] == ["a", "b"]
