"""What memory is asked for, bounded by keys of the configuration, in every kind of collection."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures_store import Job, jpeg, make_job, write_shard
from hostile_tars import JPEG, long_name, member, tar

from pipeline.config import SourceConfig, load_config
from pipeline.errors import SourceError
from pipeline.jobs.status import job as status
from pipeline.jobs.verifying.commits import check_commits
from pipeline.jobs.verifying.contents import check_contents
from pipeline.source.batches import split_into_tasks
from pipeline.source.find import find_source_shards
from pipeline.source.reading import index_shard, open_shard, plan_reads, read_samples_at
from pipeline.source.sample import Sample

pytest_plugins = ["fixtures_store"]

LIMIT = 4000
SAMPLES = [(key, {"jpg": jpeg(n), "cls": b"1", "txt": b"x" * size}) for n, (key, size) in enumerate(
    (("a", 10), ("b", LIMIT), ("c", LIMIT + 1), ("d", 20_000_000), ("e", 10)))]  # fmt: skip
TOO_LARGE = {"c": f"{LIMIT + 1:,}", "d": "20,000,000"}


def written(kind: str, folder: Path) -> dict[str, object]:
    """SAMPLES as a collection; the keys of the configuration that read it."""
    folder.mkdir(parents=True)
    if kind == "folder":
        for key, members in SAMPLES:
            for name, data in members.items():
                (folder / f"{key}.{name}").write_bytes(data)
        return {"source.shards": str(folder)}
    if kind == "parquet":
        columns = {name: [members[name] for _, members in SAMPLES] for name in ("jpg", "txt")}
        labels = [1] * len(SAMPLES)
        table = pa.table({**columns, "cls": labels, "name": [key for key, _ in SAMPLES]})
        pq.write_table(table, folder / "a.parquet")
        return {"source.shards": str(folder / "a.parquet"), "source.key": "name", "source.image": "jpg"}
    write_shard(folder / "a.tar", SAMPLES)
    return {"source.shards": str(folder / "a.tar"), "source.regroup": kind == "regroup"}


KINDS = ["tar", "regroup", "folder", "parquet"]


def limited(kind: str, folder: Path, tokenizer: Path, **more: int) -> Job:
    keys = written(kind, folder / "source") | {"source.base": None, "source.max_member_bytes": LIMIT}
    limits = {f"source.{name}": value for name, value in more.items()}
    return make_job(folder, folder, tokenizer, keys | {"tokenize.max_reject_rate": 1.0} | limits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_is_too_large_makes_its_sample_a_reject(
    kind: str, tokenizer_folder: Path, tmp_path: Path
) -> None:
    job = limited(kind, tmp_path / "job", tokenizer_folder)
    assert job.run().complete
    (file,) = (job.store / "rejects").glob("*.jsonl")
    rejects = {line["key"].rpartition("/")[2]: line for line in map(json.loads, file.read_text().splitlines())}
    assert rejects.keys() == TOO_LARGE.keys()
    for key, size in TOO_LARGE.items():
        assert rejects[key]["stage"] == "select"
        assert rejects[key]["reason"] == f".txt: {size} bytes, more than source.max_member_bytes = {LIMIT:,}"
    found = check_commits(job.config())
    check_contents(job.config(), found, show_progress=False)
    assert (found.samples, found.rejected, found.problems) == (3, 2, [])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_from_anywhere_have_the_same_problems(kind: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    source = limited(kind, tmp_path / "job", tokenizer_folder).config().source
    (shard,) = find_source_shards(source)
    forward = list(open_shard(shard, source, digests=False))
    assert [len(sample.problems) for sample in forward] == [0, 0, 1, 1, 0]
    index = index_shard(shard, source)
    if index.starts is None:  # read from its beginning
        return
    reads = plan_reads(shard, index, np.arange(index.samples))
    again = [sample for read in reads for sample in read_samples_at(shard, source, index, read)]
    assert [(sample.key, sample.members, sample.problems) for sample in again] == [
        (sample.key, sample.members, sample.problems) for sample in forward
    ]


def test_kept_members_are_bounded_together(tokenizer_folder: Path, tmp_path: Path) -> None:
    job = limited("tar", tmp_path / "job", tokenizer_folder, max_kept_bytes=LIMIT + 19)
    assert not job.run().complete
    (failed,) = status.run(job.config()).failed
    assert "source.max_kept_bytes = 4,019 bytes together; raise it" in failed.reason
    assert job.run("source.max_kept_bytes=4020").complete


def test_what_a_configuration_allows_is_allowed(tmp_path: Path) -> None:
    """Each bound can be raised by its key."""
    name = "long/" * 2000 + "a"
    data = tar(long_name(f"{name}.jpg".encode()), member("x", JPEG), member("b.jpg", bytes(5000)))
    (tmp_path / "a.tar").write_bytes(data)
    file = tmp_path / "job.yaml"
    file.write_text(
        f"source: {{shards: {tmp_path}/a.tar, max_header_bytes: 5000, max_member_bytes: 4999}}\nimage: {{size: 8}}"
    )
    for sets, outcome in (
        ([], "source.max_header_bytes = 5,000"),
        (["source.max_header_bytes=20000"], ".jpg: 5,000 bytes, more than source.max_member_bytes = 4,999"),
        (["source.max_header_bytes=20000", "source.max_member_bytes=5000"], ""),
    ):
        source: SourceConfig = load_config(file, sets).source
        (shard,) = find_source_shards(source)
        try:
            samples = list(open_shard(shard, source))
        except SourceError as error:
            assert outcome in str(error)
            assert outcome.startswith("source.max_header")
            continue
        assert [sample.key for sample in samples] == [name, "b"]
        assert samples[1].problems == ([outcome] if outcome else [])


def test_samples_are_read_ahead_by_their_size() -> None:
    samples = [Sample(n, str(n), {"jpg": bytes(size)}) for n, size in enumerate((10, 10, 64 << 20, 10))]
    tasks = list(split_into_tasks(samples, 2, 1 << 16))
    assert [len(task) for task in tasks] == [2, 1, 1]
    assert [task.weight() for task in tasks] == [2, 8, 1]
