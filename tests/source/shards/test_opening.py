"""What a source shard is called, and that it must stay what it was."""

from pathlib import Path

import pytest
from support import tar_bytes

from pipeline.errors import SourceError
from pipeline.files import files_at
from pipeline.records import SourceShard
from pipeline.source.shards.opening import refuse_changed, shard_name


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2")]))
    return path


def test_messages_name_files_by_their_place_and_commands_not_at_all(tar: Path) -> None:
    assert shard_name(SourceShard(path="x.tar", base=str(tar.parent), part="x-0", bytes=1)) == str(tar)
    shard = SourceShard(path="pipe/0123/x.tar", base="pipe:cat secret", part="x-0", bytes=None)
    assert shard_name(shard) == "pipe/pipe/0123/x.tar"
    refuse_changed(shard, 12345)  # any number of bytes is right


def test_a_file_must_stay_what_it_was(tar: Path) -> None:
    stat = files_at(str(tar.parent)).stat("x.tar")
    shard = SourceShard(path="x.tar", base=str(tar.parent), part="x-0", bytes=stat.bytes, version=stat.version)
    refuse_changed(shard, stat.bytes)
    with pytest.raises(SourceError, match=rf"x\.tar: 5 bytes read, {stat.bytes:,} now, {stat.bytes:,} when the job"):
        refuse_changed(shard, 5)
    with pytest.raises(SourceError, match="written anew since the job began"):
        refuse_changed(shard.model_copy(update={"version": "1"}), stat.bytes)
    tar.unlink()
    with pytest.raises(SourceError, match="gone while it was read"):
        refuse_changed(shard, stat.bytes)
