"""Commit records: the small files that make parts exist."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Protocol, Self, TypeVar

from pydantic import Field, model_validator

from pipeline.before import Before
from pipeline.errors import VqtokError
from pipeline.files import Files
from pipeline.files.damage import damaged, naming_no_file, together
from pipeline.files.each import read_each, read_sound
from pipeline.records import JSON, Count, Record, Seconds, SourceRecord
from pipeline.store.schema import names
from pipeline.store.schema.names import AttemptName, Inside, PartName
from pipeline.store.schema.seals import read_record, sealed


class FileRecord(Record):
    """One file of an attempt."""

    path: Inside
    """POSIX path relative to the attempt's group, or to `rejects/`."""
    bytes: Count
    sha256: Annotated[str | None, Before(None)] = None
    """In hex. None in stores made before there was the feature `digests`."""
    crc32c: Annotated[int | None, Before(None)] = None
    """In those stores; of a file that ends in its own crc32c it tells nothing, since it is the same for all of them."""
    etag: str | None = None
    """The entity tag that an object store gave these contents; None on a file system."""

    @model_validator(mode="after")
    def _has_a_checksum(self) -> Self:
        if self.sha256 is None and self.crc32c is None:
            raise ValueError("a file without sha256")
        return self


class ArrayRecord(Record):
    """Shape and storage of one array."""

    shape: tuple[Count, ...]
    dtype: str
    chunks: tuple[int, ...]
    """Shape of the inner chunks; the one Zarr shard holds them all."""
    codecs: tuple[str, ...]
    chunk_crc32c: Annotated[str | None, Before(None)] = None
    """The crc32c of each inner chunk, see `pack_checksums`. None in stores made before there was `digests`."""


class CommitRecord(Record):
    """What makes a part exist. Written once, after everything it speaks of."""

    part: PartName
    attempt: AttemptName
    sources: Annotated[tuple[SourceRecord, ...], Field(min_length=1)]
    seen: Count
    """Samples in the source shard: written + rejected."""
    written: Count
    rejected: Count
    unlabelled: Count
    """Written samples without a label."""
    missing: Annotated[dict[str, Count], Before({})] = Field(default={})
    """Written samples without a kept field, by its name; of fields that all of them have, nothing."""
    ignored: tuple[str, ...]
    """Members that belong to no sample by the rules of WebDataset; the first hundred."""
    arrays: dict[str, ArrayRecord]
    files: tuple[FileRecord, ...]
    rejects: FileRecord
    code_counts: str
    """How often each code occurs, see `store/schema/counts.py`."""
    content_digest: str
    execution: JSON
    """Precision, device, batch shape and library versions that the tokens were made with."""
    seconds: dict[str, Seconds]
    """Busy seconds by stage (read, decode, encode, write), summed over its threads: stages run beside each other.
    `wall` is the time of the process that was spent on this part alone."""
    counts: dict[str, Count] = Field(default={})
    """Samples by stage."""
    threads: dict[str, Count] = Field(default={})
    """How many each stage had; and `cores`, the CPU cores of the process."""
    host: str
    finished: str
    """UTC time of the commit, ISO 8601."""

    @property
    def has_digests(self) -> bool:
        """Whether it says by digests what it speaks of: in a store with the feature `digests`."""
        return self.rejects.sha256 is not None


def committed_parts(files: Files, expected: Iterable[str] = ()) -> set[str]:
    """Names of all committed parts, from a single listing. A file that no part can be called by is none of them.

    Args:
        expected: parts of which each that the listing lacks is asked for: the lists of some object stores lag behind,
            and one that cannot be seen there must not pass for a missing one.
    """
    with naming_no_file(files, names.COMMITS, "no folder"):
        found = {name.removesuffix(".json") for name in files.names(names.COMMITS) if name.endswith(".json")}
    listed = {name for name in found if names.is_part(name)}
    return listed | late_commits(files, set(expected) - listed)


def late_commits(files: Files, lacking: Iterable[str]) -> set[str]:
    """Which of the parts that a listing lacks are committed all the same; each is asked for."""
    asked = sorted(lacking)
    answers = read_each(lambda part: is_committed(files, part), asked)
    return {part for part, committed in zip(asked, answers, strict=True) if committed}


def is_committed(files: Files, part: str) -> bool:
    """Whether a part is committed, now."""
    try:
        files.stat(names.commit(part))
    except FileNotFoundError:
        return False
    return True


class _OfAPart(Protocol):
    """What any record of a commit has."""

    @property
    def part(self) -> str: ...

    @classmethod
    def model_validate_json(cls, data: bytes, /) -> Self: ...


Commit = TypeVar("Commit", bound=_OfAPart)


def read_commit(files: Files, part: str) -> CommitRecord:
    """The commit record of a part.

    Raises FileNotFoundError without one, CorruptStore for one that cannot be read.
    """
    record, is_sealed = _read_commit(CommitRecord, files, part)
    if record.has_digests and not is_sealed:
        raise damaged(files, names.commit(part), "not a commit record (it has lost its own sha256)")
    return record


def read_commit_as(kind: type[Commit], files: Files, part: str) -> Commit:
    """The same as another model, which may leave out what its caller does not need. Raises as `read_commit` does."""
    return _read_commit(kind, files, part)[0]


def _read_commit(kind: type[Commit], files: Files, part: str) -> tuple[Commit, bool]:
    """The record, and whether it carries a digest of itself."""
    path = names.commit(part)
    record, is_sealed = read_record(files, path, kind, "a commit record")
    if record.part != part:
        raise damaged(files, path, f"the commit record of {record.part}")
    return record, is_sealed


def read_commits(files: Files, parts: Iterable[str]) -> list[CommitRecord]:
    """Commit records of `parts`, in that order, several read at a time.

    Raises as `read_commit` does, and CorruptStore that names several damaged ones.
    """
    commits, damage = read_sound(lambda part: read_commit(files, part), list(parts))
    if damage:
        raise together(damage)
    return commits


def remedy(files: Files, part: str, attempt: str) -> str:
    """What to do about a damaged or missing file of an attempt that a reader has opened.

    Of a store that was made anew since, or moved, nothing is to be deleted: what is there now is sound.
    """
    path = names.commit(part)
    try:
        now = read_commit(files, part).attempt
    except FileNotFoundError:
        gone = f"nor is there {path} any more"
        return f"{gone}: the store was moved, deleted or made anew since it was opened; open it again"
    except (OSError, VqtokError):
        now = attempt
    if now != attempt:
        return f"{path} names another attempt by now: the store was made anew since it was opened; open it again"
    return f"delete {path} and {names.MANIFEST}, then run vqtok tokenize again, or restore it from a copy of the store"


def publish(files: Files, record: CommitRecord) -> bool:
    """Make a part exist. Returns False where another attempt was first.

    A reply can be lost after the record was written, so who lost is decided by reading it back: only a
    record that names another attempt means that.
    """
    data = sealed(record.to_json()) if record.has_digests else record.to_json()
    if files.put_if_absent(names.commit(record.part), data):
        return True
    return read_commit(files, record.part).attempt == record.attempt


def commonest_reasons(reasons: Iterable[str], count: int = 3) -> str:
    """The most frequent reasons with their numbers, for messages."""
    return "; ".join(f"{number} x {reason}" for reason, number in Counter(reasons).most_common(count))
