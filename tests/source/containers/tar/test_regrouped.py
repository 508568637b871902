"""Members that stand apart come together where that is asked for, and nothing else changes."""

import gzip
import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tar_bytes, write_tar

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.records import SourceShard
from pipeline.source.find import find_source_shards
from pipeline.source.reading import Opener, index_shard, open_shard
from pipeline.source.sample import Sample

MEMBERS = [(f"{key}.{name}", f"{key}{name}".encode() * 300) for key in "abcdefg" for name in ("jpg", "cls", "txt")]


def regrouping(path: Path) -> tuple[SourceShard, SourceConfig]:
    source = SourceConfig(shards=(str(path),), regroup=True, keep=("txt",))
    (shard,) = find_source_shards(source)
    return shard, source


@given(st.randoms(use_true_random=False))
def test_in_any_order_the_samples_are_the_same(tmp_path_factory: pytest.TempPathFactory, chance: random.Random) -> None:
    members = chance.sample(MEMBERS, len(MEMBERS))
    path = write_tar(tmp_path_factory.mktemp("x") / "x.tar", [("README", b""), *members])
    shard, source = regrouping(path)
    reader = open_shard(shard, source)
    samples = list(reader)
    first = list(dict.fromkeys(name.partition(".")[0] for name, _ in members))
    assert [(sample.index, sample.key) for sample in samples] == list(enumerate(first))
    assert {f"{s.key}.{name}": data for s in samples for name, data in s.members.items()} == dict(MEMBERS)
    assert reader.ignored == ["README"]
    data = path.read_bytes()
    (record,) = reader.sources()
    assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert reader.bytes == len(data) == shard.bytes


def test_training_reads_it_from_its_beginning(tmp_path: Path) -> None:
    shard, source = regrouping(write_tar(tmp_path / "x.tar", MEMBERS[::-1]))
    index = index_shard(shard, source)
    assert (index.samples, index.starts) == (7, None)
    assert list(Opener(source).read_on(shard, index, 3)) == list(open_shard(shard, source))[3:]


def test_a_tar_in_order_has_the_samples_that_it_has_without(tmp_path: Path) -> None:
    shard, source = regrouping(write_tar(tmp_path / "x.tar", MEMBERS))
    assert list(open_shard(shard, source)) == list(open_shard(shard, source.model_copy(update={"regroup": False})))


def test_a_name_that_comes_twice_is_a_duplicate(tmp_path: Path) -> None:
    shard, source = regrouping(write_tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3")]))
    samples = list(open_shard(shard, source))
    assert samples == [Sample(0, "a", {"jpg": b"1"}, problems=["duplicate: two members .jpg"]), samples[1]]


def test_a_damaged_tar_is_still_an_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    path.write_bytes(path.read_bytes()[:9000])
    shard, source = regrouping(path)
    with pytest.raises(SourceError, match="cut off"):
        list(open_shard(shard, source))


def test_a_compressed_one_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(gzip.compress(tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.cls", b"3")])))
    shard, source = regrouping(path)
    with pytest.raises(SourceError, match=r"decompress it, .* or repack it: mkdir -- x\.tar\.unpacked &&"):
        list(open_shard(shard, source))
