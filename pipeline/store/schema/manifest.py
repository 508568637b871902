"""The manifest: a snapshot of all commits, from which readers open a store without walking it."""

from typing import Literal

from pydantic import ValidationError

from pipeline.files import Files
from pipeline.records import Record, SourceRecord
from pipeline.store.schema import names
from pipeline.store.schema.birth import FORMAT, VERSION
from pipeline.store.schema.commits import CommitRecord
from pipeline.store.schema.damage import damaged


class PartRecord(Record):
    """What a reader needs of one commit."""

    part: str
    attempt: str
    sources: tuple[SourceRecord, ...]
    written: int
    rejected: int
    unlabelled: int
    bytes: int
    """Size of all files of the part."""
    content_digest: str
    since: int = 1
    """Generation of the first manifest that has it."""

    @classmethod
    def of(cls, commit: CommitRecord, since: int) -> "PartRecord":
        return cls(
            part=commit.part,
            attempt=commit.attempt,
            sources=commit.sources,
            written=commit.written,
            rejected=commit.rejected,
            unlabelled=commit.unlabelled,
            bytes=sum(file.bytes for file in commit.files),
            content_digest=commit.content_digest,
            since=since,
        )


class Snapshot(Record):
    """What a store was at a generation; its parts are those of `since` at most that."""

    generation: int
    written: int
    rejected: int
    code_counts: str
    """How often each code occurs, see `store/counts.py`."""
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


def read_manifest(files: Files) -> Manifest | None:
    """The manifest, or None before the first completion. Raises CorruptStore for a damaged one."""
    try:
        return Manifest.model_validate_json(files.read(names.MANIFEST))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise damaged(
            files, names.MANIFEST, f"not a manifest ({error.errors()[0]['msg']}); delete it and run vqtok tokenize"
        ) from None


def is_current(manifest: Manifest | None, committed: set[str], planned: set[str]) -> bool:
    """Whether a manifest already says all there is; commits never change, so names suffice."""
    return (
        manifest is not None
        and {part.part for part in manifest.parts} == committed
        and set(manifest.planned) == planned
    )
