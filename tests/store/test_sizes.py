"""Sizes and checksums of files: any change is found, and the file is named."""

from pathlib import Path

import google_crc32c
import pytest

from pipeline.errors import CorruptStore
from pipeline.store.commits import FileRecord
from pipeline.store.sizes import check_checksums, check_sizes, crc32c_of

DATA = bytes(range(256)) * 5000


@pytest.fixture
def record(tmp_path: Path) -> FileRecord:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(DATA)
    return FileRecord(path="folder/file", bytes=len(DATA), crc32c=google_crc32c.value(DATA))


def test_the_checksum_is_crc32c(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"123456789")
    assert crc32c_of(tmp_path / "file") == 0xE3069283  # the check value of CRC-32C, RFC 3720 appendix B.4's polynomial


def test_files_as_recorded_pass(tmp_path: Path, record: FileRecord) -> None:
    check_sizes(tmp_path, [record])
    check_checksums(tmp_path, [record])


def test_a_missing_or_a_short_file_is_named(tmp_path: Path, record: FileRecord) -> None:
    path = tmp_path / record.path
    path.write_bytes(DATA[:-1])
    message = r"folder/file: 1,279,999 bytes, 1,280,000 bytes when it was committed"
    for check in (check_sizes, check_checksums):
        with pytest.raises(CorruptStore, match=message):
            check(tmp_path, [record])
    path.unlink()
    for check in (check_sizes, check_checksums):
        with pytest.raises(CorruptStore, match="folder/file: missing, 1,280,000 bytes when it was committed"):
            check(tmp_path, [record])


@pytest.mark.parametrize("position", [0, len(DATA) // 2, len(DATA) - 1])
def test_a_flipped_bit_is_found(tmp_path: Path, record: FileRecord, position: int) -> None:
    data = bytearray(DATA)
    data[position] ^= 1
    (tmp_path / record.path).write_bytes(data)
    check_sizes(tmp_path, [record])
    with pytest.raises(CorruptStore, match="folder/file: the checksum is not that of the commit"):
        check_checksums(tmp_path, [record])
