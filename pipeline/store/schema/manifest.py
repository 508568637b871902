"""The manifest: a snapshot of all commits, from which readers open a store without walking it."""

from collections.abc import Iterable, Mapping, Sequence
from operator import ge
from typing import Annotated, Literal

from pydantic import Field

from pipeline.before import Before
from pipeline.errors import CorruptStore
from pipeline.files import Files, LocalFiles
from pipeline.files.damage import damaged
from pipeline.records import Count, Record, SourceRecord
from pipeline.store.schema import names
from pipeline.store.schema.birth import FORMAT, VERSION, Birth
from pipeline.store.schema.commits import ArrayRecord, CommitRecord, late_commits
from pipeline.store.schema.digest import store_digest
from pipeline.store.schema.names import AttemptName, PartName
from pipeline.store.schema.seals import read_record


class PartRecord(Record):
    """What a reader needs of one commit."""

    part: PartName
    attempt: AttemptName
    sources: Annotated[tuple[SourceRecord, ...], Field(min_length=1)]
    written: Count
    rejected: Count
    unlabelled: Count
    bytes: Count
    """Size of all files of the part."""
    content_digest: str
    chunk_crc32c: Annotated[str, Before("")] = ""
    """What the records of its arrays in the commit say under this name, in the order of the arrays' paths with a space
    between two. One text, because it is parsed for every part when a store is opened. Empty where they say nothing."""
    since: int = 1
    """Generation of the first manifest that has it."""

    @classmethod
    def of(cls, commit: CommitRecord, since: int) -> "PartRecord":
        """What the manifest of generation `since` takes over from a commit."""
        return cls(
            part=commit.part,
            attempt=commit.attempt,
            sources=commit.sources,
            written=commit.written,
            rejected=commit.rejected,
            unlabelled=commit.unlabelled,
            bytes=sum(file.bytes for file in commit.files),
            content_digest=commit.content_digest,
            chunk_crc32c=_together(commit.arrays),
            since=since,
        )


def _together(arrays: Mapping[str, ArrayRecord]) -> str:
    checksums = [arrays[path].chunk_crc32c for path in sorted(arrays)]
    return "" if None in checksums else " ".join(map(str, checksums))


class Snapshot(Record):
    """What a store was at a generation; its parts are those of `since` at most that."""

    generation: Count
    written: Count
    rejected: Count
    code_counts: str
    """How often each code occurs, see `store/schema/counts.py`."""
    content_digest: str


class Manifest(Snapshot):
    """Contents of `manifest.json`; replaced atomically by one of the next generation."""

    format: Literal["vqtok"] = FORMAT
    version: Literal[1] = VERSION
    planned: tuple[str, ...]
    """Parts of the configuration that was completed last, sorted."""
    parts: tuple[PartRecord, ...]
    """All committed parts, sorted by name: the order of the rows."""
    earlier: tuple[Snapshot, ...] = ()
    """What the store was before it grew, oldest first."""


_REMEDY = "; delete it and run vqtok tokenize"


def read_manifest(files: Files, birth: Birth) -> Manifest | None:
    """The manifest of a store, or None before the first completion.

    Raises CorruptStore for a damaged one, for one that does not agree with itself, and for one without a digest of
    itself in a store that has digests.
    """
    try:
        manifest, is_sealed = read_record(files, names.MANIFEST, Manifest, "a manifest", _REMEDY)
    except FileNotFoundError:
        return None
    wrong = _disagreement(manifest) if is_sealed or not birth.has_digests else "it has lost its own sha256"
    if wrong:
        raise damaged(files, names.MANIFEST, f"not a manifest ({wrong}){_REMEDY}")
    return manifest


def write_manifest(files: Files, birth: Birth, manifest: Manifest) -> None:
    """Replace the manifest of a store."""
    files.put(names.MANIFEST, birth.written(manifest))


