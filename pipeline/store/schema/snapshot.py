"""Making a manifest out of commit records."""

from collections.abc import Sequence

import numpy as np

from pipeline.errors import CorruptStore, StoreError
from pipeline.store.schema import names
from pipeline.store.schema.commits import CommitRecord
from pipeline.store.schema.counts import pack_counts, unpack_counts
from pipeline.store.schema.digest import store_digest
from pipeline.store.schema.manifest import Manifest, PartRecord, Snapshot


def make_manifest(
    commits: Sequence[CommitRecord],
    planned: Sequence[str],
    vocab_size: int,
    generation: int,
    previous: Manifest | None = None,
) -> Manifest:
    """The snapshot of `commits`, the same for the same commits whoever makes it.

    Args:
        previous: the manifest that this one replaces; it, too, can be read later on.

    Raises CorruptStore for a commit whose counts cannot be read.
    """
    since = {part.part: part.since for part in previous.parts} if previous else {}
    rows, most = sum(commit.written for commit in commits), 1 << 48
    if max(rows, sum(commit.rejected for commit in commits)) >= most:
        raise CorruptStore(f"{names.COMMITS}: the records tell of {rows:,} rows, and a store has fewer than {most:,}")
    ordered = sorted(commits, key=lambda commit: commit.part)
    parts = tuple(PartRecord.of(commit, since.get(commit.part, generation)) for commit in ordered)
    counts = np.zeros(vocab_size, np.int64)
    for commit in commits:
        counts += unpack_counts(commit.code_counts, vocab_size, names.commit(commit.part))
    return Manifest(
        generation=generation,
        planned=tuple(sorted(planned)),
        parts=parts,
        written=sum(part.written for part in parts),
        rejected=sum(part.rejected for part in parts),
        code_counts=pack_counts(counts),
        content_digest=store_digest((part.part, part.content_digest) for part in parts),
        earlier=_earlier(previous, generation) if previous else (),
    )


def as_it_was(manifest: Manifest, content_digest: str, root: str) -> Manifest:
    """The manifest of the generation that had this content digest.

    Raises StoreError where the store never had it.
    """
    if content_digest == manifest.content_digest:
        return manifest
    for snapshot in manifest.earlier:
        if snapshot.content_digest == content_digest:
            parts = tuple(part for part in manifest.parts if part.since <= snapshot.generation)
            if store_digest((part.part, part.content_digest) for part in parts) != content_digest:
                raise CorruptStore(f"{root}/{names.MANIFEST}: the parts of generation {snapshot.generation} are others")
            planned = tuple(part.part for part in parts)
            return Manifest(**snapshot.model_dump(), parts=parts, planned=planned)
    known = ", ".join(s.content_digest[:12] for s in (*manifest.earlier, manifest))
    raise StoreError(
        f"{root}: never had the content digest {content_digest}; it has had {known} ...; is it another store, or was "
        f"{names.MANIFEST} deleted meanwhile?"
    )


def _earlier(previous: Manifest, generation: int) -> tuple[Snapshot, ...]:
    if previous.generation >= generation:
        return previous.earlier
    return (*previous.earlier, Snapshot(**{name: getattr(previous, name) for name in Snapshot.model_fields}))
