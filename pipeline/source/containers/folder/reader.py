"""Samples of the files of a folder."""

import base64
import contextlib
import fnmatch
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.files import Files, Stat, TooLarge, is_url
from pipeline.files.refusals import Refusal, is_passing
from pipeline.overlap import ordered_map
from pipeline.records import Listing, SourceRecord, SourceShard
from pipeline.source.containers.limits import DEFAULT, Limits
from pipeline.source.containers.members import add_member, add_problem
from pipeline.source.folders.names import FileSample, joined, samples_of
from pipeline.source.sample import Sample
from pipeline.source.shards.opening import files_of, shard_name
from pipeline.source.shards.raw import PIECE_BYTES

# Samples that one task reads, and that are in flight: a file system answers at once or after milliseconds, an object
# store after tens of them.
_LOCAL = (2, 8, 64)
_REMOTE = (32, 1, 64)
_LISTINGS = 128


class FileSeen(NamedTuple):
    """A file as it was read; nothing of one that is left out."""

    path: str
    stat: Stat | None
    sha256: str | None


class FileRead(NamedTuple):
    """A sample, and what was read for it."""

    sample: Sample
    seen: list[FileSeen]


@dataclass(frozen=True)
class FolderFiles:
    """Reads the files of a source shard."""

    shard: SourceShard
    listing: Listing
    excluded: Sequence[str]
    """Patterns of files that may be missing or unreadable: their samples are rejects then."""
    wanted: Callable[[str], bool]
    digests: bool
    limits: Limits = DEFAULT

    @cached_property
    def files(self) -> Files:
        """What the files are read through."""
        return files_of(self.shard)

    def samples(self) -> list[FileSample]:
        """All that there are, in order."""
        return _samples(self.listing)

    def read(self, index: int, sample: FileSample) -> FileRead:
        """One of them. Raises SourceError for a file that cannot be read."""
        found, seen = Sample(index, sample.key, {}, start=index), []
        for extension, path in sample.members:
            data = None
            if self.digests or self.wanted(extension):
                data, file = self._fetch(path, found)
                seen.append(file)
            add_member(found, extension, data if self.wanted(extension) else None)
        return FileRead(found, seen)

    def has_files_in(self, folder: str) -> bool:
        """Whether any file of a folder is neither gone nor named in `source.exclude`, and so may become a row."""
        if not self.listing.missing and not self.excluded:
            return True
        paths = {joined(folder, name) for name in self.listing.files[folder]}.difference(self.listing.missing)
        return any(not self.is_excluded(path) for path in paths)

    def name_of(self, path: str) -> str:
        """A file's name for messages."""
        return f"{self.files.root}/{joined(self.listing.folder, path)}"

    def _fetch(self, path: str, sample: Sample) -> tuple[bytes | None, FileSeen]:
        try:
            try:
                data, stat = self.files.fetch(joined(self.listing.folder, path), self.limits.member_bytes)
            except TooLarge as error:
                return self._pass_over(path, sample, error.stat)
        except OSError as error:
            reason = error.strerror or str(error)
            if self.is_excluded(path) and not is_passing(error):
                sample.problems.append(f".{path.rpartition('.')[2]} cannot be read ({reason})")
                return None, FileSeen(path, None, None)
            if isinstance(error, Refusal):
                raise SourceError(str(error)) from error
            raise SourceError(
                f"{self.name_of(path)!r}: {reason}; restore the file or its permissions and run again, or name it in "
                "source.exclude, and its sample will be a reject"
            ) from error
        return data, FileSeen(path, stat, hashlib.sha256(data).hexdigest() if self.digests else None)

    def _pass_over(self, path: str, sample: Sample, stat: Stat) -> tuple[None, FileSeen]:
        """A file that memory should not hold: its sample is a reject where it is wanted."""
        extension = path.rpartition(".")[2].lower()
        if self.wanted(extension):
            add_problem(sample, extension, self.limits.too_large(stat.bytes))
        if not self.digests:
            return None, FileSeen(path, stat, None)
        digest = hashlib.sha256()
        with self.files.open(joined(self.listing.folder, path)) as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
        return None, FileSeen(path, stat, digest.hexdigest())

    def is_excluded(self, path: str) -> bool:
        """Whether `source.exclude` names a file."""
        relative = joined(self.listing.folder, path)
        names = (relative, joined(self.shard.base, relative))
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.excluded for name in names)