def _disagreement(manifest: Manifest) -> str:
    """In what a manifest contradicts itself; `` for a sound one."""
    parts = manifest.parts
    ordered = [part.part for part in parts]
    if any(map(ge, ordered, ordered[1:])):
        return "its parts are not sorted, or one is there twice"
    written, rejected = sum(part.written for part in parts), sum(part.rejected for part in parts)
    if (manifest.written, manifest.rejected) != (written, rejected):
        said = f"{manifest.written:,} written and {manifest.rejected:,} rejected"
        return f"{said}, {written:,} and {rejected:,} in its parts"
    if max((part.since for part in parts), default=0) > manifest.generation:
        return f"a part is younger than generation {manifest.generation}"
    if store_digest((part.part, part.content_digest) for part in parts) != manifest.content_digest:
        return "its content digest is not that of its parts"
    return ""


def refuse_other_attempts(files: Files, manifest: Manifest, commits: Iterable[CommitRecord]) -> None:
    """Raise CorruptStore where a manifest names a part as another attempt than its commit record does.

    Parts never change, so one of the two is of another time: a manifest that replaced this one could not say what
    the store was before.
    """
    known = {part.part: part.attempt for part in manifest.parts}
    for commit in commits:
        if known.get(commit.part, commit.attempt) != commit.attempt:
            raise damaged(files, names.MANIFEST, unlike(names.commit(commit.part)))


def refuse_lost_arrays(files: Files, parts: Iterable[PartRecord | CommitRecord]) -> None:
    """Raise CorruptStore where the folders of committed parts are gone, as a copy that was broken off leaves them.

    Asked for by one listing, and only on file systems, where it is cheap. What that lacks is looked for by name: lists
    of network file systems lag behind.
    """
    if not isinstance(files, LocalFiles):
        return
    there = set(files.folders(names.PARTS))
    unlisted = {names.attempt(part.part, part.attempt) for part in parts} - there
    lost = sorted(name for name in unlisted if not files.path(f"{names.PARTS}/{name}").is_dir())
    if lost:
        part = names.attempt_of(lost[0])[0]
        raise damaged(
            files,
            f"{names.PARTS}/{lost[0]}",
            f"missing, with the arrays of {len(lost):,} committed parts in all; finish copying the store, or restore "
            f"them from a copy; what is lost is tokenized again once records such as {names.commit(part)} and "
            f"{names.MANIFEST} are deleted",
        )


def unlike(path: str) -> str:
    """What is wrong with a manifest that does not say what the commit record at `path` says, and what to do."""
    return f"not as {path} says{_REMEDY} again"


def lost_parts(files: Files, manifest: Manifest | None, committed: set[str]) -> list[str]:
    """Parts that a manifest names and whose commit records are gone, sorted.

    Such a part would be tokenized again while readers, who go by the manifest, read the old one.

    Args:
        committed: parts of which there is a record, as listed; each that this lacks is asked for.
    """
    lacking = {part.part for part in manifest.parts} - committed if manifest else set()
    return sorted(lacking - late_commits(files, lacking))


def lost_records(files: Files, parts: Sequence[str]) -> CorruptStore:
    """The error for parts of `lost_parts`."""
    return damaged(
        files,
        names.COMMITS,
        f"{len(parts):,} of the records that {names.MANIFEST} speaks of are gone, such as {parts[0]}.json; restore "
        f"them from a copy of the store. If they were deleted on purpose, delete {names.MANIFEST}, too (readers go by "
        "it), and run vqtok tokenize",
    )


def is_current(manifest: Manifest | None, committed: set[str], planned: set[str] | None) -> bool:
    """Whether a manifest already says all there is; commits never change, so names suffice.

    Args:
        planned: parts of the configuration; None where it does not matter which one was completed last.
    """
    return (
        manifest is not None
        and {part.part for part in manifest.parts} == committed
        and (planned is None or set(manifest.planned) == planned)
    )
