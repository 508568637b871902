"""Sizes and checksums of the files of a store."""

from collections.abc import Iterable
from pathlib import Path

import google_crc32c

from pipeline.errors import CorruptStore
from pipeline.store.commits import FileRecord

_READ_BYTES = 1 << 20


def check_sizes(folder: Path, records: Iterable[FileRecord]) -> None:
    """Raise CorruptStore unless every recorded file is in `folder` with its size."""
    for record in records:
        path = folder / record.path
        size = path.stat().st_size if path.is_file() else None
        if size != record.bytes:
            found = "missing" if size is None else f"{size:,} bytes"
            raise CorruptStore(f"{path}: {found}, {record.bytes:,} bytes when it was committed")


def check_checksums(folder: Path, records: Iterable[FileRecord]) -> None:
    """Raise CorruptStore unless every recorded file is in `folder` with its size and its CRC-32C."""
    for record in records:
        check_sizes(folder, [record])
        if crc32c_of(folder / record.path) != record.crc32c:
            raise CorruptStore(f"{folder / record.path}: the checksum is not that of the commit: damaged on disk")


def crc32c_of(path: Path) -> int:
    """CRC-32C (Castagnoli) of a file."""
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            checksum.update(block)
    return int.from_bytes(checksum.digest(), "big")
