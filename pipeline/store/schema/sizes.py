"""Sizes and checksums of the files of a store."""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import google_crc32c

from pipeline.errors import CorruptStore
from pipeline.files import Files, Stat
from pipeline.store.schema.commits import FileRecord


def check_sizes(place: str, stats: Mapping[str, Stat], records: Iterable[FileRecord], entity_tags: bool = True) -> None:
    """Raise CorruptStore unless every recorded file of `place` is in `stats`, with its size and entity tag.

    Args:
        entity_tags: compare them, too. Not where the sha256 of the contents will be: a sound copy from one bucket to
            another may have other tags.
    """
    for record in records:
        stat = stats.get(record.path)
        if stat is None or stat.bytes != record.bytes:
            found = "missing" if stat is None else f"{stat.bytes:,} bytes"
            raise CorruptStore(f"{place}/{record.path}: {found}, {record.bytes:,} bytes when it was committed")
        is_compared = entity_tags or record.sha256 is None
        if is_compared and record.etag and stat.etag and record.etag != stat.etag:
            raise CorruptStore(
                f"{place}/{record.path}: entity tag {stat.etag}, {record.etag} when it was committed: it was replaced, "
                "or copied from another bucket; vqtok verify without --quick compares contents"
            )


def check_folder(files: Files, folder: str, records: Sequence[FileRecord], entity_tags: bool = True) -> None:
    """Raise CorruptStore unless every recorded file is in `folder` with its size and entity tag.

    From a listing; what that lacks is asked for, since the lists of some object stores lag behind.
    """
    stats = files.stats(folder)
    for record in records:
        if record.path not in stats:
            with contextlib.suppress(FileNotFoundError):
                stats[record.path] = files.stat(f"{folder}/{record.path}")
    check_sizes(f"{files.root}/{folder}", stats, records, entity_tags)


def check_file(files: Files, folder: str, record: FileRecord, entity_tags: bool = True) -> None:
    """Raise CorruptStore unless a recorded file is in `folder` with its size and entity tag."""
    try:
        stats = {record.path: files.stat(f"{folder}/{record.path}")}
    except FileNotFoundError:
        stats = {}
    check_sizes(f"{files.root}/{folder}", stats, [record], entity_tags)


def check_checksums(files: Files, folder: str, records: Iterable[FileRecord]) -> None:
    """Raise CorruptStore unless every recorded file is in `folder` with its size and its sha256.

    In stores made before there was the feature `digests`: with its CRC-32C (Castagnoli).
    """
    for record in records:
        check_file(files, folder, record, entity_tags=False)
        checksum = Checksum(record)
        checksum.add(files.read(f"{folder}/{record.path}"))
        if not checksum.is_right():
            raise CorruptStore(
                f"{files.root}/{folder}/{record.path}: the checksum is not that of the commit: damaged where it lies"
            )


class Checksum:
    """Compares contents that come in blocks with a record."""

    def __init__(self, record: FileRecord) -> None:
        self._record = record
        self._sha256 = hashlib.sha256()
        self._crc32c = 0

    def add(self, block: bytes) -> None:
        """The next bytes of the file."""
        if self._record.sha256 is not None:
            self._sha256.update(block)
        else:
            self._crc32c = google_crc32c.extend(self._crc32c, block)

    def is_right(self) -> bool:
        """Whether what was added is what was recorded."""
        if self._record.sha256 is not None:
            return self._sha256.hexdigest() == self._record.sha256
        return self._crc32c == self._record.crc32c
