"""Copies of source shards, and other names of them."""

from pathlib import Path

import pytest

from pipeline.records import SourceShard
from pipeline.source.shards.copies import file_identity, is_copy

COPIES = [
    ("s3://a", '"e1"', "s3://b", '"e1"', True),
    ("s3://a", "e1", "s3://b", "e1", True),
    ("s3://a", '"e1"', "s3://b", '"e2"', False),
    ("s3://a", "2026-01-01T00:00:00+00:00", "s3://b", "2026-01-01T00:00:00+00:00", False),  # times, not contents
    ("https://a", '"e1"', "https://b", '"e1"', False),  # made of time and size by most servers
    ("s3://a", '"e1"', "/data", "1700000000", False),  # only a download would tell
    ("pipe:cat a", "", "pipe:cat b", "", False),
]


def shard(base: str, version: str = "", path: str = "x.tar") -> SourceShard:
    size = None if base.startswith("pipe:") else 9
    return SourceShard(path=path, base=base, part="x-0", bytes=size, version=version)


@pytest.mark.parametrize(("base", "version", "held_base", "held_version", "expected"), COPIES)
def test_copies_of_objects_are_known_by_their_entity_tags(
    base: str, version: str, held_base: str, held_version: str, expected: bool
) -> None:
    assert is_copy(shard(base, version), shard(held_base, held_version)) == expected


def test_links_of_both_kinds_are_the_file_that_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"123456789")
    (tmp_path / "soft.tar").symlink_to("x.tar")
    (tmp_path / "hard.tar").hardlink_to(tmp_path / "x.tar")
    (tmp_path / "copy.tar").write_bytes(b"123456789")
    names = ("x.tar", "soft.tar", "hard.tar", "copy.tar")
    one, soft, hard, copy = (file_identity(shard(str(tmp_path), path=name)) for name in names)
    assert one == soft == hard != copy
    assert file_identity(shard("s3://a")) != file_identity(shard("s3://b"))
