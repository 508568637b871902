"""Writing a part: every crash is harmless, the first commit wins, and the record tells all."""

import errno
import hashlib
import json
import os
import signal
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr
from fixtures_store import Child, Halt, all_files, begin_store, finish_store, make_birth, make_shard

from pipeline.files import LocalFiles
from pipeline.store import TokenStore
from pipeline.store.schema.commits import CommitRecord, committed_parts, read_commit
from pipeline.store.schema.counts import unpack_counts
from pipeline.store.schema.digest import content_digest
from pipeline.store.schema.sizes import check_checksums
from pipeline.store.writing.writer import EncodedShard, commit_part, delete_attempt

BIRTH = make_birth(fields=["txt"])


def some_shard(rows: int = 6) -> EncodedShard:
    return make_shard(BIRTH, "p", rows, fields={"txt": [b"x", None, b""] * (rows // 3)}, rejects=2)


def commit(folder: Path, rows: int = 6) -> CommitRecord:
    return commit_part(LocalFiles(folder), BIRTH, some_shard(rows))


def attempts(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "tokens.zarr/parts").iterdir() if path.is_dir())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    begin_store(tmp_path / "store", BIRTH)
    return tmp_path / "store"


def test_the_record_tells_all(store: Path) -> None:
    shard = replace(some_shard(), ignored=[f"._{number}" for number in range(150)])
    record = commit_part(LocalFiles(store), BIRTH, shard)
    assert record == read_commit(LocalFiles(store), "p")
    assert (record.part, record.sources) == ("p", shard.sources)
    assert (record.seen, record.written, record.rejected, record.unlabelled) == (8, 6, 2, 1)
    assert record.ignored == tuple(shard.ignored[:100])
    counts = unpack_counts(record.code_counts, 16, "")
    assert counts.tolist() == np.bincount(shard.tokens.reshape(-1), minlength=16).tolist()
    assert (record.execution, record.host) == ({"precision": "fp32"}, socket.gethostname())
    assert record.seconds["encode"] == 0.5
    assert record.seconds["write"] >= 0
    assert abs(datetime.now(UTC) - datetime.fromisoformat(record.finished)) < timedelta(minutes=5)


def test_the_record_names_every_file_with_size_and_checksum(store: Path) -> None:
    record = commit(store)
    folder = store / "tokens.zarr/parts" / f"p.{record.attempt}"
    assert {file.path: (file.bytes, file.sha256, file.crc32c) for file in record.files} == {
        path: (len(data), hashlib.sha256(data).hexdigest(), None) for path, data in all_files(folder).items()
    }
    check_checksums(LocalFiles(store), "rejects", [record.rejects])
    lines = (store / "rejects" / record.rejects.path).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"key": f"bad{number}", "index": 6 + number, "stage": "decode", "reason": "broken"} for number in range(2)
    ]


def test_a_store_without_digests_gets_records_as_it_ever_did(tmp_path: Path) -> None:
    """Versions that wrote it refuse records with keys that they do not know."""
    birth = BIRTH.model_copy(update={"features": ()})
    files = begin_store(tmp_path, birth)
    tree = json.loads(commit_part(files, birth, some_shard()).to_json())
    finish_store(files, birth)
    (part,) = json.loads(files.read("manifest.json"))["parts"]
    assert {name for file in (tree["rejects"], *tree["files"]) for name in file} == {"path", "bytes", "crc32c", "etag"}
    assert {name for array in tree["arrays"].values() for name in array} == {"shape", "dtype", "chunks", "codecs"}
    assert not {"arrays", "sha256"} & part.keys()
    assert "sha256" not in tree


