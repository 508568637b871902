"""Rows of Parquet files are samples: as Hugging Face writes them, and as others do."""

import datetime
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import SourceConfig
from pipeline.errors import BadSample, SourceError
from pipeline.files import files_at
from pipeline.records import SourceShard
from pipeline.source.containers.container import ShardIndex
from pipeline.source.containers.parquet.reader import ParquetReader
from pipeline.source.find import find_source_shards
from pipeline.source.reading import (
    Opener,
    difference,
    index_shard,
    open_shard,
    plan_reads,
    read_samples_at,
)
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection

pytest_plugins = ["fixtures_s3"]

NAMES = ["cat", "dog", "größer"]
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": NAMES, "_type": "ClassLabel"},
    "caption": {"dtype": "string", "_type": "Value"},
}
HUGGING_FACE = {"huggingface": json.dumps({"info": {"features": FEATURES}})}


def image(number: int) -> bytes:
    return bytes([number % 256]) * (500 + number)


def table(rows: int = 20, metadata: dict[str, str] | None = None, **columns: Sequence[Any]) -> pa.Table:
    default: dict[str, Sequence[Any]] = {
        "image": [{"bytes": image(number), "path": f"n{number // 5}_{number}.JPEG"} for number in range(rows)],
        "label": [number % 3 for number in range(rows)],
        "caption": [f"a größer {number}" if number % 4 else None for number in range(rows)],
    }
    return pa.table({**default, **columns}).replace_schema_metadata(metadata)


def write(path: Path, content: pa.Table, **options: Any) -> Path:
    pq.write_table(content, path, **options)
    return path


def found(path: object, **options: Any) -> tuple[SourceShard, SourceConfig]:
    source = SourceConfig(shards=(str(path),), **options)
    (shard,) = find_source_shards(source)
    return shard, source


