"""Samples from the middle of a source shard are those of reading it from its beginning."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import write_tar

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.records import SourceShard
from pipeline.source.containers.container import ShardIndex
from pipeline.source.containers.tar.access import MAX_GAP_BYTES, MAX_READ_BYTES, plan_reads
from pipeline.source.find import find_source_shards
from pipeline.source.reading import Opener, index_shard, open_shard, read_samples_at
from pipeline.source.sample import Sample

MEMBERS = [
    ("README", b"of no sample"),
    ("a.jpg", b"1" * 700),
    ("a.cls", b"1"),
    ("folder/" + "long" * 40 + ".jpg", b"2"),
    (".DS_Store", b"x"),
    ("日本.jpg", b"3" * 512),
    ("日本.txt", b"not wanted"),
    ("big.jpg", bytes(3 << 20)),
    ("z" * 120 + ".jpg", b""),
    ("last.jpg", b"6"),
    ("notes", b"of no sample"),
]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def source_of(*patterns: object) -> SourceConfig:
    return SourceConfig(shards=tuple(map(str, patterns)), allow_pipe=True)


@pytest.fixture(params=FORMATS.values(), ids=FORMATS)
def tar(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    members = MEMBERS
    if request.param == tarfile.USTAR_FORMAT:
        members = [(name if len(name) <= 100 else name[-100:], data) for name, data in MEMBERS]
    return write_tar(tmp_path / "x.tar", members, request.param)


def from_on(shard: SourceShard, source: SourceConfig, index: ShardIndex, first: int) -> list[Sample]:
    """The samples from number `first` to the last, by jumping to them or by reading up to them."""
    if index.starts is None:
        return list(Opener(source).read_on(shard, index, first))
    reads = plan_reads(index, np.arange(first, index.samples))
    return [sample for read in reads for sample in read_samples_at(shard, source, index, read)]


def test_from_any_sample_on_the_rest_is_the_same(tar: Path) -> None:
    for pattern in (str(tar), f"pipe:cat {tar}"):
        source = source_of(pattern)
        (shard,) = find_source_shards(source)
        index = index_shard(shard, source)
        assert (index.samples, index.starts is None) == (6, pattern.startswith("pipe:"))
        whole = list(open_shard(shard, source))
        for first in range(7):
            assert from_on(shard, source, index, first) == whole[first:]


def test_few_samples_are_read_alone(tar: Path) -> None:
    source = source_of(tar)
    (shard,) = find_source_shards(source)
    index = index_shard(shard, source)
    whole = list(open_shard(shard, source))
    reads = plan_reads(index, np.array([0, 2, 5]))
    assert [read.runs for read in reads] == [((0, 1), (2, 3)), ((5, 6),)]  # the large one is not read along
    assert [s for read in reads for s in read_samples_at(shard, source, index, read)] == [whole[0], whole[2], whole[5]]


SIZES = st.lists(st.sampled_from([512, 4096, MAX_GAP_BYTES, MAX_GAP_BYTES + 512, MAX_READ_BYTES, 3 << 20]), max_size=30)


@given(SIZES, st.randoms(use_true_random=False))
def test_reads_bring_all_that_is_asked_for_and_little_else(sizes: list[int], chance: np.random.RandomState) -> None:
    starts = np.concatenate([[512], 512 + np.cumsum(sizes, dtype=np.int64)])
    asked = np.array([i for i in range(len(sizes)) if chance.random() < 0.5], np.int64)
    reads = plan_reads(ShardIndex(len(sizes), starts), asked)
    assert [i for read in reads for first, end in read.runs for i in range(first, end)] == asked.tolist()
    for read in reads:
        assert (read.start, read.stop) == (starts[read.runs[0][0]], starts[read.runs[-1][1]])
        assert read.stop - read.start <= max(MAX_READ_BYTES, max(sizes))
        gaps = [starts[after[0]] - starts[before[1]] for before, after in zip(read.runs, read.runs[1:], strict=False)]
        assert all(gap <= MAX_GAP_BYTES for gap in gaps)


def test_a_tar_that_was_cut_or_replaced_since_is_named(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {f"{i}.jpg": b"1" * 600 for i in range(9)})
    source = source_of(tar)
    (shard,) = find_source_shards(source)
    index = index_shard(shard, source)
    write_tar(tar, {f"{i}.jpg": b"1" * 500 for i in range(20)})
    with pytest.raises(SourceError, match=r"x\.tar: (at byte .*damaged header|holds other samples)"):
        from_on(shard, source, index, 1)
    os.truncate(tar, 4000)
    with pytest.raises(SourceError, match=r"x\.tar: holds other samples"):
        from_on(shard, source, index, 7)
    tar.unlink()
    with pytest.raises(SourceError, match="is gone; restore it"):
        from_on(shard, source, index, 0)


@pytest.mark.parametrize("missing", [1, 511, 512, 513, 2 << 20])
def test_a_tar_cut_inside_a_member_that_is_skipped_is_an_error(tmp_path: Path, missing: int) -> None:
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"1", "b.jpg": bytes((5 << 20) - 100)})
    end = 512 + 512 + 512 + (5 << 20)
    os.truncate(tar, end - missing)
    source = source_of(tar)
    (shard,) = find_source_shards(source)
    with pytest.raises(SourceError) as skipped:
        index_shard(shard, source)
    with pytest.raises(SourceError) as read:
        list(open_shard(shard, source))
    assert str(skipped.value) == str(read.value)
    assert f"cut off inside a member, {max(0, missing - 100):,} bytes before its end" in str(read.value)


def test_an_index_knows_an_unterminated_tar(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"1", "b.jpg": b"2"})
    os.truncate(tar, 2048)
    source = source_of(tar)
    (shard,) = find_source_shards(source)
    assert isinstance(shard, SourceShard)
    with pytest.raises(SourceError, match="allow_unterminated"):
        index_shard(shard, source)
    accepting = source.model_copy(update={"allow_unterminated": True})
    index = index_shard(shard, accepting)
    assert [sample.key for sample in from_on(shard, accepting, index, 1)] == ["b"]
