"""Sizes and checksums of files: any change is found, and the file is named."""

import hashlib
from pathlib import Path

import google_crc32c
import pytest

from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles, Stat
from pipeline.store.schema.commits import FileRecord
from pipeline.store.schema.sizes import check_checksums, check_file, check_folder, check_sizes

DATA = bytes(range(256)) * 5000


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    files = LocalFiles(tmp_path)
    files.put("part/folder/file", DATA)
    return files


RECORD = FileRecord(path="folder/file", bytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())


def check_all(files: LocalFiles) -> list[str]:
    """What each of the three checks says, `` for nothing."""
    said = []
    for check in (
        lambda: check_sizes("STORE/part", files.stats("part"), [RECORD]),
        lambda: check_file(files, "part", RECORD),
        lambda: check_checksums(files, "part", [RECORD]),
    ):
        try:
            check()
            said.append("")
        except CorruptStore as error:
            said.append(str(error).replace(files.root, "STORE"))
    return said


def test_files_as_recorded_pass(files: LocalFiles) -> None:
    assert check_all(files) == ["", "", ""]


def test_a_missing_or_a_short_file_is_named(files: LocalFiles) -> None:
    files.put("part/folder/file", DATA[:-1])
    assert check_all(files) == ["STORE/part/folder/file: 1,279,999 bytes, 1,280,000 bytes when it was committed"] * 3
    files.delete("part/folder/file")
    assert check_all(files) == ["STORE/part/folder/file: missing, 1,280,000 bytes when it was committed"] * 3


@pytest.mark.parametrize("position", [0, len(DATA) // 2, len(DATA) - 1])
def test_a_flipped_bit_is_found(files: LocalFiles, position: int) -> None:
    data = bytearray(DATA)
    data[position] ^= 1
    files.put("part/folder/file", bytes(data))
    said = "STORE/part/folder/file: the checksum is not that of the commit: damaged where it lies"
    assert check_all(files) == ["", "", said]


def test_another_file_that_ends_in_its_own_crc32c_is_found_by_sha256_alone(files: LocalFiles) -> None:
    """As chunk files do: the crc32c of all of them is the same."""
    ours, other = ended_in_crc32c(b"ours "), ended_in_crc32c(b"other")
    files.put("part/file", other)
    older = FileRecord(path="file", bytes=len(ours), crc32c=google_crc32c.value(ours))
    check_checksums(files, "part", [older])
    record = FileRecord(path="file", bytes=len(ours), sha256=hashlib.sha256(ours).hexdigest())
    with pytest.raises(CorruptStore, match="part/file: the checksum is not that of the commit"):
        check_checksums(files, "part", [record])


def ended_in_crc32c(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(4, "little")


def test_a_record_without_any_checksum_is_none() -> None:
    with pytest.raises(ValueError, match="a file without sha256"):
        FileRecord(path="file", bytes=1)


@pytest.mark.parametrize(
    ("recorded", "found", "sound"), [("a", "a", True), ("a", "b", False), (None, "b", True), ("a", None, True)]
)
def test_an_entity_tag_counts_where_both_are_known(recorded: str | None, found: str | None, sound: bool) -> None:
    record = RECORD.model_copy(update={"etag": recorded})
    stats = {record.path: Stat(record.bytes, "now", found)}
    if sound:
        check_sizes("STORE/part", stats, [record])
        return
    with pytest.raises(CorruptStore, match="STORE/part/folder/file: entity tag b, a when it was committed"):
        check_sizes("STORE/part", stats, [record])


def test_a_sound_copy_with_another_entity_tag_is_known_by_its_sha256(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another bucket, or put there in several pieces."""
    data = ended_in_crc32c(b"ours ")
    files.put("part/file", data)
    stat = files.stat
    monkeypatch.setattr(files, "stat", lambda path: stat(path)._replace(etag="b"))
    record = FileRecord(path="file", bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), etag="a")
    check_checksums(files, "part", [record])
    check_file(files, "part", record, entity_tags=False)
    with pytest.raises(CorruptStore, match=r"entity tag b, a when .* without --quick compares contents"):
        check_file(files, "part", record)
    older = FileRecord(path="file", bytes=len(data), crc32c=google_crc32c.value(data), etag="a")
    with pytest.raises(CorruptStore, match="entity tag b"):
        check_checksums(files, "part", [older])


def test_a_file_that_a_list_lacks_is_asked_for(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of some object stores lag behind."""
    monkeypatch.setattr(files, "stats", lambda folder: {})
    check_folder(files, "part", [RECORD])
    files.delete("part/folder/file")
    with pytest.raises(CorruptStore, match="folder/file: missing"):
        check_folder(files, "part", [RECORD])
