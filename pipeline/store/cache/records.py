"""Local copies of what commits say of the files of parts: with them, what the cache holds needs no request at all."""

from collections.abc import Sequence

from pydantic import ValidationError

from pipeline.files import Files
from pipeline.files.damage import damaged
from pipeline.records import Record, digest_of
from pipeline.store.cache.parts import PartCache
from pipeline.store.schema import names
from pipeline.store.schema.commits import FileRecord, read_commit
from pipeline.store.schema.seals import sealed, unsealed


class _Kept(Record):
    """Contents of a copy."""

    files: tuple[FileRecord, ...]


def file_records(cache: PartCache, files: Files, part: str, attempt: str) -> Sequence[FileRecord]:
    """What the commit of an attempt says of its files, from the cache if it is there. No attempt is committed twice.

    Raises CorruptStore where there is no such commit or it cannot be read, and OSError.
    """
    name = digest_of([files.root, names.commit(part), attempt])
    kept = _read(cache.kept(name))
    if kept is not None:
        return kept.files
    try:
        commit = read_commit(files, part)
    except FileNotFoundError:
        raise damaged(files, names.commit(part), "missing, and the manifest speaks of it") from None
    cache.forget(name)
    cache.keep(name, sealed(_Kept(files=commit.files).to_json()))
    return commit.files


def _read(data: bytes | None) -> _Kept | None:
    """A copy; None for one that is missing or not whole."""
    try:
        record, is_sealed = unsealed(data or b"")
        return _Kept.model_validate_json(record) if is_sealed else None
    except (ValidationError, ValueError):
        return None
