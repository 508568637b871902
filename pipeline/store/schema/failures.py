"""Why source shards are still pending. A record for people; nothing is decided by it."""

import contextlib

from pydantic import ValidationError

from pipeline.errors import CorruptStore
from pipeline.files import Files
from pipeline.files.damage import naming_no_file
from pipeline.records import Record
from pipeline.store.schema import names

JOB = "~job"
"""In place of a part: why a process gave up altogether. No part is called so."""


class Failure(Record):
    """The last failed try at a source shard."""

    part: str
    source: str
    reason: str
    host: str
    time: str
    """UTC, ISO 8601."""


def record_failure(files: Files, failure: Failure) -> None:
    """Remember a failure in place of an earlier one."""
    files.put(names.failure(failure.part), failure.to_json())


def read_failures(files: Files, parts: set[str]) -> list[Failure]:
    """Failures of the given parts that can be read, sorted by part."""
    failures = []
    for name in files.list(names.FAILURES):
        if name.removesuffix(".json") in parts:
            with contextlib.suppress(FileNotFoundError, CorruptStore, ValidationError):  # cleared or replaced meanwhile
                path = f"{names.FAILURES}/{name}"
                with naming_no_file(files, path):
                    failures.append(Failure.model_validate_json(files.read(path)))
    return failures


def noted_failures(files: Files) -> set[str]:
    """Parts of which there is a note, from a single listing."""
    return {name.removesuffix(".json") for name in files.list(names.FAILURES)}


def clear_failure(files: Files, part: str) -> None:
    """Forget the failure of a part that is committed now."""
    with contextlib.suppress(IsADirectoryError, PermissionError):  # whatever is in its place, it is no note
        files.delete(names.failure(part))
