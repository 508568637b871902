"""Making a manifest out of commit records."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.store import names
from pipeline.store.commits import CommitRecord
from pipeline.store.counts import pack_counts, unpack_counts
from pipeline.store.manifest import Manifest, PartRecord


def make_manifest(
    commits: Sequence[CommitRecord], planned: Sequence[str], vocab_size: int, generation: int
) -> Manifest:
    """The snapshot of `commits`, the same for the same commits whoever makes it.

    Raises CorruptStore for a commit whose counts cannot be read.
    """
    parts = tuple(PartRecord.of(commit) for commit in sorted(commits, key=lambda commit: commit.part))
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
    )


def store_digest(parts: Iterable[tuple[str, str]]) -> str:
    """sha256 (hex) over the lines `part digest\\n` of all parts, sorted."""
    lines = sorted(f"{part} {digest}\n" for part, digest in parts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