@lru_cache(_LISTINGS)
def _samples(listing: Listing) -> list[FileSample]:
    """Kept, for training reads some of them again and again."""
    return samples_of(listing.files)


class FolderReader:
    """Iterates over the samples of the files of a folder, once; see `ShardReader`.

    Iterating raises SourceError for a file that is gone, cannot be read, or is written to meanwhile.
    """

    def __init__(self, content: FolderFiles) -> None:
        self._content = content
        self._sha256 = hashlib.sha256()
        self._tags = b""
        self._local: list[FileSeen] = []
        self.bytes = 0
        self.ignored: list[str] = []

    def __iter__(self) -> Iterator[Sample]:
        is_remote = is_url(self._content.shard.base)
        threads, lot, ahead = _REMOTE if is_remote else _LOCAL
        numbered = list(enumerate(self._content.samples()))
        lots = (numbered[start : start + lot] for start in range(0, len(numbered), lot))
        with (
            ThreadPoolExecutor(threads, "files") as readers,
            contextlib.closing(ordered_map(self._read_lot, lots, readers, ahead, weight=len)) as read,
        ):
            for found in read:
                for sample, seen in found:
                    self._note(seen)
                    yield sample
        if self._content.digests and not is_remote:
            self._expect_unchanged()

    def sources(self) -> tuple[SourceRecord, ...]:
        """All files as one record: their bytes together, a digest over the digests of each, and tags as its version."""
        version = base64.b64encode(self._tags).decode()
        path = self._content.shard.path
        return (SourceRecord(path=path, bytes=self.bytes, sha256=self._sha256.hexdigest(), version=version),)

    def _read_lot(self, lot: Sequence[tuple[int, FileSample]]) -> list[FileRead]:
        return [self._content.read(index, sample) for index, sample in lot]

    def _note(self, seen: Iterable[FileSeen]) -> None:
        for file in seen:
            self.bytes += file.stat.bytes if file.stat else 0
            if self._content.digests:
                size = file.stat.bytes if file.stat else None
                self._sha256.update(f"{file.path!a} {size} {file.sha256}\n".encode())
                self._tags += tag(file.stat)
                self._local.append(file)

    def _expect_unchanged(self) -> None:
        """An object is replaced as a whole; a file may have been written to since it was read."""
        content = self._content
        for path, stat, _ in self._local:
            try:
                now = content.files.stat(joined(content.listing.folder, path)) if stat else None
            except Refusal as error:
                raise SourceError(str(error)) from error
            except OSError as error:
                raise SourceError(
                    f"{content.name_of(path)!r}: gone while its source shard was read ({error})"
                ) from error
            if now != stat:
                raise SourceError(
                    f"{content.name_of(path)!r}: written while its source shard was read; run again when nobody writes "
                    "to it"
                )


def tag(stat: Stat | None) -> bytes:
    """Four bytes that are others when a file has been written anew; zeros for none."""
    return bytes(4) if stat is None else zlib.crc32(f"{stat.bytes} {stat.version}".encode()).to_bytes(4, "big")


def difference(content: FolderFiles, record: SourceRecord) -> str | None:
    """How the files differ from what a record says of them, as far as sizes and times tell; None if they do not.

    Files that are gone may be so where `source.exclude` names them.
    Where times alone differ, as in a copied collection, all is read. Raises SourceError for what cannot be.
    """
    name = shard_name(content.shard)
    paths = [path for sample in content.samples() for _, path in sample.members]
    with ThreadPoolExecutor(_REMOTE[0]) as threads:
        stats = list(threads.map(lambda path: _stat_or_none(content, path), paths))
    then = base64.b64decode(record.version)
    tags = [then[at : at + 4] for at in range(0, len(then), 4)]
    if len(tags) != len(paths):
        return f"{len(paths):,} files, {len(tags):,} then"
    changed = [
        path
        for path, stat, old in zip(paths, stats, tags, strict=True)
        if tag(stat) != old and not (stat is None and content.is_excluded(path))
    ]
    if not changed:
        return None
    if sum(stat.bytes for stat in stats if stat) == record.bytes:
        reader = FolderReader(content)
        for _ in reader:
            pass
        if reader.sources()[0].sha256 == record.sha256:
            return None
    return f"{len(changed):,} of {len(paths):,} files changed, such as {changed[0]!r} of {name}"


def _stat_or_none(content: FolderFiles, path: str) -> Stat | None:
    try:
        return content.files.stat(joined(content.listing.folder, path))
    except FileNotFoundError:
        return None
