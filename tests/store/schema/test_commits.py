"""Commit records: the first one wins, and who lost is decided by reading it back."""

import json
from pathlib import Path

import pytest
from fixtures_store import begin_store, make_birth, make_shard

from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles
from pipeline.store.schema.commits import (
    CommitRecord,
    committed_parts,
    commonest_reasons,
    publish,
    read_commit,
    read_commits,
)
from pipeline.store.writing.writer import commit_part


class LostReply(LocalFiles):
    """A file system, such as an object store behind a bad network, whose yes is lost on the way."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        super().put_if_absent(path, data)
        return False


@pytest.fixture
def record(tmp_path: Path) -> CommitRecord:
    """A record of another store, to publish here."""
    birth = make_birth()
    return commit_part(begin_store(tmp_path / "elsewhere", birth), birth, make_shard(birth, "p", 3))


def test_the_first_commit_wins(tmp_path: Path, record: CommitRecord) -> None:
    files = LocalFiles(tmp_path / "here")
    later = record.model_copy(update={"attempt": "ffffffff"})
    assert publish(files, record)
    assert not publish(files, later)
    assert read_commit(files, "p") == record
    assert committed_parts(files) == {"p"}


def test_the_same_attempt_is_no_loss(tmp_path: Path, record: CommitRecord) -> None:
    files = LostReply(tmp_path / "here")
    assert publish(files, record)
    assert read_commit(files, "p") == record
    assert publish(files, record)
    assert not publish(files, record.model_copy(update={"attempt": "ffffffff"}))


def test_only_finished_records_count(tmp_path: Path, record: CommitRecord) -> None:
    files = LocalFiles(tmp_path / "here")
    assert committed_parts(files) == set()
    publish(files, record)
    (tmp_path / "here/commits/.tmp-q.json.12345678").write_bytes(b"half")
    (tmp_path / "here/commits/notes.txt").write_bytes(b"of a person")
    assert committed_parts(files) == {"p"}


def test_records_come_in_the_order_asked_for(tmp_path: Path, record: CommitRecord) -> None:
    files = LocalFiles(tmp_path / "here")
    for part in "abc":
        publish(files, record.model_copy(update={"part": part}))
    assert [commit.part for commit in read_commits(files, ["c", "a"])] == ["c", "a"]


@pytest.mark.parametrize("damage", ["", "{", "unknown field", "missing field"])
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, record: CommitRecord, damage: str) -> None:
    files = LocalFiles(tmp_path / "here")
    publish(files, record)
    path = tmp_path / "here/commits/p.json"
    tree = json.loads(path.read_text())
    texts = {
        "unknown field": json.dumps(tree | {"parent": "p"}),  # reserved for retry parts of a later version
        "missing field": json.dumps({name: tree[name] for name in tree if name != "seen"}),
    }
    path.write_text(texts.get(damage, damage))
    with pytest.raises(CorruptStore, match=r"commits/p\.json: not a commit record"):
        read_commit(files, "p")


def test_no_record_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_commit(LocalFiles(tmp_path), "p")


def test_a_record_is_the_same_text_again(record: CommitRecord) -> None:
    assert CommitRecord.model_validate_json(record.to_json()).to_json() == record.to_json()


def test_reasons_are_counted() -> None:
    reasons = ["cut"] * 3 + ["empty"] + ["text"] * 2 + ["grey"]
    assert commonest_reasons(reasons, 2) == "3 x cut; 2 x text"


def test_all_damaged_records_are_named(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    for part in "abc":
        files.put(f"commits/{part}.json", b"{")
    with pytest.raises(
        CorruptStore, match=r"(?s)commits/a\.json: not a.*commits/b\.json: not a.*commits/c\.json: not a"
    ):
        read_commits(files, "abc")


class Forgetful(LocalFiles):
    """A place whose lists lag behind, as those of some object stores do."""

    def names(self, folder: str) -> list[str]:
        return []


def test_a_commit_that_a_list_lacks_is_asked_for(tmp_path: Path, record: CommitRecord) -> None:
    files = Forgetful(tmp_path / "here")
    publish(files, record)
    assert committed_parts(files) == set()
    assert committed_parts(files, ["p", "q"]) == {"p"}
