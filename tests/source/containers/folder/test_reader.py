"""Files of a folder are samples, from the beginning and from anywhere, on disks and in object stores."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.files import Files, files_at
from pipeline.records import SourceShard
from pipeline.source.find import find_source_shards
from pipeline.source.reading import difference, index_shard, open_shard, plan_reads, read_samples_at
from pipeline.source.sample import Sample

pytest_plugins = ["fixtures_s3"]

CONTENTS = {
    f"{key}.{name}": f"{key}{name}".encode() * 50 for key in ("a", "b/c", "b/ü", "d") for name in ("jpg", "cls")
}
CONTENTS |= {"b/c.JPG": b"twin", "d.xml": b"of no use"}

Found = tuple[SourceShard, SourceConfig, Files]


@pytest.fixture(params=["local", "s3"])
def found(request: pytest.FixtureRequest, tmp_path: Path) -> Found:
    """A source shard of CONTENTS."""
    place = f"{tmp_path}/x" if request.param == "local" else f"{request.getfixturevalue('bucket_url')}/x"
    files = files_at(place)
    for name, data in CONTENTS.items():
        files.put(name, data)
    return look(place)


def look(place: str) -> Found:
    source = SourceConfig(shards=(f"{place}/",))
    (shard,) = find_source_shards(source)
    return shard, source, files_at(place)


SAMPLES = [
    Sample(0, "a", {"cls": CONTENTS["a.cls"], "jpg": CONTENTS["a.jpg"]}),
    Sample(
        1, "b/c", {"cls": CONTENTS["b/c.cls"], "jpg": b"twin"}, problems=["duplicate: two members .jpg"]
    ),  # JPG comes first
    Sample(2, "b/ü", {"cls": CONTENTS["b/ü.cls"], "jpg": CONTENTS["b/ü.jpg"]}),
    Sample(3, "d", {"cls": CONTENTS["d.cls"], "jpg": CONTENTS["d.jpg"], "xml": None}),
]


def test_each_key_is_a_sample(found: Found) -> None:
    shard, source, _ = found
    reader = open_shard(shard, source)
    assert list(reader) == SAMPLES
    (record,) = reader.sources()
    size = sum(map(len, CONTENTS.values()))
    assert (record.path, record.bytes, reader.bytes, shard.bytes) == ("x/#a", size, size, size)
    assert record.sha256 != hashlib.sha256().hexdigest()
    assert difference(shard, source, record, check_files=True) is None


def test_samples_are_read_from_anywhere(found: Found) -> None:
    shard, source, _ = found
    index = index_shard(shard, source)
    assert index.samples == 4
    for chosen in ([], [0], [1, 2], [0, 3], [0, 1, 2, 3]):
        reads = plan_reads(shard, index, np.array(chosen, np.int64))
        samples = [sample for read in reads for sample in read_samples_at(shard, source, index, read)]
        assert samples == [SAMPLES[number] for number in chosen]


CHANGES: list[tuple[Callable[[Files], Any], str | None]] = [
    (lambda files: files.put("d.cls", CONTENTS["d.cls"]), None),  # the same again
    (lambda files: files.put("d.cls", CONTENTS["d.cls"][:-1]), "1 of 10 files changed, such as 'd.cls'"),
    (lambda files: files.put("d.cls", b"x" * len(CONTENTS["d.cls"])), "1 of 10 files changed, such as 'd.cls'"),
    (lambda files: files.delete("b/ü.jpg"), "1 of 10 files changed, such as 'b/ü.jpg'"),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_files_that_changed_are_named(found: Found, change: Callable[[Files], Any], expected: str | None) -> None:
    shard, source, files = found
    reader = open_shard(shard, source)
    list(reader)
    (record,) = reader.sources()
    change(files)
    assert difference(shard, source, record) is None  # the listing is that of before
    reason = difference(shard, source, record, check_files=True)
    assert (reason and reason.partition(" of /")[0].partition(" of s3")[0]) == expected


def test_a_file_that_is_gone_is_named(found: Found) -> None:
    shard, source, files = found
    files.delete("d.xml")
    with pytest.raises(SourceError, match=r"x/d\.xml.*: .*restore the file or its permissions"):
        list(open_shard(shard, source))
    assert len(list(open_shard(shard, source, digests=False))) == 4  # nobody wanted it
    excluding = source.model_copy(update={"exclude": ("x/*.xml",)})
    *_, last = open_shard(shard, excluding)
    assert last.problems[0].startswith(".xml cannot be read (")


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    files = files_at(f"{tmp_path}/x")
    files.put("a.jpg", b"1")
    shard, source, _ = look(f"{tmp_path}/x")
    files.delete("a.jpg")
    (tmp_path / "x/a.jpg").mkdir()
    with pytest.raises(SourceError, match="Is a directory"):
        list(open_shard(shard, source))


def test_who_stops_reading_leaves_nothing_behind(tmp_path: Path) -> None:
    files = files_at(f"{tmp_path}/x")
    for number in range(300):
        files.put(f"{number:03}.jpg", bytes(100), durable=False)
    shard, source, _ = look(f"{tmp_path}/x")
    iterator = iter(open_shard(shard, source))
    next(iterator)
    assert reading()
    del iterator
    assert not reading()


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("files")]
