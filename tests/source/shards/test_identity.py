"""A source shard is known again by its size, and by its beginning where it was written anew."""

from pathlib import Path

import pytest

from pipeline.records import SourceShard
from pipeline.source.shards.identity import HEAD_BYTES, is_same_file, source_file

SAME = [
    (lambda data: data, True, True),
    (lambda data: data, False, True),  # a copy of another time
    (lambda data: b"!" + data[1:], False, False),
    (lambda data: b"!" + data[1:], True, True),  # of one size and time: nothing is read
    (lambda data: data[: HEAD_BYTES - 1] + b"!" + data[HEAD_BYTES:], False, False),
    (lambda data: data[:HEAD_BYTES] + b"!" + data[HEAD_BYTES + 1 :], False, True),  # behind what is compared
    (lambda data: data + b"!", True, False),
]


def found(path: Path, version: str) -> SourceShard:
    return SourceShard(path=path.name, base=str(path.parent), part="x-0", bytes=path.stat().st_size, version=version)


@pytest.mark.parametrize(("change", "same_time", "expected"), SAME)
def test_a_file_of_one_size_and_beginning_is_the_same(
    change: object, same_time: bool, expected: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(HEAD_BYTES + 100))
    then = source_file(found(path, "1"))
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    assert is_same_file(found(path, "1" if same_time else "2"), **then.model_dump()) == expected


def test_the_output_of_a_command_has_no_beginning_to_compare() -> None:
    shard = SourceShard(path="x.tar", base="pipe:false", part="x-0", bytes=None)
    assert source_file(shard).head == ""
    assert is_same_file(shard.model_copy(update={"version": "2"}), **source_file(shard).model_dump())
