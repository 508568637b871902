"""Each tar in a tar is a source shard, read where it lies."""

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tar_bytes, write_tar

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError, SourceError
from pipeline.source.find import find_source_shards
from pipeline.source.reading import index_shard, open_shard, plan_reads, read_samples_at
from pipeline.source.shards.identity import is_same_file, source_file
from pipeline.source.shards.opening import refuse_changed

pytest_plugins = ["fixtures_s3"]

CLASSES = {
    f"n{number}": tar_bytes([(f"n{number}_{i}.JPEG", bytes([number, i]) * 40_000) for i in range(3 + number)])
    for number in range(4)
}
OUTER = tar_bytes(
    [
        ("./n0.tar", CLASSES["n0"]),
        ("README.txt", b"which class is which"),
        ("n1.tar", CLASSES["n1"]),
        ("n2.tar", CLASSES["n2"]),
        ("more/n3.tgz", gzip.compress(CLASSES["n3"], mtime=0)),
    ]
)


def source_of(path: object, **options: Any) -> SourceConfig:
    return SourceConfig(shards=(str(path),), nested=True, **options)


@pytest.fixture(params=["local", "s3"])
def outer(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the outer tar is."""
    if request.param == "local":
        (tmp_path / "train.tar").write_bytes(OUTER)
        return f"{tmp_path}/train.tar"
    url: str = request.getfixturevalue("bucket_url")
    s3 = request.getfixturevalue("s3")
    s3.request("PUT", "/" + url.removeprefix("s3://") + "/train.tar", OUTER)
    return f"{url}/train.tar"


def test_each_inner_tar_is_a_source_shard_with_a_digest_of_its_own(outer: str, tmp_path: Path) -> None:
    source = source_of(outer)
    shards = {shard.path: shard for shard in find_source_shards(source)}
    assert shards.keys() == {f"train.tar#{name}" for name in ("n0.tar", "n1.tar", "n2.tar", "more/n3.tgz")}
    for number in range(4):
        data = CLASSES[f"n{number}"] if number < 3 else gzip.compress(CLASSES["n3"], mtime=0)
        shard = shards[f"train.tar#n{number}.tar" if number < 3 else "train.tar#more/n3.tgz"]
        alone = write_tar(tmp_path / f"n{number}.tar", {})
        alone.write_bytes(CLASSES[f"n{number}"])
        (same,) = find_source_shards(SourceConfig(shards=(str(alone),)))
        reader = open_shard(shard, source)
        assert list(reader) == list(open_shard(same, source))
        refuse_changed(shard, reader.bytes)
        (record,) = reader.sources()
        assert (record.path, record.bytes, record.version) == (shard.path, len(data), shard.version)
        assert record.head == hashlib.sha256(data[: 64 << 10]).hexdigest() == source_file(shard).head
        if number < 3:
            assert record.sha256 == hashlib.sha256(data).hexdigest()


def test_samples_are_read_from_anywhere_in_it(outer: str) -> None:
    source = source_of(outer)
    for shard in find_source_shards(source):
        index = index_shard(shard, source)
        whole = list(open_shard(shard, source))
        assert index.samples == len(whole)
        if shard.path.endswith(".tgz"):
            assert index.starts is None
            continue
        reads = plan_reads(shard, index, np.arange(1, len(whole)))
        assert [s for read in reads for s in read_samples_at(shard, source, index, read)] == whole[1:]


def test_it_moves_and_is_known_again_and_what_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    path.write_bytes(OUTER)
    shards = find_source_shards(source_of(path))
    then = [source_file(shard) for shard in shards]
    damaged = bytearray(OUTER)
    damaged[OUTER.index(CLASSES["n1"]) + 600] ^= 1
    path.write_bytes(bytes(damaged))
    os.utime(path, (1, 1))
    now = find_source_shards(source_of(path))
    assert [shard.part for shard in now] == [shard.part for shard in shards]
    same = [is_same_file(shard, **file.model_dump()) for shard, file in zip(now, then, strict=True)]
    assert [shard.path for shard, known in zip(now, same, strict=True) if not known] == ["train.tar#n1.tar"]
    with pytest.raises(SourceError, match="written anew since the job began"):
        refuse_changed(shards[0], shards[0].bytes or 0)


def test_inner_tars_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(OUTER)
    shards = find_source_shards(source_of(tmp_path / "train.tar", exclude=("train.tar#n[01].tar",)))
    assert sorted(shard.path for shard in shards) == ["train.tar#more/n3.tgz", "train.tar#n2.tar"]


REFUSED = {
    "no tar": (tar_bytes([("a.jpg", b"1")]), "there is no tar in it; leave source.nested out"),
    "compressed": (gzip.compress(OUTER), "it is compressed, .*; decompress it"),
    "cut off": (OUTER[: OUTER.index(CLASSES["n2"]) + 5000], "cut off inside a member"),
    "one name twice": (tar_bytes([("a.tar", b""), ("./a.tar", b"")]), "holds two files a.tar; rename one"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_tar_of_tars_is_refused_before_anything_begins(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "train.tar").write_bytes(data)
    with pytest.raises(ConfigError, match=reason):
        find_source_shards(source_of(tmp_path / "train.tar"))


def test_an_inner_tar_that_is_damaged_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(tar_bytes([("a.tar", CLASSES["n1"][:5000]), ("b.tar", CLASSES["n2"])]))
    source = source_of(tmp_path / "train.tar")
    damaged, good = sorted(find_source_shards(source), key=lambda shard: shard.path)
    with pytest.raises(SourceError, match=r"train\.tar#a\.tar: at byte 512: cut off inside a member"):
        list(open_shard(damaged, source))
    assert len(list(open_shard(good, source))) == 5
