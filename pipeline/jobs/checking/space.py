"""Whether the disk of a store has room for the tokens of a whole collection: an estimate, from its first samples."""

import os
import shutil
from collections.abc import Sequence

from pipeline.errors import StoreError
from pipeline.files import Files, LocalFiles
from pipeline.files.places import nearest
from pipeline.jobs.checking.lines import Checks
from pipeline.records import SourceShard
from pipeline.store.schema.birth import Birth

# What stands beside the members of a sample in its source shard: headers and padding of a tar.
_BESIDE_MEMBERS = 1024
# Keys, labels, checksums and records beside the tokens of a row.
_BESIDE_TOKENS = 48
_FILES_OF_A_PART = 24


def check_space(
    checks: Checks, store: Files, pending: Sequence[SourceShard], birth: Birth, sample_bytes: float, field_bytes: int
) -> None:
    """Compare what is free with what the job will write there; of an object store nothing is known."""
    if not isinstance(store, LocalFiles):
        return
    folder = nearest(store.path("."))

    def compare() -> str:
        free, files = shutil.disk_usage(folder).free, _free_files(str(folder))
        rows = estimated_rows(pending, sample_bytes)
        needed = None if rows is None else needed_bytes(rows, birth, field_bytes)
        more = len(pending) * _FILES_OF_A_PART
        said = f"{free / 1e6:,.0f} MB free"
        if needed is not None:
            said += f", about {needed / 1e6:,.2f} MB needed for about {rows:,} rows"
        if needed is not None and needed > free:
            raise StoreError(f"{folder}: {said}; make room, or name another tokenize.store")
        if files is not None and more > files:
            raise StoreError(
                f"{folder}: room for {files:,} more files (df -i), about {more:,} needed for {len(pending):,} source "
                "shards; make room, pack more images into a source shard, or name another tokenize.store"
            )
        return said

    checks.attempt("store", "free space", compare, str)


def estimated_rows(pending: Sequence[SourceShard], sample_bytes: float) -> int | None:
    """How many rows source shards would become; None where their sizes are not known. Pure.

    Args:
        sample_bytes: of the members of a sample, on average.
    """
    if any(shard.bytes is None for shard in pending):
        return None
    beside = 0 if all(shard.listing is not None for shard in pending) else _BESIDE_MEMBERS
    return round(sum(shard.bytes or 0 for shard in pending) / max(1.0, sample_bytes + beside))


def needed_bytes(rows: int, birth: Birth, field_bytes: int) -> int:
    """What so many rows take, at most: tokens are compressed a little. Pure.

    Args:
        field_bytes: of the kept members of a sample.
    """
    bits = int(birth.token_dtype.removeprefix("uint"))
    tokens = birth.geometry.num_tokens * (birth.views or 1) * bits // 8
    return rows * (tokens + _BESIDE_TOKENS + field_bytes)


def _free_files(folder: str) -> int | None:
    """How many files the file system has room for; None where it has no such limit. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_favail if found.f_files else None
