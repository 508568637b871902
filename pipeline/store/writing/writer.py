"""Writing a part: complete and durable first, and only then committed."""

import contextlib
import hashlib
import secrets
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import google_crc32c
import numpy as np

from pipeline.files import Files
from pipeline.records import JSON, NO_LABEL, Reject, SourceRecord
from pipeline.store.arrays.group import make_group
from pipeline.store.arrays.storage import Views, arrays_of_part
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.commits import CommitRecord, FileRecord, publish, read_commit
from pipeline.store.schema.counts import pack_counts
from pipeline.store.schema.digest import content_digest
from pipeline.store.schema.sizes import check_sizes
from pipeline.store.types import Array


@dataclass(frozen=True)
class EncodedShard:
    """All that one source shard brings into the store."""

    part: str
    sources: tuple[SourceRecord, ...]
    """The files that it is made of."""
    tokens: Array
    """unsigned [n, L_total] in the store's token dtype; in a store with views [n, V, L_total]."""
    keys: list[str]
    labels: list[int]
    fields: dict[str, list[bytes | None]]
    rejects: list[Reject]
    ignored: list[str]
    execution: JSON
    seconds: dict[str, float]
    views: Views | None = None
    """In a store with views, which they are."""
    counts: dict[str, int] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    """These as in CommitRecord."""


def commit_part(files: Files, birth: Birth, shard: EncodedShard) -> CommitRecord:
    """Write one attempt at a part and commit it.

    The order makes every crash harmless: nothing exists for readers until the commit record, and the
    record is written after all that it speaks of is durable. Returns the commit that counts, which is
    another attempt's if that was first; then this attempt is deleted.

    Raises CorruptStore when a file is not what was written, and OSError (disk full, read-only, ...).
    """
    attempt = secrets.token_hex(4)
    try:
        record = _write_attempt(files, birth, shard, attempt)
    except BaseException:
        _remove_files(files, shard.part, attempt)  # never offered for a commit, so nobody can need it
        raise
    if publish(files, record):
        return record
    delete_attempt(files, shard.part, attempt)
    return read_commit(files, shard.part)


def _write_attempt(files: Files, birth: Birth, shard: EncodedShard, attempt: str) -> CommitRecord:
    """Put the files of an attempt into place, durably; returns the record to publish."""
    started = time.monotonic()
    name = names.attempt(shard.part, attempt)
    folder = f"{names.PARTS}/{name}"
    arrays = arrays_of_part(shard.tokens, shard.keys, shard.labels, shard.fields, shard.views)
    group = make_group(arrays, birth.codec, birth.has_digests)
    stats = files.put_folder(folder, group.contents, f"{names.STAGING}/{name}")
    rejects = b"".join(reject.model_dump_json().encode() + b"\n" for reject in shard.rejects)
    if rejects:
        files.put(names.rejects(shard.part, attempt), rejects)
    file_records = [
        _record(birth, path, data, stats[path].etag if path in stats else None) for path, data in group.contents.items()
    ]
    check_sizes(f"{files.root}/{folder}", stats, file_records)
    return CommitRecord(
        part=shard.part,
        attempt=attempt,
        sources=shard.sources,
        seen=len(shard.keys) + len(shard.rejects),
        written=len(shard.keys),
        rejected=len(shard.rejects),
        unlabelled=shard.labels.count(NO_LABEL),
        missing={name: count for name, values in sorted(shard.fields.items()) if (count := values.count(None))},
        ignored=tuple(shard.ignored[:100]),
        arrays=group.arrays,
        files=tuple(file_records),
        rejects=_record(birth, f"{name}.jsonl", rejects, None),
        code_counts=pack_counts(np.bincount(shard.tokens.reshape(-1), minlength=birth.codebook.vocab_size)),
        content_digest=content_digest(arrays),
        execution=shard.execution,
        seconds={**shard.seconds, "write": round(time.monotonic() - started, 3)},
        counts=shard.counts,
        threads=shard.threads,
        host=socket.gethostname(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _record(birth: Birth, path: str, data: bytes, etag: str | None) -> FileRecord:
    if birth.has_digests:
        return FileRecord(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), etag=etag)
    return FileRecord(path=path, bytes=len(data), crc32c=google_crc32c.value(data), etag=etag)


def delete_attempt(files: Files, part: str, attempt: str) -> None:
    """Delete an attempt of which a commit says that another one counts.

    An attempt without such a commit may be about to be committed, so this refuses to touch it.
    """
    if read_commit(files, part).attempt == attempt:
        raise AssertionError(f"attempt {attempt} of {part} is the committed one")
    _remove_files(files, part, attempt)


def _remove_files(files: Files, part: str, attempt: str) -> None:
    # What cannot be removed is garbage that no reader sees, and no reason to fail.
    for folder in (names.PARTS, names.STAGING):
        with contextlib.suppress(OSError):
            files.delete_folder(f"{folder}/{names.attempt(part, attempt)}")
    with contextlib.suppress(OSError):
        files.delete(names.rejects(part, attempt))