def samples(path: object, **options: Any) -> list[Sample]:
    return list(open_shard(*found(path, **options)))


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A Parquet file of Hugging Face, with several row groups."""
    path = write(tmp_path / "train-0.parquet", table(metadata=HUGGING_FACE), row_group_size=7)
    if request.param == "local":
        return str(path)
    url: str = request.getfixturevalue("bucket_url")
    files_at(url).put(path.name, path.read_bytes())
    return f"{url}/{path.name}"


def test_each_row_is_a_sample_and_the_digest_is_that_of_the_file(place: str, tmp_path: Path) -> None:
    shard, source = found(place, keep=["caption"])
    reader = open_shard(shard, source)
    assert isinstance(reader, ParquetReader)
    assert reader.classes == tuple(NAMES)
    read = list(reader)
    assert [(sample.index, sample.key) for sample in read] == [(n, f"n{n // 5}_{n}") for n in range(20)]
    selection = Selection(source)
    assert [selection.image(sample) for sample in read] == [image(number) for number in range(20)]
    assert [selection.label(sample) for sample in read] == [number % 3 for number in range(20)]
    captions = [selection.fields(sample)["caption"] for sample in read]
    assert captions[:2] == [None, "a größer 1".encode()]
    data = (tmp_path / "train-0.parquet").read_bytes()
    (record,) = reader.sources()
    assert (record.path, record.bytes, record.sha256) == (
        "train-0.parquet",
        len(data),
        hashlib.sha256(data).hexdigest(),
    )
    assert reader.bytes == shard.bytes == len(data)
    assert difference(shard, source, record) is None


def from_on(shard: SourceShard, source: SourceConfig, index: ShardIndex, chosen: Sequence[int]) -> list[Sample]:
    reads = plan_reads(shard, index, np.array(chosen, np.int64))
    return [sample for read in reads for sample in read_samples_at(shard, source, index, read)]


def test_rows_are_read_from_anywhere_by_their_row_groups(place: str) -> None:
    shard, source = found(place)
    index, whole = index_shard(shard, source), list(open_shard(shard, source))
    assert index.samples == 20
    for chosen in ([0], [6, 7], [3, 4, 5, 19], list(range(20)), [13]):
        assert from_on(shard, source, index, chosen) == [whole[number] for number in chosen]
    reads = plan_reads(shard, index, np.array([0, 1, 3, 6, 7, 19]))
    assert [(read.start, read.runs) for read in reads] == [
        (0, ((0, 2), (3, 4), (6, 7))),
        (1, ((7, 8),)),
        (2, ((19, 20),)),
    ]


def test_files_of_large_row_groups_are_read_from_their_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.source.containers.parquet import container

    monkeypatch.setattr(container, "_JUMP_BYTES", 1000)
    shard, source = found(write(tmp_path / "x.parquet", table()))
    index = index_shard(shard, source)
    assert (index.samples, index.starts) == (20, None)
    assert list(Opener(source).read_on(shard, index, 15)) == list(open_shard(shard, source))[15:]


def test_the_key_is_a_column_or_the_path_or_the_row(tmp_path: Path) -> None:
    def keys(**options: Any) -> list[str]:
        columns = options.pop("columns", {})
        return [sample.key for sample in samples(write(tmp_path / "x.parquet", table(3, **columns)), **options)]

    same = [{"bytes": b"1", "path": "image.jpg"}] * 3
    assert keys() == ["n0_0", "n0_1", "n0_2"]
    assert keys(columns={"image": same}) == ["x_00000000", "x_00000001", "x_00000002"]
    assert keys(columns={"image": [b"1", b"2", b"3"]}) == ["x_00000000", "x_00000001", "x_00000002"]
    twins = [{"bytes": b"1", "path": path} for path in ("a.jpg", "a.png", "b.v1.0")]
    assert keys(columns={"image": twins})[0] == "x_00000000"
    paths = [{"bytes": b"1", "path": path} for path in ("d/a.jpg", "b.v1.0", None)]
    assert keys(columns={"image": paths})[0] == "x_00000000"
    assert keys(columns={"image": [*paths[:2], {"bytes": b"1", "path": "c"}]}) == ["d/a", "b.v1.0", "c"]
    assert keys(columns={"id": [7, None, 9]}, key="id") == ["7", "x_00000001", "9"]
    with pytest.raises(SourceError, match="row 2: the key '7' of column id comes again"):
        keys(columns={"id": [7, 8, 7]}, key="id")


LABELS: list[tuple[list[Any], list[int] | str]] = [
    ([0, 1, -1], [0, 1, -1]),
    ([0, None, 2], [0, -1, 2]),
    ([True, False, True], "not an integer"),
    (["cat", "dog", "cat"], "not an integer"),
]


@pytest.mark.parametrize(("values", "expected"), LABELS)
def test_labels_are_those_of_the_column(tmp_path: Path, values: list[Any], expected: list[int] | str) -> None:
    path = write(tmp_path / "x.parquet", table(3, label=values, fine=values))
    for options in ({}, {"label": "fine"}):
        read, label = samples(path, **options), Selection(SourceConfig(shards=(), **options)).label
        if isinstance(expected, str):
            with pytest.raises(BadSample, match=expected):
                label(read[0])
        else:
            assert [label(sample) for sample in read] == expected
    unlabelled = Selection(SourceConfig(shards=(), label=None))
    assert [unlabelled.label(sample) for sample in samples(path, label=None)] == [-1] * 3


def test_any_column_may_be_kept(tmp_path: Path) -> None:
    columns = {
        "Text": ["a\nb", "", None],
        "raw": [b"\0\xff", b"", None],
        "number": [1, 2, None],
        "half": [0.5, float("nan"), None],
        "yes": [True, False, None],
        "nested": [{"a": [1, 2], "b": "ü"}, {"a": [], "b": None}, None],
        "when": [datetime.datetime(2026, 1, 2), None, None],
        "inside": [[b"\1"], [], None],
    }
    path = write(tmp_path / "x.parquet", table(3, **columns))
    read = samples(path, keep=tuple(columns), image="image")
    selection = Selection(SourceConfig(shards=(), keep=tuple(columns), image="image"))
    assert [selection.image(sample) for sample in read] == [image(number) for number in range(3)]
    first, second, third = (selection.fields(sample) for sample in read)
    assert set(third.values()) == {None}
    assert first["Text"] == b"a\nb"
    assert (second["Text"], second["raw"]) == (b"", b"")
    assert first["raw"] == b"\0\xff"
    assert (first["number"], first["half"], first["yes"]) == (b"1", b"0.5", b"true")
    assert first["nested"] == '{"a": [1, 2], "b": "ü"}'.encode()
    assert first["when"] == b'"2026-01-02 00:00:00"'
    assert first["inside"] == b'["01"]'


def test_a_row_without_an_image_is_a_reject(tmp_path: Path) -> None:
    images = [None, {"bytes": None, "path": None}, {"bytes": None, "path": "far.jpg"}, {"bytes": b"", "path": None}]
    read = samples(write(tmp_path / "x.parquet", table(4, image=images)))
    assert len(read) == 4
    selection = Selection(SourceConfig(shards=()))
    for sample, reason in zip(read, ["no image member", "no image member", "only the path 'far.jpg'"], strict=False):
        with pytest.raises(BadSample, match=reason):
            selection.image(sample)
    assert selection.image(read[3]) == b""  # which decoding rejects


def test_the_image_is_found_by_its_type_or_named(tmp_path: Path) -> None:
    two = {"thumb": [{"bytes": b"t", "path": None}] * 3, "blob": [b"b"] * 3}

    def chosen(content: pa.Table, **options: Any) -> bytes:
        source = SourceConfig(shards=(), **options)
        return Selection(source).image(samples(write(tmp_path / "x.parquet", content), **options)[0])

    assert chosen(table(3, blob=[b"b"] * 3)) == image(0)  # the only struct
    assert chosen(table(3, HUGGING_FACE, **two)) == image(0)  # the one that Hugging Face marks
    assert chosen(table(3, **two), image="thumb") == b"t"
    assert chosen(table(3, **two), image="blob") == b"b"
    assert chosen(table(3, **two).drop_columns(["image", "thumb"])) == b"b"
    large = pa.array([b"l"] * 3, pa.large_binary())
    assert chosen(table(3).drop_columns(["image"]).append_column("Image", large)) == b"l"


REFUSED: dict[str, tuple[pa.Table, dict[str, Any], str]] = {
    "several images": (table(3, thumb=[{"bytes": b"1"}] * 3), {}, r"several columns may be the image \(image, thumb\)"),
    "no image": (table(3).drop_columns(["image"]), {}, r"no column can be the image; .* there are: label \(int64\)"),
    "another name": (table(3), {"image": "photo"}, "source.image: no column photo; there are: image"),
    "no bytes": (table(3), {"image": "caption"}, "the column caption is string, neither binary nor a struct"),
    "no label": (table(3), {"label": "fine"}, "source.label: no column fine"),
    "no key": (table(3), {"key": "id"}, "source.key: no column id"),
    "nothing to keep": (table(3), {"keep": ["caption", "txt"]}, "source.keep: no column txt"),
}


@pytest.mark.parametrize(("content", "options", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_file_without_the_columns_is_refused_by_name(
    tmp_path: Path, content: pa.Table, options: dict[str, Any], reason: str
) -> None:
    path = write(tmp_path / "x.parquet", content)
    with pytest.raises(SourceError, match=rf"x\.parquet: .*{reason}"):
        samples(path, **options)


def test_a_file_that_is_damaged_or_none_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", table(200), row_group_size=50, compression="zstd")
    data = path.read_bytes()
    for size in (0, 3, 8, 100, len(data) // 2, len(data) - 4, len(data) - 1):
        path.write_bytes(data[:size])
        for read in (samples, lambda path: index_shard(*found(path))):
            with pytest.raises(SourceError, match=r"x\.parquet: no Parquet file, or a damaged one, or cut off"):
                read(path)
    path.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(SourceError, match="no Parquet file"):
        samples(path)
    path.write_bytes(data)
    page = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset  # its header: pages have no checksums
    path.write_bytes(data[:page] + bytes(40) + data[page + 40 :])
    with pytest.raises(SourceError, match="a damaged one"):
        samples(path)
    os.utime(path, (1, 1))
    shard, source = found(path)
    path.unlink()
    with pytest.raises(SourceError, match="the source shard is gone"):
        list(open_shard(shard, source))


def test_rows_that_no_file_holds_are_refused(tmp_path: Path) -> None:
    """Rows of nothing but equal values take no bytes, and memory is asked for by their number."""
    rows = 2_000_000
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": pa.nulls(rows, pa.binary())}), path, row_group_size=rows)
    assert 8 * path.stat().st_size < rows
    for read in (samples, lambda path: index_shard(*found(path))):
        with pytest.raises(SourceError, match=r"its footer tells of 2,000,000 rows"):
            read(path)


def test_an_empty_table_has_no_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", table(3).slice(0, 0))
    shard, source = found(path)
    assert samples(path) == []
    assert index_shard(shard, source).samples == 0


def test_a_file_that_was_replaced_since_it_was_counted_is_named(tmp_path: Path) -> None:
    shard, source = found(write(tmp_path / "x.parquet", table(20), row_group_size=5))
    index = index_shard(shard, source)
    write(tmp_path / "x.parquet", table(8))
    os.utime(tmp_path / "x.parquet", (1, 1))
    shard, _ = found(tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="holds other samples than when it was counted"):
        from_on(shard, source, index, [19])


MEMORY = """
import sys, resource
import pyarrow as pa
from pipeline.config import SourceConfig
from pipeline.source.find import find_source_shards
from pipeline.source.reading import open_shard
source = SourceConfig(shards=(sys.argv[1],))
(shard,) = find_source_shards(source)
count = 0
for sample in open_shard(shard, source):
    count += 1
print(count, pa.default_memory_pool().max_memory() >> 20)
"""


def test_memory_does_not_grow_with_a_row_group(tmp_path: Path) -> None:
    blob = np.random.default_rng(0).bytes(50_000)
    writer_options: dict[str, Any] = {"write_batch_size": 16, "use_dictionary": False, "compression": "none"}
    content = table(2400, image=[{"bytes": blob, "path": None}] * 2400)
    path = write(tmp_path / "x.parquet", content, row_group_size=2400, **writer_options)
    assert path.stat().st_size > 100 << 20
    done = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True)
    count, peak_mib = map(int, done.stdout.split())
    assert count == 2400
    assert peak_mib < 40


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", table(3))
    code = "import sys; sys.modules['pyarrow'] = None\n" + MEMORY.replace("import pyarrow as pa\n", "")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (
        "ConfigError: source.shards: Parquet files need the package pyarrow: pip install 'vqtok[parquet]'"
        in done.stderr
    )