@pytest.mark.parametrize(("codec", "compressor"), [("lz4", ("blosc",)), ("raw", ())])
def test_the_record_describes_every_array(store: Path, codec: str, compressor: tuple[str, ...]) -> None:
    record = commit_part(LocalFiles(store), BIRTH.model_copy(update={"codec": codec}), some_shard())
    group = zarr.open_group(str(store / "tokens.zarr/parts" / f"p.{record.attempt}"), mode="r")
    arrays = {path: node for path, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    assert {path: (entry.shape, entry.dtype, entry.chunks) for path, entry in record.arrays.items()} == {
        path: (array.shape, str(array.dtype), array.chunks) for path, array in arrays.items()
    }
    assert record.arrays["tokens"].codecs == ("bytes", *compressor, "crc32c")
    assert record.arrays["key/data"].codecs == ("bytes", *(("zstd",) if compressor else ()), "crc32c")
    assert record.content_digest == content_digest({path: np.asarray(array[...]) for path, array in arrays.items()})
    assert arrays["tokens"].metadata.dimension_names == ("sample", "token")


def test_no_rejects_are_no_file(store: Path) -> None:
    record = commit_part(LocalFiles(store), BIRTH, replace(some_shard(), rejects=[]))
    assert (record.rejected, record.rejects.bytes) == (0, 0)
    assert not (store / "rejects").exists()


def test_a_part_of_no_rows_is_committed(store: Path) -> None:
    record = commit_part(LocalFiles(store), BIRTH, replace(some_shard(0), rejects=[]))
    assert (record.seen, record.written, record.rejected) == (0, 0, 0)
    assert record.arrays["tokens"].shape == (0, 8)
    finish_store(LocalFiles(store), BIRTH)
    assert len(TokenStore(store)) == 0


def test_everything_is_durable_before_the_record_is_linked(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches fsync and link of a real commit; files are told apart by their inodes, which renaming keeps."""
    synced: list[int] = []
    at_link: list[set[int]] = []
    fsync, link = os.fsync, os.link

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    def watched_link(source: Path, target: Path) -> None:
        if Path(target).parent.name == "commits":  # zarr links too, while it writes
            assert Path(source).stat().st_ino in synced
            at_link.append(set(synced))
        link(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "link", watched_link)
    record = commit(store)
    monkeypatch.undo()

    attempt = store / "tokens.zarr/parts" / f"p.{record.attempt}"
    rejects = store / "rejects" / record.rejects.path
    must = [attempt, attempt.parent, rejects, rejects.parent, *attempt.rglob("*")]
    assert len(at_link) == 1
    assert [path for path in must if path.stat().st_ino not in at_link[0]] == []
    assert synced[-1] == (store / "commits").stat().st_ino


STEPS = [
    ("os.mkdir", "/staging", 1),
    ("os.mkdir", "/staging/p.", 1),
    ("open", "/staging/p.", 1),
    ("open", "/staging/p.", 9),
    ("open", "/staging/p.", 30),  # syncing
    ("os.rename", "/tokens.zarr/parts/", 1),  # the whole attempt
    ("open", "/tokens.zarr/parts", 1),
    ("os.mkdir", "/rejects", 1),
    ("os.rename", "/rejects/", 1),
    ("os.mkdir", "/commits", 1),
    ("open", "/commits/.tmp-", 1),
    ("os.link", "/commits/", 1),  # the last moment without a part
    ("os.remove", "/commits/", 1),
    ("open", "/commits", 2),
]
"""Kind of system call, part of its path, and which of them: the process is killed right before."""


def test_a_kill_at_any_step_leaves_no_part_or_a_whole_one(tmp_path: Path) -> None:
    folders = [tmp_path / f"store{number}" for number in range(len(STEPS))]
    for folder in folders:
        begin_store(folder, BIRTH)
    children = [
        Child(commit, folder, folder=tmp_path / "output", halt=Halt(event, f"{folder}{fragment}", count))
        for (event, fragment, count), folder in zip(STEPS, folders, strict=True)
    ]
    assert [child.wait().status for child in children] == [-signal.SIGKILL] * len(STEPS)

    expected = commit_part(begin_store(tmp_path / "whole", BIRTH), BIRTH, some_shard()).content_digest
    states = []
    for folder in folders:
        files = LocalFiles(folder)
        states.append((len(attempts(folder)), len(committed_parts(files))))
        for part in committed_parts(files):
            record = read_commit(files, part)
            check_checksums(files, f"tokens.zarr/parts/p.{record.attempt}", record.files)
            check_checksums(files, "rejects", [record.rejects])
        assert commit(folder).content_digest == expected  # the next run completes
        finish_store(files, BIRTH)
        assert list(TokenStore(folder).keys) == some_shard().keys
    # Nothing, then an attempt that nobody counts, then a part.
    assert states == [(0, 0)] * 6 + [(1, 0)] * 6 + [(1, 1)] * 2


def test_the_loser_deletes_its_own_attempt_and_nothing_else(store: Path, tmp_path: Path) -> None:
    late = Child(commit, store, folder=tmp_path / "output", halt=Halt("os.link", "commits/", signal=signal.SIGSTOP))
    late.wait_until_stopped()
    (its_attempt,) = attempts(store)
    winner = commit(store)
    assert len(attempts(store)) == 2
    winners_files = {path: data for path, data in all_files(store).items() if its_attempt not in path}
    late.signal(signal.SIGCONT)
    assert late.wait().status == 0
    assert attempts(store) == [f"p.{winner.attempt}"]
    left = {path: data for path, data in all_files(store).items() if "/.tmp-" not in path}
    assert left == {path: data for path, data in winners_files.items() if "/.tmp-" not in path}


def test_whoever_loses_gets_the_commit_that_counts(store: Path) -> None:
    winner = commit(store)
    assert commit(store) == winner
    assert commit(store, rows=3) == winner  # whatever it had to offer
    assert attempts(store) == [f"p.{winner.attempt}"]
    assert list((store / "staging").iterdir()) == []


class LostReply(LocalFiles):
    """The record is written, and the reply is lost."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        super().put_if_absent(path, data)
        return False


def test_a_lost_reply_is_no_lost_commit(store: Path) -> None:
    record = commit_part(LostReply(store), BIRTH, some_shard())
    assert attempts(store) == [f"p.{record.attempt}"]
    assert read_commit(LocalFiles(store), "p") == record
    check_checksums(LocalFiles(store), "rejects", [record.rejects])


def test_only_an_attempt_that_a_commit_rules_out_is_deleted(store: Path) -> None:
    record = commit(store)
    before = all_files(store)
    with pytest.raises(AssertionError, match="is the committed one"):
        delete_attempt(LocalFiles(store), "p", record.attempt)
    with pytest.raises(FileNotFoundError):
        delete_attempt(LocalFiles(store), "q", "00000000")
    delete_attempt(LocalFiles(store), "p", "00000000")
    assert all_files(store) == before


def commit_or_report(folder: Path, rows: int) -> None:
    try:
        commit(folder, rows)
    except OSError as error:
        print(errno.errorcode[error.errno or 0])


@pytest.mark.parametrize(
    ("rows", "file_bytes"),
    [
        (3000, 4_000),  # the tokens do not fit
        (6, 2_500),  # all arrays fit, the record does not
    ],
)
def test_a_full_disk_leaves_no_part_and_the_next_run_completes(
    store: Path, tmp_path: Path, rows: int, file_bytes: int
) -> None:
    child = Child(commit_or_report, store, rows, folder=tmp_path / "output", file_bytes=file_bytes)
    assert child.wait().out == "EFBIG\n"
    assert committed_parts(LocalFiles(store)) == set()
    assert list((store / "staging").iterdir()) == []
    if rows == 3000:
        assert attempts(store) == []  # a full disk is not filled further
    assert commit(store, rows).written == rows
