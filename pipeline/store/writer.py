"""Writing a part: staged, made durable, renamed into place, and only then committed."""

import contextlib
import secrets
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from zarr.storage import LocalStore

from pipeline.files import LocalFiles, make_folder, sync_folder, sync_tree
from pipeline.records import JSON, Reject
from pipeline.store import names
from pipeline.store.arrays import Array, arrays_of_part, create_array, groups_of
from pipeline.store.birth import Birth
from pipeline.store.commits import (
    ArrayRecord,
    CommitRecord,
    FileRecord,
    SourceRecord,
    publish,
    read_commit,
)
from pipeline.store.counts import pack_counts
from pipeline.store.digest import content_digest
from pipeline.store.sizes import check_sizes, crc32c_of


@dataclass(frozen=True)
class EncodedShard:
    """All that one source shard brings into the store."""

    part: str
    source: SourceRecord
    tokens: Array
    """unsigned [n, L_total] in the store's token dtype."""
    keys: list[str]
    labels: list[int]
    fields: dict[str, list[bytes | None]]
    rejects: list[Reject]
    ignored: list[str]
    execution: JSON
    seconds: dict[str, float]


def commit_part(files: LocalFiles, birth: Birth, shard: EncodedShard) -> CommitRecord:
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


def _write_attempt(files: LocalFiles, birth: Birth, shard: EncodedShard, attempt: str) -> CommitRecord:
    """Stage an attempt, make it durable and move it into place; returns the record to publish."""
    started = time.monotonic()
    name = names.attempt(shard.part, attempt)
    staged, final = files.path(f"{names.STAGING}/{name}"), files.path(f"{names.PARTS}/{name}")
    arrays = arrays_of_part(shard.tokens, shard.keys, shard.labels, shard.fields)
    array_records = _write_arrays(staged, arrays, birth)
    file_records = _describe(staged)
    sync_tree(staged)
    sync_folder(staged.parent)
    staged.rename(final)
    sync_folder(final.parent)
    check_sizes(final, file_records)
    rejects = b"".join(reject.model_dump_json().encode() + b"\n" for reject in shard.rejects)
    files.put(names.rejects(shard.part, attempt), rejects)
    return CommitRecord(
        part=shard.part,
        attempt=attempt,
        sources=(shard.source,),
        seen=len(shard.keys) + len(shard.rejects),
        written=len(shard.keys),
        rejected=len(shard.rejects),
        unlabelled=shard.labels.count(-1),
        ignored=tuple(shard.ignored[:100]),
        arrays=array_records,
        files=tuple(file_records),
        rejects=FileRecord(path=f"{name}.jsonl", bytes=len(rejects), crc32c=google_crc32c.value(rejects)),
        code_counts=pack_counts(np.bincount(shard.tokens.reshape(-1), minlength=birth.codebook.vocab_size)),
        content_digest=content_digest(arrays),
        execution=shard.execution,
        seconds={**shard.seconds, "write": round(time.monotonic() - started, 3)},
        host=socket.gethostname(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def delete_attempt(files: LocalFiles, part: str, attempt: str) -> None:
    """Delete an attempt of which a commit says that another one counts.

    An attempt without such a commit may be about to be committed, so this refuses to touch it.
    """
    if read_commit(files, part).attempt == attempt:
        raise AssertionError(f"attempt {attempt} of {part} is the committed one")
    _remove_files(files, part, attempt)


def _remove_files(files: LocalFiles, part: str, attempt: str) -> None:
    for folder in (names.PARTS, names.STAGING):
        shutil.rmtree(files.path(f"{folder}/{names.attempt(part, attempt)}"), ignore_errors=True)
    with contextlib.suppress(OSError):
        files.delete(names.rejects(part, attempt))


def _write_arrays(folder: Path, arrays: Mapping[str, Array], birth: Birth) -> dict[str, ArrayRecord]:
    make_folder(folder.parent)
    group = zarr.create_group(LocalStore(folder), zarr_format=3)
    for path in groups_of(arrays):
        group.create_group(path)
    for path, array in arrays.items():
        create_array(group, path, array, birth.codec)
    return {path: _array_record(group, path) for path in arrays}


def _array_record(group: zarr.Group, path: str) -> ArrayRecord:
    array = group[path]
    assert isinstance(array, zarr.Array)
    codecs = [type(codec).__name__.removesuffix("Codec").lower() for codec in array.compressors]
    return ArrayRecord(shape=array.shape, dtype=str(array.dtype), chunks=array.chunks, codecs=("bytes", *codecs))


def _describe(folder: Path) -> list[FileRecord]:
    return [
        FileRecord(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, crc32c=crc32c_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
